"""A worker's clock that is wrong, or that is set while requests run, changes nothing.

What carries a time (jobs, controls, events) has it from the servers.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from bridge.simulator import Behaviour, Simulator
from tests.plain_client import PlainClient, assert_whole, plain_client, request
from tests.replicas import cancel_session
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)
HOUR_S = 3600.0


class WallClock:
    """`time.time` of this process, which may be set."""

    def __init__(self, off_s: float) -> None:
        self.off_s = off_s
        self._true = time.time

    def __call__(self) -> float:
        return self._true() + self.off_s

    def true(self) -> float:
        return self._true()


@pytest.fixture(params=[-HOUR_S, -60.0, 0.0, 60.0, HOUR_S])
def clock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WallClock]:
    clock = WallClock(request.param)
    monkeypatch.setattr(time, "time", clock)
    yield clock
    monkeypatch.undo()


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, simulator: Simulator, clock: WallClock
) -> AsyncIterator[PlainClient]:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix, slots=8),
        plain_client(nats_server.url, prefix) as client,
    ):
        yield client


async def test_a_sessions_cancel_ends_what_was_stored_before_it_alone(
    bus: PlainClient,
) -> None:
    await bus.submit("before", LONG, session="call")
    await bus.seen("before", "token")
    await cancel_session(bus, "call")
    for n in range(5):
        await bus.submit(f"after{n}", request(max_tokens=5), session="call")
    assert (await bus.ended("before"))["type"] == "cancelled"
    for n in range(5):
        assert (await bus.ended(f"after{n}"))["type"] == "completed"


async def test_a_deadline_passes_when_it_is_time(bus: PlainClient) -> None:
    began = time.monotonic()
    await bus.submit("one", LONG, deadline_ms=700)
    end = await bus.ended("one")
    took = time.monotonic() - began
    assert end["error"]["code"] == "deadline_exceeded"
    assert 0.5 < took < 10
    log = await bus.log("one")
    assert_whole(log)
    assert "".join(e.get("text", "") for e in log if e["type"] == "token")


async def test_a_step_of_the_clock_in_between(
    bus: PlainClient, clock: WallClock
) -> None:
    began = time.monotonic()
    await bus.submit("long", LONG)
    await bus.submit("short", LONG, deadline_ms=1000)
    await bus.seen("short", "token")
    for step_s in (60.0, -120.0, 60.0):
        clock.off_s += step_s
        seen = len(bus.live["long"])
        await bus.seen("long", "token", seen + 3)
    assert (await bus.ended("short"))["error"]["code"] == "deadline_exceeded"
    assert 0.8 < time.monotonic() - began < 10
    await bus.cancel("long")
    assert (await bus.ended("long"))["type"] == "cancelled"


async def test_what_started_says_is_the_servers_time(
    bus: PlainClient, clock: WallClock
) -> None:
    ack = await bus.submit("one", request(max_tokens=2), deadline_ms=90_000)
    await bus.ended("one")
    started = (await bus.log("one"))[0]
    assert abs(started["created"] / 1000 - clock.true()) < 20
    assert 0 <= started["queue_ms"] < 20_000
    assert started["job"] == ack.seq
    assert started["deadline_ms"] == 90_000
    # A string, for it is more than a double holds.
    assert isinstance(started["job_time"], str)
    assert abs(int(started["job_time"]) / 1e9 - clock.true()) < 20


async def test_the_deadline_that_counts_is_told(bus: PlainClient) -> None:
    """Half of the log's age at most; by default, ten minutes."""
    await bus.submit("default", request(max_tokens=2))
    await bus.submit("capped", request(max_tokens=2), deadline_ms=86_400_000)
    for id, wanted_ms in (("default", 600_000), ("capped", 1_800_000)):
        await bus.ended(id)
        assert (await bus.log(id))[0]["deadline_ms"] == wanted_ms


async def test_job_time_is_what_the_stream_says(
    bus: PlainClient, simulator: Simulator
) -> None:
    """To the nanosecond, so that anyone may compare it with the stored job."""
    ack = await bus.submit("one", LONG)
    started = await bus.seen("one", "started")
    answer = await bus.nats.request(
        f"$JS.API.STREAM.MSG.GET.{ack.stream}", json.dumps({"seq": ack.seq}).encode()
    )
    fraction = json.loads(answer.data)["message"]["time"].partition(".")[2]
    nanoseconds = fraction.rstrip("Z").ljust(9, "0")
    assert started["job_time"].endswith(nanoseconds)
    await bus.cancel("one")
    await bus.ended("one")
