"""Jobs whose deadline passes in the queue, while every slot is taken, end in time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest_asyncio
from nats.aio.msg import Msg

from bridge.service import Service
from bridge.simulator import Simulator
from tests.plain_client import (
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
)
from tests.replicas import lanes
from tests.servers import NatsServer, running_service

#: Holds a slot until it is cancelled.
BUSY = request(simulate={"stall_after": 2})


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture
async def service(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[Service]:
    async with running_service(
        nats_server.url,
        simulator.url,
        prefix=prefix,
        slots=2,
        lanes=lanes("default", "batch"),
        idle_timeout_s=60.0,
    ) as service:
        yield service


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, service: Service
) -> AsyncIterator[PlainClient]:
    """Every slot is taken."""
    async with plain_client(nats_server.url, prefix) as client:
        for id in ("busy1", "busy2"):
            await client.submit(id, BUSY)
        for id in ("busy1", "busy2"):
            await client.seen(id, "token", 2)
        yield client


async def free(bus: PlainClient) -> None:
    for id in ("busy1", "busy2"):
        await bus.cancel(id)
        await bus.ended(id)
    await bus.settled()


async def test_one_after_the_other_within_two_seconds(
    bus: PlainClient, service: Service, simulator: Simulator
) -> None:
    ids = [f"q{n}" for n in range(20)]
    for n, id in enumerate(ids):
        lane = "batch" if n % 2 else "default"
        await bus.submit(id, request(user=id), lane=lane, deadline_ms=600)
    began = time.monotonic()
    for id in ids:
        end = await bus.ended(id)
        assert end["error"]["code"] == "deadline_exceeded"
        assert_whole(await bus.log(id))
    # A second until the first is looked at, and the others right behind it.
    assert time.monotonic() - began < 0.6 + 6
    assert service.worker is not None
    assert service.worker.running == 2
    assert len(simulator.requests) == 2
    await free(bus)


async def test_what_has_time_stays_in_the_queue(
    bus: PlainClient, service: Service
) -> None:
    await bus.submit("patient", request(max_tokens=3), deadline_ms=60_000)
    await bus.submit("late", request(), lane="batch", deadline_ms=600)
    assert (await bus.ended("late"))["error"]["code"] == "deadline_exceeded"
    assert not bus.live["patient"]

    async def only_that_one_is_settled() -> bool:
        return await bus.jobs_left() == 3

    await eventually(only_that_one_is_settled)
    await free(bus)
    assert (await bus.ended("patient"))["type"] == "completed"


async def test_what_cannot_be_read_has_the_default(bus: PlainClient) -> None:
    """It is refused when a slot is free; and what is behind it waits."""
    await bus.submit_bytes(b"no json")
    await bus.submit("one", request(max_tokens=3))
    await free(bus)
    await bus.ended("one")


async def test_another_job_than_the_one_that_was_seen_is_served(
    bus: PlainClient, service: Service
) -> None:
    """Beyond the limit, and never given back: a nak would count as a delivery."""
    naks: list[bytes] = []

    async def acknowledged(message: Msg) -> None:
        if message.data.startswith(b"-NAK"):
            naks.append(message.data)

    await bus.nats.subscribe("$JS.ACK.>", cb=acknowledged)
    worker = service.worker
    assert worker is not None
    await bus.submit("patient", request(max_tokens=3), deadline_ms=60_000)
    worker._exceed(worker._sources[0])
    assert (await bus.ended("patient"))["type"] == "completed"
    await free(bus)
    assert not naks


async def test_while_slots_are_free_nobody_looks(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    asked: list[str] = []
    async with (
        plain_client(nats_server.url, prefix) as bus,
        running_service(nats_server.url, simulator.url, prefix=prefix, slots=3),
    ):

        async def heard(message: Msg) -> None:
            asked.append(json.loads(message.data).get("next_by_subj", ""))

        stream = f"{prefix.upper()}_JOBS"
        await bus.nats.subscribe(f"$JS.API.STREAM.MSG.GET.{stream}", cb=heard)
        await bus.submit("busy", BUSY)
        await bus.seen("busy", "token")
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            await bus.submit(f"r{time.monotonic()}".replace(".", "-"), request())
            await bus.nats.flush()
        await bus.cancel("busy")
        await bus.settled()
    assert asked == []
