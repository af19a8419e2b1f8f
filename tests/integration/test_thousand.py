"""A thousand requests at once through one bridge, on both event loops."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
import uvloop

from bridge.simulator import Behaviour, Simulator, text_for
from tests.plain_client import TERMINAL, assert_whole, plain_client, request
from tests.servers import NatsServer, running_service

REQUESTS = 1000
TOKENS = 20

#: All of them together on a machine that does nothing else take about five seconds.
LIMIT_S = 60.0

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

loops = pytest.mark.parametrize(
    "new_loop",
    [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ],
)


async def serve_all(nats_url: str, prefix: str) -> None:
    """Submit all, wait for all, check each against the simulator's own text."""
    behaviour = Behaviour(tokens_per_second=100, jitter=0.5)
    bodies = {
        f"r{n}": request(f"request {n}", max_tokens=TOKENS) for n in range(REQUESTS)
    }
    async with (
        Simulator(behaviour=behaviour) as simulator,
        running_service(nats_url, simulator.url, prefix=prefix, slots=REQUESTS),
        plain_client(nats_url, prefix) as bus,
    ):
        began = time.monotonic()
        for id, body in bodies.items():
            job = json.dumps({"id": id, "request": body}).encode()
            await bus.nats.publish(f"{prefix}.jobs.default.default", job)
        for id in bodies:
            await bus.ended(id)
        took = time.monotonic() - began
        await bus.settled()
        stored: dict[str, int] = {
            id: events[-1]["seq"] for id, events in bus.live.items()
        }
        info = await bus.jetstream.stream_info(
            f"{prefix.upper()}_TOKENS", subjects_filter=">"
        )
        assert len(simulator.requests) == REQUESTS
    assert took < LIMIT_S
    assert set(bus.live) == set(bodies)
    for id, body in bodies.items():
        events = bus.live[id]
        assert_whole(events)
        assert events[-1]["type"] == "completed"
        assert events[-1]["text"] == text_for(body)
        assert len(events) == TOKENS + 2
    # What went over the wire is what is stored, message for message.
    assert info.state.subjects == {
        f"{prefix}.tokens.default.{id}": count for id, count in stored.items()
    }


@loops
def test_a_thousand_at_once(
    nats_server: NatsServer, prefix: str, new_loop: LoopFactory
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_all(nats_server.url, prefix))


async def serve_some(nats_url: str, prefix: str, transport: str) -> None:
    """One that ends, one that fails, one that is cancelled, one that is resumed."""
    long = request(max_tokens=1000)
    async with (
        Simulator(behaviour=Behaviour(tokens_per_second=100)) as simulator,
        running_service(
            nats_url, simulator.url, prefix=prefix, backend_transport=transport
        ),
        plain_client(nats_url, prefix) as bus,
    ):
        await bus.submit("ends")
        await bus.submit("fails", request(simulate={"status": 400}))
        await bus.submit("cancelled", long)
        broken = {"reset_after": 5, "times": 1, "pieces": 3}
        await bus.submit("resumed", request(simulate=broken))
        await bus.submit_bytes(b'{"id":"invalid"}')
        await bus.seen("cancelled", "token", 3)
        await bus.cancel("cancelled")
        ends = {
            id: await bus.ended(id)
            for id in ("ends", "fails", "cancelled", "resumed", "invalid")
        }
        await bus.settled()
        for id in ends:
            log = await bus.log(id)
            assert_whole(log)
            assert log[-1]["type"] in TERMINAL
        assert ends["ends"]["text"] == ends["resumed"]["text"] == text_for(request())
        assert ends["fails"]["error"]["code"] == "backend_rejected"
        assert ends["cancelled"]["type"] == "cancelled"
        assert ends["invalid"]["error"]["code"] == "invalid_job"
        await simulator.wait_idle()
        # The simulator would have sent a thousand tokens in ten seconds.
        assert "client_closed" in {record.outcome for record in simulator.requests}


@loops
@pytest.mark.parametrize("transport", ["slim", "httpx"])
def test_each_kind_of_end(
    nats_server: NatsServer, prefix: str, new_loop: LoopFactory, transport: str
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_some(nats_server.url, prefix, transport))
