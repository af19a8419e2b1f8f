"""What is open on a connection is given back, and cancels are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.client.attachment import Attachment
from bridge.client.link import LEFT, Link
from bridge.config import BusSettings
from bridge.errors import ConnectionLost, StreamUnavailable
from tests.client.bridge_side import PATIENCE_S, Author, Bus, eventually, running_bus
from tests.servers import NatsServer


@pytest.fixture
async def link(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Link]:
    link = Link(BusSettings(nats_url=nats_server.url), [bus.prefix])
    await link.open()
    yield link
    await link.close()


def attachment(link: Link, id: str, *, cancels: bool = True) -> Attachment:
    return Attachment(link.cell("default", id), "default", id, cancels=cancels)


async def test_a_cancel_is_kept(bus: Bus, link: Link) -> None:
    await link.cancel("default", "one", "barge-in", timeout_s=PATIENCE_S)
    assert await bus.cancel_reason("request", "one") == "barge-in"
    await link.cancel_session("default", "call", "hung up", timeout_s=PATIENCE_S)
    assert await bus.cancel_reason("session", "call") == "hung up"


async def test_a_cancel_that_nobody_keeps(nats_server: NatsServer) -> None:
    link = Link(BusSettings(nats_url=nats_server.url), ["nobody"])
    await link.open()
    with pytest.raises(StreamUnavailable, match="nobody answers"):
        await link.cancel("default", "one", "why", timeout_s=PATIENCE_S)
    await link.close()


async def test_a_cancel_outlives_a_restart(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with running_bus(server, prefix) as bus:
            link = Link(BusSettings(nats_url=server.url), [prefix])
            await link.open()
            server.kill()
            with pytest.raises(ConnectionLost):
                await link.cancel("default", "one", "why", timeout_s=0.3)
            cancelling = asyncio.ensure_future(
                link.cancel("default", "one", "why", timeout_s=PATIENCE_S)
            )
            await asyncio.sleep(0.1)
            server.start()
            await cancelling
            assert await bus.cancelled("one") == "why"
            await link.close()
    finally:
        server.stop()


async def test_leaving_gives_everything_back(bus: Bus, link: Link) -> None:
    one, other = attachment(link, "one"), attachment(link, "other")
    for each in (one, other):
        link.attach(each)
        await each.subscribe()
        each.keep_alive(1000)
    await link.leave(one, cancel=True)
    await link.leave(other, cancel=False)
    await one.release()
    await bus.log(Author("one").started(), Author("other").started())
    await link.connection.flush()
    assert one.feed.received == other.feed.received == 0
    assert await bus.cancel_reason("request", "one") == LEFT
    assert await bus.cancel_reason("request", "other") is None


async def test_a_drop_from_another_thread(bus: Bus, link: Link) -> None:
    dropped = attachment(link, "one")
    link.attach(dropped)
    thread = threading.Thread(target=link.drop, args=(dropped,))
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert await bus.cancelled("one") == LEFT


async def test_closing_leaves_what_is_open(nats_server: NatsServer, bus: Bus) -> None:
    link = Link(BusSettings(nats_url=nats_server.url), [bus.prefix])
    await link.open()
    one, other = attachment(link, "one"), attachment(link, "other", cancels=False)
    for each in (one, other):
        link.attach(each)
    await link.close()
    await link.close()
    assert one.feed.closed == other.feed.closed == "the client was closed"
    assert await bus.cancel_reason("request", "one") == LEFT
    assert await bus.cancel_reason("request", "other") is None
    with pytest.raises(ConnectionLost, match="was closed"):
        link.attach(attachment(link, "late"))


async def test_a_connection_that_is_closed_for_good(link: Link) -> None:
    open_ = attachment(link, "one", cancels=False)
    link.attach(open_)
    await link.connection.close()

    async def closed() -> str | None:
        return open_.feed.closed

    assert "closed for good" in await eventually(closed)


async def test_a_silent_subject_is_noticed(link: Link) -> None:
    open_ = attachment(link, "one", cancels=False)
    link.attach(open_)

    async def due() -> bool | None:
        return open_.feed.due or None

    assert await eventually(due)


def test_a_drop_after_the_loop(nats_server: NatsServer, prefix: str) -> None:
    async def open_and_close() -> tuple[Link, Attachment]:
        async with running_bus(nats_server, prefix):
            link = Link(BusSettings(nats_url=nats_server.url), [prefix])
            await link.open()
            await link.close()
            return link, attachment(link, "one")

    link, left = asyncio.run(open_and_close())
    link.drop(left)
