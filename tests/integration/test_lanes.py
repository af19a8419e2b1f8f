"""Lanes: a flood in one costs another's first token at most one slot's wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from bridge.config import LaneSettings
from bridge.simulator import Simulator
from tests.plain_client import Json, PlainClient, plain_client, request
from tests.replicas import lanes, replicas
from tests.servers import NatsServer, running_service

FLOOD = 1000

#: What a job of the flood occupies its slot for, in seconds.
BATCH_S = 0.4


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


async def flood(bus: PlainClient, jobs: int = FLOOD, tokens: int = 8) -> None:
    """Queue so many jobs of the lane ``batch``, each of `BATCH_S`."""
    subject = f"{bus.prefix}.jobs.default.batch"
    body = request(max_tokens=tokens, simulate={"tokens_per_second": tokens / BATCH_S})
    for n in range(jobs):
        job = {"id": f"batch-{n}", "request": {**body, "user": "batch"}}
        await bus.nats.publish(subject, json.dumps(job).encode())

    async def queued() -> bool:
        return await bus.jobs_left() >= jobs - 20

    deadline = time.monotonic() + 10
    while not await queued():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def first_token(bus: PlainClient, id: str, lane: str) -> float:
    """Submit a short request; the seconds until its first token."""
    begun = time.monotonic()
    await bus.submit(id, request(max_tokens=1), lane=lane)
    await bus.seen(id, "token")
    return time.monotonic() - begun


def running(simulator: Simulator, user: str) -> int:
    return sum(r.outcome is None and r.user == user for r in simulator.requests)


async def end(bus: PlainClient) -> None:
    """Empty the queue, so that the flood costs the next test nothing."""
    await bus.jetstream.purge_stream(f"{bus.prefix.upper()}_JOBS")


async def test_a_flood_of_batch_jobs_costs_an_interactive_one_no_slots_wait(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        replicas(
            nats_server.url,
            simulator.url,
            prefix,
            lanes=lanes("batch", "interactive", interactive=1),
            slots=4,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await flood(bus)
        await simulator.wait_for(lambda _: running(simulator, "batch") == 9)
        waits = [await first_token(bus, f"i{n}", "interactive") for n in range(10)]
        waits.sort()
        assert running(simulator, "batch") <= 9  # 3 x 4 slots, 3 of them reserved
        # It waits for no slot. Generous: a busy machine, and three bridges on it.
        assert waits[len(waits) // 2] < BATCH_S
        assert await bus.jobs_left() > FLOOD / 2
        await end(bus)


async def test_reserved_slots_are_taken_by_nobody_else(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            lanes=lanes("voice", "batch", "acme", voice=3, acme=2),
            slots=8,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await flood(bus, 60)
        for _ in range(20):
            await asyncio.sleep(0.05)
            assert running(simulator, "batch") <= 3
        long = request(max_tokens=500, simulate={"tokens_per_second": 50})
        for n in range(3):
            await bus.submit(f"v{n}", long, lane="voice")
        for n in range(2):
            await bus.submit(f"a{n}", long, lane="acme")
        for id in ("v0", "v1", "v2", "a0", "a1"):
            await bus.seen(id, "token")
        assert await bus.jobs_left() > 5  # the flood goes on beside them
        await end(bus)


async def test_without_reserved_slots_a_lane_waits_for_one_slot_at_most(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            lanes=lanes("interactive", "batch"),
            slots=3,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await flood(bus, 100)
        await simulator.wait_for(lambda _: running(simulator, "batch") >= 2)
        waits = [await first_token(bus, f"i{n}", "interactive") for n in range(6)]
        # Each waits until one job of the flood is over, never behind the queue.
        assert sorted(waits)[len(waits) // 2] < 2 * BATCH_S
        assert await bus.jobs_left() > 10
        await end(bus)


async def test_the_flood_has_the_whole_rest(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            lanes=lanes("interactive", "batch", interactive=2),
            slots=40,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await flood(bus, 150)
        # All but the reserved slots; what the idle lane asked for comes free in time.
        await simulator.wait_for(lambda _: running(simulator, "batch") >= 37)
        await end(bus)


async def test_a_lane_of_its_own_is_a_tenants_agreement(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """One tenant's flood in a shared lane, another's lane with a slot of its own."""
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            lanes=lanes("default", "batch", "acme", acme=1),
            slots=4,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await flood(bus, 100)
        await simulator.wait_for(lambda _: running(simulator, "batch") >= 2)
        begun = time.monotonic()
        await bus.submit("one", request(max_tokens=1), tenant="acme", lane="acme")
        await bus.seen("one", "token")
        assert time.monotonic() - begun < BATCH_S * 2
        await end(bus)


async def test_ack_wait_is_the_lanes_own(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """Two requests of a worker that dies: the interactive lane's goes on first."""
    settings = {
        "interactive": LaneSettings(ack_wait_s=0.5),
        "batch": LaneSettings(ack_wait_s=4.0),
    }
    long = request(max_tokens=5000, simulate={"tokens_per_second": 50})
    async with (
        plain_client(nats_server.url, prefix) as bus,
        running_service(
            nats_server.url, simulator.url, prefix=prefix, lanes=settings
        ) as service,
    ):
        waits = await _ack_waits(bus)
        assert waits == {"interactive": 0.5, "batch": 4.0}
        for lane in settings:
            await bus.submit(lane, long, lane=lane)
            await bus.seen(lane, "token")
        service.stop()
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, lanes=settings
        ):
            resumed: Json = await bus.seen("interactive", "resumed")
            assert resumed["attempt"] > 1
            assert all(e["attempt"] == 1 for e in bus.live["batch"])
            await bus.seen("batch", "resumed")
            for lane in settings:
                await bus.cancel(lane)
                await bus.ended(lane)


async def _ack_waits(bus: PlainClient) -> dict[str, float]:
    found = {}
    for lane in ("interactive", "batch"):
        stream = f"{bus.prefix.upper()}_JOBS"
        info = await bus.jetstream.consumer_info(stream, lane)
        assert info.config.ack_wait is not None
        found[lane] = info.config.ack_wait
    return found
