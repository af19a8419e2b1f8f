"""A request that nobody reads any more ends: ``keepalive_ms`` and its leases."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from bridge.client import Client
from bridge.events import Token
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from tests.cable import Cable
from tests.plain_client import PlainClient, assert_whole, plain_client, request
from tests.replicas import owner, replicas
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)

KEEPALIVE_MS = 900

#: A reader in a process of its own, to be killed.
READER = f"""
import asyncio, sys
from bridge.client import Client

async def main(url, prefix, id):
    async with Client(url, model="simulator", prefixes=[prefix]) as client:
        stream = client.stream(
            "hello", id=id, keepalive_ms={KEEPALIVE_MS}, max_tokens=5000
        )
        async for event in stream:
            print(event.type, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def services(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[list[Service]]:
    async with replicas(
        nats_server.url, simulator.url, prefix, ack_wait_s=0.5
    ) as services:
        yield services


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, services: list[Service]
) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


async def renew(bus: PlainClient, id: str, data: bytes = b"") -> None:
    await bus.nats.publish(f"{bus.prefix}.control.default.lease.{id}", data)


async def renewing(bus: PlainClient, id: str, for_s: float) -> None:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        await renew(bus, id)
        await asyncio.sleep(KEEPALIVE_MS / 4000)


async def is_abandoned(bus: PlainClient, simulator: Simulator, id: str) -> None:
    event = await bus.ended(id)
    assert (event["type"], event["reason"]) == ("cancelled", "abandoned")
    assert_whole(await bus.log(id))
    await simulator.wait_idle()
    await bus.settled()


async def test_a_killed_reader(
    bus: PlainClient, simulator: Simulator, nats_server: NatsServer
) -> None:
    arguments = [sys.executable, "-c", READER, nats_server.url, bus.prefix, "one"]
    reader = subprocess.Popen(arguments)
    try:
        await bus.until(lambda: bool(bus.live["one"]))
        # Read for longer than it would live without a reader.
        begun = time.monotonic()
        await bus.seen("one", "token", 2 * KEEPALIVE_MS * 50 // 1000)
        assert time.monotonic() - begun > KEEPALIVE_MS / 1000
    finally:
        reader.kill()
        reader.wait(10)
    killed = time.monotonic()
    await is_abandoned(bus, simulator, "one")
    assert time.monotonic() - killed > KEEPALIVE_MS / 1000 / 2


async def test_nobody_ever_reads(bus: PlainClient, simulator: Simulator) -> None:
    await bus.submit("one", LONG, keepalive_ms=KEEPALIVE_MS)
    await is_abandoned(bus, simulator, "one")
    record = simulator.requests[0]
    assert record.outcome == "client_closed"


async def test_a_backend_that_says_nothing_is_left_too(
    bus: PlainClient, simulator: Simulator
) -> None:
    for hang in ("before_head", "after_head"):
        body = request(simulate={"hang": hang})
        await bus.submit(hang, body, keepalive_ms=300)
        await is_abandoned(bus, simulator, hang)


async def test_whatever_a_lease_carries_it_keeps_the_request(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", LONG, keepalive_ms=KEEPALIVE_MS)
    begun = time.monotonic()
    for data in (b"", b"no json", b'{"action":"renew"}', b'{"action":"cancel"}'):
        await bus.seen("one", "token", len(bus.live["one"]) + 15)
        await renew(bus, "one", data)
    await renewing(bus, "one", 2 * KEEPALIVE_MS / 1000)
    assert time.monotonic() - begun > 2 * KEEPALIVE_MS / 1000
    assert bus.live["one"][-1]["type"] == "token"
    await is_abandoned(bus, simulator, "one")


async def test_a_cancel_is_not_overwritten_by_a_lease(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with plain_client(nats_server.url, prefix) as bus:
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            pass  # makes the streams
        await bus.submit("one", LONG, keepalive_ms=60_000)
        await bus.cancel("one")
        for _ in range(10):
            await renew(bus, "one", json.dumps({"action": "renew"}).encode())
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            event = await bus.ended("one")
            assert (event["type"], event["reason"]) == ("cancelled", "barge-in")
        subject = f"{prefix}.control.default.>"
        assert [m.subject.split(".")[3] for m in await bus.stored("CONTROL", subject)]
        kept = await bus.stored("CONTROL", f"{prefix}.control.default.lease.one")
        assert kept == []
    assert not simulator.requests


async def test_a_running_cancel_among_leases(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", LONG, keepalive_ms=KEEPALIVE_MS)
    await bus.seen("one", "token")
    await renew(bus, "one")
    await bus.cancel("one")
    await renew(bus, "one")
    event = await bus.ended("one")
    assert (event["type"], event["reason"]) == ("cancelled", "barge-in")


async def test_the_time_in_the_queue_does_not_count(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with plain_client(nats_server.url, prefix) as bus:
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            pass
        await bus.submit("one", request(max_tokens=10), keepalive_ms=1000)
        await asyncio.sleep(1.2)
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            assert (await bus.ended("one"))["type"] == "completed"


async def test_a_takeover_knows_of_the_reader(
    bus: PlainClient, services: list[Service], simulator: Simulator
) -> None:
    await bus.submit("one", LONG, keepalive_ms=KEEPALIVE_MS)
    await bus.seen("one", "token")
    async with asyncio.TaskGroup() as group:
        group.create_task(renewing(bus, "one", 4.0))
        owner(services).stop()
        await bus.seen("one", "resumed")
        resumed = time.monotonic()
        await asyncio.sleep(KEEPALIVE_MS / 1000 * 1.5)
        assert bus.live["one"][-1]["type"] == "token", time.monotonic() - resumed
    await is_abandoned(bus, simulator, "one")


async def test_while_nats_is_away_nobody_is_missing(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """Leases cannot come through: the outage is not the reader's."""
    async with (
        Cable(nats_server.port) as cable,
        running_service(cable.url, simulator.url, prefix=prefix, ack_wait_s=20),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await bus.submit("one", LONG, keepalive_ms=KEEPALIVE_MS)
        await bus.seen("one", "token", 3)
        await cable.pull()
        await asyncio.sleep(2 * KEEPALIVE_MS / 1000)
        await cable.plug_in()
        async with asyncio.TaskGroup() as group:
            group.create_task(renewing(bus, "one", 3.0))
            await bus.seen("one", "token", len(bus.live["one"]) + 20)
            assert bus.live["one"][-1]["type"] == "token"
        await is_abandoned(bus, simulator, "one")


async def test_the_sdk_renews_while_somebody_reads(
    nats_server: NatsServer, bus: PlainClient
) -> None:
    options: dict[str, Any] = {"model": "simulator", "prefixes": [bus.prefix]}
    async with Client(nats_server.url, **options) as client:
        stream = client.stream(
            "hello", id="one", keepalive_ms=300, max_tokens=60, cancel_on_exit=False
        )
        tokens = [event async for event in stream if isinstance(event, Token)]
    assert len(tokens) == 60  # 1.2 s at 50 a second
    assert stream.end is not None
    assert stream.end.type == "completed"
