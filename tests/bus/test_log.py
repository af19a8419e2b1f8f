"""Reading a subject by direct gets: pages, other traffic, large messages, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest
from nats.aio.msg import Msg

from bridge.bus import log
from bridge.bus.api import JetStream, StoredMessage
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.log import GET_MESSAGES, find_last, find_next, read_subject
from bridge.bus.streams import Lane
from bridge.config import BusSettings
from bridge.errors import ConnectionLost, StreamUnavailable
from tests.cable import Cable
from tests.servers import NatsServer


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


# Proven pages


class Server:
    """Answers direct gets of one subject, and loses on the way what it is told to.

    ``lost`` are the sequences that never arrive; ``cut_before`` is the one before which
    the connection breaks, to come back at once.
    """

    def __init__(self, seqs: list[int], *, page: int = 1000) -> None:
        self.seqs = seqs
        self.page = page
        self.lost: set[int] = set()
        self.cut_before = 0
        self.end_lost = False
        self.gets = 0
        self.on_disconnected: list[Callable[[], None]] = []
        self._handler: Callable[[Msg], None] | None = None

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, subject: str, handler: Callable[[Msg], None]) -> object:
        self._handler = handler
        return object()

    async def unsubscribe(self, subscription: object) -> None:
        self._handler = None

    def publish(self, subject: str, payload: bytes, reply: str) -> None:
        self.gets += 1
        seq = json.loads(payload)["seq"]
        rest = [s for s in self.seqs if s >= seq]
        if not rest:
            self._send(b"", {"Status": "404"})
            return
        before = 0
        for s in rest[: self.page]:
            if s == self.cut_before:
                self._cut()
            if s not in self.lost:
                self._send(
                    b"%d" % s,
                    {
                        "Nats-Sequence": str(s),
                        "Nats-Subject": "a.b",
                        "Nats-Last-Sequence": str(before),
                    },
                )
            before = s
        if self.end_lost:
            self._cut()
            return
        left = len(rest) - len(rest[: self.page])
        end = {"Status": "204", "Nats-Num-Pending": str(left)}
        self._send(b"", {**end, "Nats-Last-Sequence": str(before)})

    def _cut(self) -> None:
        for listener in list(self.on_disconnected):
            listener()

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        if self._handler is not None:
            self._handler(Msg(None, data=data, headers=headers))  # type: ignore[arg-type]


async def read_all(server: Server) -> list[int]:
    jetstream = JetStream(cast(Connection, server))
    return [m.seq async for m in read_subject(jetstream, "S", "a.b")]


SEQS = [3, 4, 9, 12, 13, 20]


@pytest.mark.parametrize("page", [1, 2, 4, 6, 1000])
async def test_whole_pages_are_read(page: int) -> None:
    server = Server(SEQS, page=page)
    assert await read_all(server) == SEQS
    assert server.on_disconnected == []


@pytest.mark.parametrize("page", [2, 1000])
@pytest.mark.parametrize("lost", [[s] for s in SEQS] + [[3, 4], [4, 9], SEQS])
async def test_a_page_with_a_hole_is_no_page(lost: list[int], page: int) -> None:
    """What a reconnect has swallowed; the rest of the page came on the new one."""
    server = Server(SEQS, page=page)
    server.lost = set(lost)
    with pytest.raises(ConnectionLost, match="lost on the way"):
        await read_all(server)


@pytest.mark.parametrize("page", [2, 1000])
@pytest.mark.parametrize("cut_before", SEQS)
async def test_a_page_that_a_reconnect_has_cut_ends_at_once(
    cut_before: int, page: int
) -> None:
    server = Server(SEQS, page=page)
    server.cut_before = cut_before
    with pytest.raises(ConnectionLost):
        await read_all(server)
    assert server.on_disconnected == []


async def test_an_end_that_never_comes_is_not_waited_for() -> None:
    server = Server(SEQS)
    server.end_lost = True
    async with asyncio.timeout(log.PAGE_TIMEOUT_S / 2):
        with pytest.raises(ConnectionLost):
            await read_all(server)


async def test_a_long_read_leaves_turns_to_others() -> None:
    server = Server(list(range(1, 2001)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    assert len(await read_all(server)) == 2000
    beside.cancel()
    assert turns >= 2000 // log.TURN_MESSAGES


async def test_reads_over_a_cable_that_is_cut_are_whole_or_fail(
    nats_server: NatsServer, prefix: str
) -> None:
    count = 3000
    async with Cable(nats_server.port) as cable:
        settings = BusSettings(nats_url=cable.url)
        connection = Connection(settings, name="test")
        await connection.connect()
        cell = Cell(connection, settings, prefix)
        await cell.ensure([Lane("default", 2.0)], "create")
        for n in range(count):
            await store(cell, "one", b"%d " % n + b"x" * 200)
        await stored_until(cell, "one", count)
        for cut_at in range(0, count, 300):
            found: list[int] = []
            try:
                async for message in cell.read_log("t", "one"):
                    found.append(int(message.data.split()[0]))
                    if len(found) == cut_at + 1:
                        await cable.pull()
                        await cable.plug_in()
            except ConnectionLost:
                assert found == list(range(len(found)))
            else:
                assert found == list(range(count))
            async with asyncio.timeout(20):
                while not connection.connected:
                    await asyncio.sleep(0.01)
        assert len(await stored_until(cell, "one", count)) == count
        await connection.close()


# The last message that means something


def number(data: bytes) -> int | None:
    return int(data) if data.isdigit() else None


@pytest.mark.parametrize(
    ("stored", "last"),
    [
        ([], (0, None)),
        ([b"1", b"2"], (2, 2)),
        ([b"1", b"x"], (2, 1)),
        ([b"x", b"2", b"x", b"x"], (4, 2)),
        ([b"x", b"x"], (2, None)),
    ],
)
async def test_the_last_that_is_known_behind_what_is_not(
    cell: Cell, stored: list[bytes], last: tuple[int, int | None]
) -> None:
    for payload in stored:
        await store(cell, "one", payload)
    await stored_until(cell, "one", len(stored))
    subject = cell.subjects.tokens("t", "one")
    stream = cell.names.tokens
    assert await find_last(cell.jetstream, stream, subject, number) == last
    known = [int(payload) for payload in stored if payload.isdigit()]
    first = await find_next(cell.jetstream, stream, subject, 1, number)
    assert first == (known[0] if known else None)
