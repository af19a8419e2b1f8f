"""Cancels in a deployment of three: on any replica, of a request or a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from tests.cable import Cable
from tests.plain_client import (
    TERMINAL,
    Json,
    PlainClient,
    assert_whole,
    plain_client,
    request,
    text_of,
)
from tests.replicas import cancel_session, lanes, pause, replicas, resume
from tests.servers import NatsServer, running_service

#: Tokens come for minutes unless somebody cancels.
LONG = request(max_tokens=5000)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def services(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[list[Service]]:
    async with replicas(
        nats_server.url, simulator.url, prefix, lanes=lanes("default", "batch")
    ) as services:
        yield services


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, services: list[Service]
) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


def working(services: list[Service]) -> list[int]:
    """How many requests each bridge runs."""
    return [s.worker.running if s.worker is not None else 0 for s in services]


def users(simulator: Simulator) -> set[str]:
    """Whose requests came to the backend."""
    return {record.user or "" for record in simulator.requests}


async def submit_all(bus: PlainClient, ids: list[str], **fields: str) -> None:
    for id in ids:
        await bus.submit(id, {**LONG, "user": id}, **fields)


async def test_requests_end_on_whatever_replica_they_run(
    bus: PlainClient, services: list[Service], simulator: Simulator
) -> None:
    ids = [f"r{n}" for n in range(24)]
    await submit_all(bus, ids)
    for id in ids:
        await bus.seen(id, "token", 2)
    assert sum(working(services)) == len(ids)
    assert sum(1 for running in working(services) if running) > 1
    await asyncio.gather(*(bus.cancel(id) for id in ids))
    for id in ids:
        event = await bus.ended(id)
        assert (event["type"], event["reason"]) == ("cancelled", "barge-in")
        log = await bus.log(id)
        assert_whole(log)
        assert event["text"] == text_of(log)
    for record in simulator.requests:
        await simulator.wait_closed(record)
    assert simulator.active == 0
    await bus.settled()
    # What came live after `cancelled` would be a token too many.
    assert all(bus.live[id][-1]["type"] == "cancelled" for id in ids)
    assert len(simulator.requests) == len(ids)


async def test_a_session_ends_and_no_other_one(
    bus: PlainClient, simulator: Simulator
) -> None:
    call, other = [f"a{n}" for n in range(6)], [f"b{n}" for n in range(3)]
    await submit_all(bus, call, session="call-1")
    await submit_all(bus, other, session="call-2")
    await bus.submit("alone", LONG)
    await bus.submit("theirs", LONG, tenant="acme", session="call-1")
    for id in (*call, *other, "alone", "theirs"):
        await bus.seen(id, "token")
    await cancel_session(bus, "call-1")
    for id in call:
        assert (await bus.ended(id))["type"] == "cancelled"
        assert_whole(await bus.log(id))
    for id in (*other, "alone", "theirs"):
        seen = len(bus.live[id])
        await bus.seen(id, "token", seen + 5)
    assert simulator.active == len(other) + 2
    await bus.cancel("theirs", tenant="acme")
    for id in (*other, "alone"):
        await bus.cancel(id)


async def test_what_a_session_has_in_the_queue_never_reaches_a_backend(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "batch")
    queued = [f"q{n}" for n in range(5)]
    for id in queued:
        await bus.submit(id, {**LONG, "user": id}, lane="batch", session="call")
    await bus.submit("running", LONG, session="call")
    await bus.seen("running", "token")
    await cancel_session(bus, "call")
    assert (await bus.ended("running"))["type"] == "cancelled"
    await bus.submit("after", {**LONG, "user": "after"}, session="call")
    await resume(bus, "batch")
    for id in queued:
        event = await bus.ended(id)
        assert (event["type"], event["seq"]) == ("cancelled", 1)
        assert event["reason"] == "barge-in"
    # A job that was stored after the cancel is none of its business.
    await bus.seen("after", "token", 3)
    assert users(simulator).isdisjoint(queued)
    await bus.cancel("after")
    await bus.ended("after")
    await bus.settled()


async def test_kept_cancels_meet_requests_before_their_claim(
    bus: PlainClient, simulator: Simulator
) -> None:
    ids = [f"r{n}" for n in range(20)]
    for id in ids:
        await bus.cancel(id)
    await submit_all(bus, ids)
    for id in ids:
        event = await bus.ended(id)
        assert (event["type"], event["seq"], event["text"]) == ("cancelled", 1, "")
    await bus.settled()
    assert not simulator.requests


async def test_cancels_at_any_moment_of_a_requests_life(
    bus: PlainClient, simulator: Simulator
) -> None:
    """Submitted, pulled, claimed, connecting, answered: there is no moment between."""
    simulator.behaviour = Behaviour(tokens_per_second=50, first_token_ms=3)
    ids = [f"r{n}" for n in range(60)]

    async def one(n: int, id: str) -> None:
        await bus.submit(id, {**LONG, "user": id}, session=f"s{n}")
        await asyncio.sleep(n % 20 / 2000)
        if n % 2:
            await bus.cancel(id)
        else:
            await cancel_session(bus, f"s{n}")

    for n, id in enumerate(ids):
        await one(n, id)
    for id in ids:
        assert (await bus.ended(id))["type"] == "cancelled"
        assert_whole(await bus.log(id))
    await bus.settled()
    await simulator.wait_idle()


async def test_a_new_request_of_the_session_gets_nothing_of_the_old_one(
    bus: PlainClient, simulator: Simulator
) -> None:
    for turn in range(10):
        id = f"turn{turn}"
        await bus.submit(id, request(id, max_tokens=5000), session="call")
        await bus.seen(id, "token", 2)
        await cancel_session(bus, "call")
    for turn in range(10):
        log = await bus.log(f"turn{turn}")
        while log[-1]["type"] not in TERMINAL:
            await bus.ended(f"turn{turn}")
            log = await bus.log(f"turn{turn}")
        assert_whole(log)
        assert {event["id"] for event in log} == {f"turn{turn}"}
        assert log[-1]["type"] == "cancelled"
        assert live_is_whole(bus.live[f"turn{turn}"])
    await simulator.wait_idle()


def live_is_whole(events: list[Json]) -> bool:
    return [e["seq"] for e in events] == list(range(1, len(events) + 1))


async def test_a_cancel_while_the_worker_is_dead_is_kept_for_the_next_one(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with plain_client(nats_server.url, prefix) as bus:
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, ack_wait_s=0.5
        ):
            await submit_all(bus, ["one", "two"], session="call")
            for id in ("one", "two"):
                await bus.seen(id, "token", 3)
        await simulator.wait_idle()  # it stopped, and settled nothing
        await bus.cancel("one")
        await cancel_session(bus, "call")
        asked = len(simulator.requests)
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, ack_wait_s=0.5
        ):
            for id in ("one", "two"):
                event = await bus.ended(id)
                assert event["type"] == "cancelled"
                assert event["text"]
                assert_whole(await bus.log(id))
            await bus.settled()
        assert len(simulator.requests) == asked


async def test_a_cancel_that_was_missed_while_nats_was_away(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        Cable(nats_server.port) as cable,
        running_service(cable.url, simulator.url, prefix=prefix, ack_wait_s=10),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await submit_all(bus, ["one", "two"], session="call")
        await bus.submit("three", LONG)
        for id in ("one", "two", "three"):
            await bus.seen(id, "token", 3)
        await cable.pull()
        await cancel_session(bus, "call")
        await bus.cancel("three")
        await cable.plug_in()
        for id in ("one", "two", "three"):
            assert (await bus.ended(id))["type"] == "cancelled"
            assert_whole(await bus.log(id))
        await simulator.wait_idle()
        await bus.settled()
