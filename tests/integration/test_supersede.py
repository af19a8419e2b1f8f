"""Whatever the order, the session's job with the highest sequence survives, alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from tests.plain_client import (
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
)
from tests.replicas import cancel_session, lanes, owner, pause, replicas, resume
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)

#: A job in each, so that pausing the lanes' consumers decides who comes when.
LANES = ("default", "a", "b", "c", "d", "e")


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=20)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def services(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[list[Service]]:
    async with replicas(
        nats_server.url,
        simulator.url,
        prefix,
        lanes=lanes(*LANES),
        slots=len(LANES) * 2,
        ack_wait_s=0.5,
    ) as services:
        yield services


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, services: list[Service]
) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


async def submit(
    bus: PlainClient, id: str, lane: str = "default", supersede: bool = True
) -> int:
    body = {**LONG, "user": id}
    ack = await bus.submit(id, body, lane=lane, session="call", supersede=supersede)
    return ack.seq


async def superseded(bus: PlainClient, id: str) -> None:
    event = await bus.ended(id)
    assert (event["type"], event["reason"]) == ("cancelled", "superseded")
    assert_whole(await bus.log(id))


async def survives(bus: PlainClient, simulator: Simulator, id: str) -> None:
    """It goes on, nobody else does, and the session's cancel is its own."""
    await bus.seen(id, "token", len(bus.live[id]) + 3)
    assert bus.live[id][-1]["type"] == "token"

    async def alone() -> bool:
        return await bus.jobs_left() == 1 and simulator.active == 1

    await eventually(alone)
    running = [r.user for r in simulator.requests if r.outcome is None]
    assert running == [id]
    await bus.cancel(id)
    await bus.ended(id)
    await bus.settled()


async def anything_of(bus: PlainClient, id: str) -> None:
    await bus.until(lambda: bool(bus.live[id]))


async def kept_before(bus: PlainClient) -> int:
    (kept,) = await bus.stored("CONTROL", f"{bus.prefix}.control.default.session.call")
    return int(json.loads(kept.data)["before"])


async def test_the_next_turn_ends_the_one_before(
    bus: PlainClient, simulator: Simulator
) -> None:
    for turn in range(5):
        await submit(bus, f"turn{turn}")
        await bus.seen(f"turn{turn}", "token")
    for turn in range(4):
        await superseded(bus, f"turn{turn}")
    await survives(bus, simulator, "turn4")


async def test_ordinary_requests_of_the_session_end_too(
    bus: PlainClient, simulator: Simulator
) -> None:
    await submit(bus, "old", supersede=False)
    await bus.seen("old", "token")
    await bus.submit("stranger", LONG, session="another-call")
    await submit(bus, "new")
    await superseded(bus, "old")
    # A later request that does not supersede runs beside.
    await submit(bus, "beside", supersede=False)
    for id in ("new", "beside", "stranger"):
        await bus.seen(id, "token", 3)
        assert bus.live[id][-1]["type"] == "token"
    await cancel_session(bus, "call")
    await cancel_session(bus, "another-call")
    for id in ("new", "beside", "stranger"):
        await bus.ended(id)


async def test_a_late_older_job_never_reaches_a_backend(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "a")
    await pause(bus, "b")
    await submit(bus, "older", "a")
    await submit(bus, "plain", "b", supersede=False)
    seq = await submit(bus, "newest")
    await bus.seen("newest", "token")
    await resume(bus, "a")
    await resume(bus, "b")
    for id in ("older", "plain"):
        await superseded(bus, id)
        assert len(bus.live[id]) == 1
    assert {record.user for record in simulator.requests} == {"newest"}
    assert await kept_before(bus) == seq
    await survives(bus, simulator, "newest")


async def test_a_redelivered_older_job_ends(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """Its worker died; the one that takes over finds that it is superseded."""
    settings: dict[str, Any] = {"ack_wait_s": 0.5, "prefix": prefix}
    async with plain_client(nats_server.url, prefix) as bus:
        async with running_service(nats_server.url, simulator.url, **settings):
            await submit(bus, "older")
            await bus.seen("older", "token", 2)
            await submit(bus, "old", supersede=False)
            await bus.seen("old", "token", 2)
        # Between the two nobody serves; the newest is stored behind both.
        await submit(bus, "newest")
        async with running_service(nats_server.url, simulator.url, **settings):
            await superseded(bus, "older")
            await superseded(bus, "old")
            await survives(bus, simulator, "newest")


async def test_the_newest_survives_its_own_takeover(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        replicas(
            nats_server.url,
            simulator.url,
            prefix,
            count=2,
            lanes=lanes(*LANES),
            ack_wait_s=0.5,
        ) as services,
        plain_client(nats_server.url, prefix) as bus,
    ):
        await pause(bus, "a")
        await submit(bus, "older", "a")
        await submit(bus, "newest")
        await bus.seen("newest", "token")
        owner(services).stop()
        await bus.seen("newest", "resumed")
        await resume(bus, "a")
        await superseded(bus, "older")
        await survives(bus, simulator, "newest")


async def test_two_at_once(bus: PlainClient, simulator: Simulator) -> None:
    last = None
    for turn in range(10):
        ids = [f"{name}{turn}" for name in ("a", "b")]
        seqs = await asyncio.gather(*(submit(bus, id, id[0]) for id in ids))
        lower, higher = (id for _, id in sorted(zip(seqs, ids, strict=True)))
        await superseded(bus, lower)
        await bus.seen(higher, "token")
        if last is not None:
            await superseded(bus, last)
        last = higher
    assert last is not None
    await survives(bus, simulator, last)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_order(
    bus: PlainClient, simulator: Simulator, seed: int
) -> None:
    """Six jobs of six lanes, let out in a random order, some at the same time."""
    order = random.Random(seed)
    for lane in LANES:
        await pause(bus, lane)
    seqs = {}
    for n, lane in enumerate(LANES):
        # The last one supersedes; of the others some do.
        supersede = n == len(LANES) - 1 or order.random() < 0.7
        seqs[f"r{n}"] = await submit(bus, f"r{n}", lane, supersede=supersede)
    waiting = list(range(len(LANES)))
    order.shuffle(waiting)
    while waiting:
        together = [
            waiting.pop() for _ in range(min(len(waiting), order.choice([1, 3])))
        ]
        await asyncio.gather(*(resume(bus, LANES[n]) for n in together))
        if order.random() < 0.5:
            for n in together:
                await anything_of(bus, f"r{n}")
    for n in range(len(LANES) - 1):
        await superseded(bus, f"r{n}")
    assert await kept_before(bus) == seqs["r5"]
    await survives(bus, simulator, "r5")


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_order_while_workers_die(
    nats_server: NatsServer, prefix: str, simulator: Simulator, seed: int
) -> None:
    order = random.Random(seed)
    async with (
        replicas(
            nats_server.url,
            simulator.url,
            prefix,
            lanes=lanes(*LANES),
            ack_wait_s=0.5,
        ) as services,
        plain_client(nats_server.url, prefix) as bus,
    ):
        for lane in LANES:
            await pause(bus, lane)
        for n, lane in enumerate(LANES):
            await submit(bus, f"r{n}", lane)
        waiting = order.sample(range(len(LANES)), len(LANES))
        victims = order.sample(services, 2)
        for n in waiting:
            await resume(bus, LANES[n])
            if order.random() < 0.5:
                await anything_of(bus, f"r{n}")
            if victims and order.random() < 0.5:
                victims.pop().stop()  # what it ran is delivered again
        for n in range(len(LANES) - 1):
            await superseded(bus, f"r{n}")
        await survives(bus, simulator, "r5")
