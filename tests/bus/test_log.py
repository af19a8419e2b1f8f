"""Reading a subject by direct gets: pages, other traffic, large messages, ends."""

from __future__ import annotations

import asyncio

import pytest

from bridge.bus import log
from bridge.bus.api import JetStream, StoredMessage
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.log import GET_MESSAGES, read_subject
from bridge.errors import ConnectionLost, StreamUnavailable


async def store(cell: Cell, id: str, payload: bytes) -> None:
    """Store one message, unacknowledged; a flush or later read finds it."""
    cell.connection.publish(cell.subjects.tokens("t", id), payload)


async def stored_until(cell: Cell, id: str, count: int) -> list[StoredMessage]:
    """Read until so many messages are there: a server stores behind our back."""
    async with asyncio.timeout(20):
        while True:
            found = [message async for message in cell.read_log("t", id)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_more_than_a_page_between_other_traffic(cell: Cell) -> None:
    count = GET_MESSAGES + 100
    for n in range(count):
        await store(cell, "one", b"%d" % n)
        if n % 3 == 0:
            await store(cell, "other", b"x")
        if n % 500 == 0:
            await cell.connection.flush()
    found = await stored_until(cell, "one", count)
    assert [int(message.data) for message in found] == list(range(count))
    assert [m.seq for m in found] == sorted(m.seq for m in found)
    assert {m.subject for m in found} == {cell.subjects.tokens("t", "one")}


async def test_pages_by_bytes(cell: Cell) -> None:
    payload = b"x" * 300_000
    for n in range(12):
        await store(cell, "one", b"%d " % n + payload)
    found = await stored_until(cell, "one", 12)
    assert [int(message.data.split()[0]) for message in found] == list(range(12))


async def test_messages_as_large_as_a_page(cell: Cell) -> None:
    room = cell.connection.max_payload - 100
    for _ in range(3):
        await store(cell, "one", b"x" * room)
        await store(cell, "one", b"small")
    found = await stored_until(cell, "one", 6)
    assert [len(message.data) for message in found] == [room, 5] * 3


async def test_from_a_sequence_on(cell: Cell) -> None:
    for n in range(10):
        await store(cell, "one", b"%d" % n)
    found = await stored_until(cell, "one", 10)
    middle = found[4].seq
    rest = [message async for message in cell.read_log("t", "one", middle)]
    assert rest == found[4:]
    beyond = [m async for m in cell.read_log("t", "one", found[-1].seq + 1)]
    assert beyond == []


async def test_nothing_there(cell: Cell) -> None:
    assert [m async for m in cell.read_log("t", "nobody")] == []
    await store(cell, "one", b"x")
    await stored_until(cell, "one", 1)
    assert [m async for m in cell.read_log("t", "nobody")] == []


async def test_a_read_that_is_left_early_ends_its_subscription(cell: Cell) -> None:
    for n in range(100):
        await store(cell, "one", b"%d" % n)
    await stored_until(cell, "one", 100)
    before = len(cell.connection._subscriptions)
    reading = cell.read_log("t", "one")
    async for _ in reading:
        break
    await reading.aclose()  # type: ignore[attr-defined]
    assert len(cell.connection._subscriptions) == before


async def test_a_stream_that_is_not_there(connection: Connection, prefix: str) -> None:
    with pytest.raises(StreamUnavailable, match="NOWHERE"):
        async for _ in read_subject(JetStream(connection), f"{prefix}_NOWHERE", "a.b"):
            pass


async def test_a_server_that_does_not_answer(
    connection: Connection, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PAGE_TIMEOUT_S", 0.2)

    def ignore(_: object) -> None:
        """Somebody listens, and says nothing."""

    await connection.subscribe(f"$JS.API.DIRECT.GET.{prefix}", ignore)
    with pytest.raises(ConnectionLost, match=prefix):
        async for _ in read_subject(JetStream(connection), prefix, "a.b"):
            pass
