"""Stop is not drain: what becomes of running and queued jobs, and of the process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from bridge.config import Settings
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator, text_for
from tests.plain_client import (
    PATIENCE_S,
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
    text_of,
)
from tests.servers import NatsServer, running_service


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


class Process:
    """A bridge whose end can be waited for, like a process'."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.task = asyncio.create_task(service.run())

    async def ended(self) -> None:
        """Wait for the end; raises what `Service.run` raised."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.task)


@contextlib.asynccontextmanager
async def process(
    nats_url: str, backend_url: str, prefix: str, **settings: Any
) -> AsyncIterator[Process]:
    values: dict[str, Any] = {
        "nats_url": nats_url,
        "backend_url": backend_url,
        "prefixes": [prefix],
        "http_host": "127.0.0.1",
        "http_port": 0,
        "ack_wait_s": 30.0,  # what is handed over must not wait for it
        **settings,
    }
    process = Process(Service(Settings(**values)))
    try:
        ready = asyncio.create_task(process.service.ready())
        await asyncio.wait(
            [ready, process.task],
            timeout=PATIENCE_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ready.cancel()
        if process.task.done():
            process.task.result()
        yield process
    finally:
        process.service.stop()
        await asyncio.wait([process.task])


async def test_running_requests_finish(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=60)
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        await bus.submit("one", body)
        await bus.seen("one", "token")
        bridge.service.drain()

        async def nobody_asks() -> bool:
            info = await bus.jetstream.consumer_info(
                f"{prefix.upper()}_JOBS", "default"
            )
            return not info.num_waiting

        await eventually(nobody_asks)
        await bus.submit("two", body)
        await bridge.ended()
    log = await bus.log("one")
    assert_whole(log)
    assert log[-1]["type"] == "completed"
    assert {e["attempt"] for e in log} == {1}
    assert not bus.live["two"]
    assert await bus.jobs_left() == 1
    assert len(simulator.requests) == 1


async def test_without_work_it_ends_at_once(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        began = time.monotonic()
        bridge.service.drain()
        await bridge.ended()
        assert time.monotonic() - began < 5


async def test_what_still_runs_is_handed_over(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=150)
    ids = [f"r{n}" for n in range(5)]
    async with process(
        nats_server.url, simulator.url, prefix, drain_timeout_s=0.2
    ) as first:
        for id in ids:
            await bus.submit(id, body)
        for id in ids:
            await bus.seen(id, "token", 5)
        async with process(nats_server.url, simulator.url, prefix) as second:
            first.service.drain()
            await first.ended()
            for id in ids:
                handover = await bus.seen(id, "handover")
                resumed = await bus.seen(id, "resumed")
                assert resumed["seq"] == handover["seq"] + 1
                assert resumed["after"] == handover["seq"]
                assert resumed["reason"] == "handover"
                assert resumed["attempt"] == 2
            for id in ids:
                await bus.ended(id)
            await bus.settled()
            assert second.service.worker is not None
    for id in ids:
        log = await bus.log(id)
        assert_whole(log)
        assert text_of(log) == text_for(body)
        assert [e["type"] for e in log].count("started") == 1
    assert len(simulator.requests) == 2 * len(ids)
    closed = [r for r in simulator.requests if r.outcome == "client_closed"]
    assert len(closed) == len(ids)


async def test_a_handover_is_the_end_of_the_log_until_somebody_goes_on(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=150)
    async with process(
        nats_server.url, simulator.url, prefix, drain_timeout_s=0.0
    ) as bridge:
        await bus.submit("one", body)
        await bus.seen("one", "token", 5)
        bridge.service.drain()
        await bridge.ended()
    log = await bus.log("one")
    assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
    assert log[-1]["type"] == "handover"
    assert log == bus.live["one"]
    await simulator.wait_closed(simulator.requests[0])
    assert await bus.jobs_left() == 1
    began = time.monotonic()
    async with process(nats_server.url, simulator.url, prefix):
        await bus.seen("one", "resumed")
        assert time.monotonic() - began < 10  # ack_wait is 30
        await bus.ended("one")
    assert_whole(await bus.log("one"))


async def test_handovers_do_not_exhaust_the_attempts(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    await_tokens = 0
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        bridge.service.stop()
        await bridge.ended()
    await bus.submit("one", request(max_tokens=100))
    for n in range(7):
        async with process(
            nats_server.url, simulator.url, prefix, drain_timeout_s=0.0
        ) as bridge:
            await_tokens += 2
            await bus.seen("one", "token", await_tokens)
            bridge.service.drain()
            await bridge.ended()
            await bus.seen("one", "handover", n + 1)
            await_tokens = sum(e["type"] == "token" for e in bus.live["one"])
    async with process(nats_server.url, simulator.url, prefix):
        event = await bus.ended("one")
        await bus.settled()
    assert event["type"] == "completed"
    assert event["attempt"] == 8
    assert_whole(await bus.log("one"))
    assert not await bus.dead()


async def test_a_request_that_waits_for_its_backend_is_handed_over(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    hang = {"hang": "before_head", "times": 1}
    async with process(
        nats_server.url, simulator.url, prefix, drain_timeout_s=0.0
    ) as bridge:
        await bus.submit("one", request(simulate=hang))
        await simulator.wait_for(lambda record: record.outcome is None)
        bridge.service.drain()
        await bridge.ended()
    assert [e["type"] for e in await bus.log("one")] == ["started", "handover"]
    async with process(nats_server.url, simulator.url, prefix):
        event = await bus.ended("one")
    assert event["type"] == "completed"
    resumed = (await bus.log("one"))[2]
    assert (resumed["type"], resumed["mode"]) == ("resumed", "continue")
    assert_whole(await bus.log("one"))


async def test_stop_ends_at_once_and_settles_nothing(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token")
        began = time.monotonic()
        bridge.service.stop()
        await bridge.ended()
        assert time.monotonic() - began < 5
    await simulator.wait_closed(simulator.requests[0])
    assert {e["type"] for e in await bus.log("one")} == {"started", "token"}
    assert await bus.jobs_left() == 1


async def test_a_second_signal_stops_a_drain(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token")
        bridge.service.drain()
        await bus.seen("one", "token", 10)
        assert not bridge.task.done()
        bridge.service.stop()
        await bridge.ended()
    assert {e["type"] for e in await bus.log("one")} == {"started", "token"}


async def test_a_drain_before_the_start_is_done(
    prefix: str, simulator: Simulator
) -> None:
    values: dict[str, Any] = {
        "nats_url": "nats://127.0.0.1:1",
        "backend_url": simulator.url,
        "prefixes": [prefix],
        "http_host": "127.0.0.1",
        "http_port": 0,
    }
    for end in ("drain", "stop"):
        service = Service(Settings(**values))
        running = asyncio.create_task(service.run())

        async def answers(service: Service = service) -> bool:
            return service.http_port != 0

        await eventually(answers)
        getattr(service, end)()
        async with asyncio.timeout(PATIENCE_S):
            await running


async def test_cancelling_the_process_stops_it(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token")
        bridge.task.cancel()
        await asyncio.wait([bridge.task])
        assert bridge.task.cancelled()
    await simulator.wait_closed(simulator.requests[0])


async def test_a_draining_bridge_is_alive_and_not_ready(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with process(nats_server.url, simulator.url, prefix) as bridge:
        base = f"http://127.0.0.1:{bridge.service.http_port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as probe:
            await bus.submit("one", request(max_tokens=5000))
            await bus.seen("one", "token")
            assert (await probe.get("/readyz")).status_code == 200
            bridge.service.drain()
            ready = await probe.get("/readyz")
            assert (ready.status_code, ready.text) == (503, "draining\n")
            assert (await probe.get("/livez")).status_code == 200
            metrics = (await probe.get("/metrics")).text
            assert "tokenbridge_running 1.0" in metrics


async def test_two_bridges_and_a_rolling_restart(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    bodies = {f"r{n}": request(f"{n}", max_tokens=30) for n in range(40)}
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, slots=8, ack_wait_s=30.0
    ):
        for id, body in bodies.items():
            await bus.submit(id, body)
        for _ in range(3):
            async with process(
                nats_server.url, simulator.url, prefix, drain_timeout_s=0.3, slots=8
            ) as bridge:
                await asyncio.sleep(0.2)  # some work for it; none would do, too
                bridge.service.drain()
                await bridge.ended()
        for id in bodies:
            await bus.ended(id)
        await bus.settled()
    for id, body in bodies.items():
        log = await bus.log(id)
        assert_whole(log)
        assert log[-1]["text"] == text_for(body)
