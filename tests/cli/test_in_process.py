"""A bridge inside this process: ready inside the block, gone behind it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bridge.cli.in_process import bridge_running, start
from bridge.client import Client
from bridge.config import Settings
from bridge.errors import BridgeError
from bridge.service import Service
from bridge.simulator import Simulator


def settings(nats_url: str, backend_url: str, http_port: int = 0) -> Settings:
    return Settings(
        nats_url=nats_url,
        backend_url=backend_url,
        http_host="127.0.0.1",
        http_port=http_port,
    )


async def test_it_serves_inside_the_block_and_is_gone_behind_it(nats_url: str) -> None:
    async with Simulator() as simulator:
        async with (
            bridge_running(settings(nats_url, simulator.url)) as bridge,
            Client(nats_url, model="m") as client,
        ):
            answer = await client.generate("Hi", max_tokens=3)
            assert answer.text
            assert not bridge.life.done()
        assert bridge.life.done()


async def test_why_it_does_not_start_is_raised(nats_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BridgeError, match=str(port)):
            await start(Service(settings(nats_url, "http://127.0.0.1:1/v1", port)))


async def test_a_start_that_is_cancelled_leaves_nothing_running() -> None:
    service = Service(settings("nats://127.0.0.1:1", "http://127.0.0.1:1/v1"))
    starting = asyncio.create_task(start(service))
    async with asyncio.timeout(30):
        while service.http_port == 0:
            await asyncio.sleep(0.005)
    port = service.http_port
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


async def test_a_drain_ends_a_start_that_waits_for_nats() -> None:
    service = Service(settings("nats://127.0.0.1:1", "http://127.0.0.1:1/v1"))
    starting = asyncio.create_task(start(service))
    async with asyncio.timeout(30):
        while service.http_port == 0:
            await asyncio.sleep(0.005)
        service.drain()
        bridge = await starting
    assert bridge.life.done()
