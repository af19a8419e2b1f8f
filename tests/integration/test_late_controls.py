"""A control message reaches listeners before its stream has it: never too early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.simulator import Behaviour, Simulator
from tests.plain_client import PlainClient, assert_whole, plain_client, request
from tests.replicas import lanes, pause, resume
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[PlainClient]:
    async with (
        running_service(
            nats_server.url, simulator.url, prefix=prefix, lanes=lanes("default", "a")
        ),
        plain_client(nats_server.url, prefix) as client,
    ):
        await _open_the_back_door(client)
        yield client


async def _open_the_back_door(bus: PlainClient) -> None:
    """Let the control stream store what no subscriber sees."""
    name = f"{bus.prefix.upper()}_CONTROL"
    answer = await bus.nats.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout=5)
    config = json.loads(answer.data)["config"]
    config["subjects"].append(f"{bus.prefix}-late.>")
    config["subject_transform"] = {
        "src": f"{bus.prefix}-late.>",
        "dest": f"{bus.prefix}.control.>",
    }
    await bus.nats.request(
        f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config).encode(), timeout=5
    )


async def heard(bus: PlainClient, subject: str, **control: Any) -> None:
    """Have a control message heard, as by a stream that takes its time to store it."""
    data = json.dumps({"action": "cancel", "reason": "barge-in", **control}).encode()
    await bus.nats.publish(
        f"{bus.prefix}.control.default.{subject}",
        data,
        # Refused by the stream; listeners get it all the same.
        headers={"Nats-Expected-Last-Subject-Sequence": "4711"},
    )
    await bus.nats.flush()


async def stored(bus: PlainClient, subject: str) -> None:
    """Store the control message that was heard before."""
    data = json.dumps({"action": "cancel", "reason": "barge-in"}).encode()
    await bus.jetstream.publish(f"{bus.prefix}-late.default.{subject}", data)


async def is_cancelled(bus: PlainClient, id: str) -> None:
    assert (await bus.ended(id))["type"] == "cancelled"
    assert_whole(await bus.log(id))


async def test_a_running_requests_session(bus: PlainClient) -> None:
    await bus.submit("one", LONG, session="call")
    await bus.seen("one", "token")
    await heard(bus, "session.call")
    seen = len(bus.live["one"])
    await bus.seen("one", "token", seen + 5)  # nobody knows yet which was first
    await stored(bus, "session.call")
    await is_cancelled(bus, "one")


async def test_a_session_that_was_cancelled_before(bus: PlainClient) -> None:
    """What stands there from the last turn does not answer for this one."""
    await stored(bus, "session.call")
    await bus.submit("one", LONG, session="call")
    await bus.seen("one", "token")
    await heard(bus, "session.call")
    seen = len(bus.live["one"])
    await bus.seen("one", "token", seen + 5)
    await stored(bus, "session.call")
    await is_cancelled(bus, "one")


async def test_a_request_that_is_pulled_in_between(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "a")
    await bus.submit("one", LONG, lane="a")
    await heard(bus, "request.one")
    await resume(bus, "a")
    await is_cancelled(bus, "one")
    assert not simulator.requests


async def test_a_session_whose_request_is_pulled_in_between(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "a")
    await bus.submit("one", LONG, lane="a", session="call")
    await heard(bus, "session.call")
    await resume(bus, "a")
    await bus.seen("one", "token")
    await stored(bus, "session.call")
    await is_cancelled(bus, "one")


async def test_a_superseded_request_that_is_pulled_in_between(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "a")
    ack = await bus.submit("one", LONG, lane="a", session="call")
    await bus.submit("two", LONG, lane="a", session="call")
    await heard(bus, "session.call", before=ack.seq + 1)
    await resume(bus, "a")
    await is_cancelled(bus, "one")
    await bus.seen("two", "token", 3)
    assert len(simulator.requests) == 1
    await bus.cancel("two")
    await bus.ended("two")


async def test_a_request_that_was_stored_after_the_cancel_goes_on(
    bus: PlainClient,
) -> None:
    await heard(bus, "session.call")
    await stored(bus, "session.call")
    await bus.submit("one", request(max_tokens=40), session="call")
    assert (await bus.ended("one"))["type"] == "completed"


async def test_a_cancel_of_an_earlier_life_of_the_id(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It came after the request's end, is kept, and the log is gone by now."""
    monkeypatch.setattr("bridge.generation.claim.AHEAD_OF_JOB_NS", 300_000_000)
    async with plain_client(nats_server.url, prefix) as bus:
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            await bus.submit("one", request(max_tokens=3))
            await bus.ended("one")
            await bus.settled()
            await bus.cancel("one")
        name = f"{prefix.upper()}_TOKENS"
        await bus.nats.request(f"$JS.API.STREAM.PURGE.{name}", b"", timeout=5)
        bus.live.clear()
        await asyncio.sleep(0.4)  # the id's next life is later than a cancel may be
        await bus.submit("one", request(max_tokens=3))
        # And one that was sent ahead of its job counts.
        await bus.cancel("two")
        await bus.submit("two", request(max_tokens=3))
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            assert (await bus.ended("one"))["type"] == "completed"
            assert (await bus.ended("two"))["type"] == "cancelled"
            await bus.settled()
