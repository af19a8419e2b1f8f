"""One attempt's log on the real server: proven, repaired, fenced, never with a hole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.bus.batch import MAX_REPAIRS, batch_id
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.bus.writer import (
    MAX_UNPROVEN_BYTES,
    PING_EVERY_EVENTS,
    Fenced,
    LogGone,
    LogWriter,
    StartRefused,
    TooManyBatches,
    WriterState,
)
from bridge.config import BusSettings
from bridge.events import Cancelled, Event, Resumed, Timings, Token, encode
from tests.plain_client import eventually, quiet_port
from tests.servers import NatsServer

MakeWriter = Callable[..., LogWriter]


def token(seq: int, attempt: int = 1, text: str = "x") -> bytes:
    return encode(Token("one", seq, attempt, text))


def end(seq: int, attempt: int = 1) -> bytes:
    event: Event = Cancelled(
        "one", seq, attempt, reason="r", text="", timings=Timings(), metadata={}
    )
    return encode(event)


async def stored(cell: Cell, id: str = "one") -> list[bytes]:
    """The log, by direct get until it reaches the leader's last message."""
    async with asyncio.timeout(20):
        while True:
            last = await cell.last_stored("t", id)
            found = [message async for message in cell.read_log("t", id)]
            if last is None or (found and found[-1].seq >= last.seq):
                return [message.data for message in found]
            await asyncio.sleep(0.01)


def numbered(count: int, attempt: int = 1) -> list[bytes]:
    """A whole log: tokens, and an end as the last."""
    return [*(token(n, attempt) for n in range(1, count)), end(count, attempt)]


@contextlib.asynccontextmanager
async def swept_cell(url: str, prefix: str) -> AsyncIterator[Cell]:
    """A cell on a connection of its own: another worker, or another server."""
    settings = BusSettings(nats_url=url)
    connection = Connection(settings, name="other")
    await connection.connect()
    cell = Cell(connection, settings, prefix)
    await cell.ensure([Lane("default", 2.0)], "create")
    await cell.open()

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.05)
            cell.sweep(cell.now())

    sweeping = asyncio.create_task(sweep())
    try:
        yield cell
    finally:
        sweeping.cancel()
        await asyncio.wait([sweeping])
        for writer in list(cell.writers):
            writer.close()
        await connection.close()


def writer_on(cell: Cell, **options: Any) -> LogWriter:
    """A writer of request ``one`` on a given cell."""
    values: dict[str, Any] = {
        "tenant": "t",
        "id": "one",
        "job_seq": 1,
        "attempt": 1,
        "stored": 0,
        "stored_speech": 0,
        "last_seq": 0,
        "owned": lambda: True,
        **options,
    }
    return LogWriter(cell, **values)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.port = quiet_port()
    server.start()
    yield server
    server.stop()


# Proving


@pytest.mark.parametrize("events", [1, 2, 3, PING_EVERY_EVENTS + 1, 1000])
async def test_what_was_appended_is_stored_in_order(
    cell: Cell, writer_of: MakeWriter, events: int
) -> None:
    log = numbered(events)
    writer = writer_of()
    for payload in log[:-1]:
        writer.append(payload)
    await writer.commit(log[-1])
    assert writer.state is WriterState.COMMITTED
    assert writer.unproven_bytes == 0
    assert writer.repairs == 0
    assert await stored(cell) == log


async def test_the_start_is_proven_before_the_rest(
    cell: Cell, writer_of: MakeWriter
) -> None:
    log = numbered(20)
    writer = writer_of()
    writer.append(log[0])
    async with asyncio.timeout(20):
        await writer.prove_start()
    assert await stored(cell) == log[:1]
    for payload in log[1:-1]:
        writer.append(payload)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await writer.commit(log[-1])
    assert await stored(cell) == log


async def test_what_is_proven_is_forgotten(cell: Cell, writer_of: MakeWriter) -> None:
    writer = writer_of()
    for n in range(1, 5 * PING_EVERY_EVENTS):
        writer.append(token(n))

    async def forgotten() -> bool:
        return writer.unproven_bytes < 2 * PING_EVERY_EVENTS * len(token(100))

    await eventually(forgotten)
    await writer.commit(end(5 * PING_EVERY_EVENTS))
    assert await stored(cell) == numbered(5 * PING_EVERY_EVENTS)


async def test_a_log_that_is_not_empty_refuses_the_start(
    cell: Cell, writer_of: MakeWriter
) -> None:
    first = writer_of()
    await first.commit(end(1))
    told: list[Exception] = []
    late = writer_of(job_seq=2)
    late.on_failed = told.append
    late.append(token(1))
    with pytest.raises(StartRefused):
        await late.prove_start()
    assert len(told) == 1
    lone = writer_of(job_seq=3)
    with pytest.raises(StartRefused):
        await lone.commit(end(1))
    assert late.state is lone.state is WriterState.FAILED
    assert await stored(cell) == [end(1)]


async def test_the_next_attempt_goes_on_behind_the_last_event(
    cell: Cell, writer_of: MakeWriter
) -> None:
    first = writer_of()
    first.append(token(1))
    first.append(token(2))
    await first.prove_start()
    first.close()
    await cell.batches.close([batch_id(1, 1, 0)])
    last = await cell.last_stored("t", "one")
    assert last is not None
    wrong = writer_of(attempt=2, stored=2, last_seq=last.seq - 1)
    wrong.append(token(3, 2))
    with pytest.raises(StartRefused):
        await wrong.prove_start()
    second = writer_of(attempt=3, stored=2, last_seq=last.seq)
    resumed = Resumed("one", 3, 3, after=2, mode="restart", reason="takeover")
    second.append(encode(resumed))
    await second.prove_start()
    await second.commit(end(4, 3))
    assert await stored(cell) == [token(1), token(2), encode(resumed), end(4, 3)]


async def test_many_logs_at_once(cell: Cell, writer_of: MakeWriter) -> None:
    async def write(n: int) -> None:
        writer = writer_of(id=f"r{n}", job_seq=n)
        for seq in range(1, 50):
            writer.append(token(seq))
            if seq % 7 == 0:
                await asyncio.sleep(0)
        await writer.commit(end(50))
        writer.close()

    async with asyncio.timeout(30):
        await asyncio.gather(*(write(n) for n in range(1, 101)))
    for n in range(1, 101):
        assert await stored(cell, f"r{n}") == numbered(50)
    assert not cell.writers
    assert cell.repairs == 0


# Repairing


async def test_a_gap_is_repaired(cell: Cell, writer_of: MakeWriter) -> None:
    log = numbered(400)
    writer = writer_of()
    for n, payload in enumerate(log[:-1]):
        writer.append(payload)
        if n == 100:
            await writer.prove_start()
            # A message too many: what would come where one was lost on the way.
            head = cell.batches.reply_head(batch_id(1, 1, 0))
            subject = cell.subjects.batch
            cell.connection.publish(subject, b"", f"{head}150.1.$FI")
        if n % 10 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await writer.commit(log[-1])
    assert writer.repairs >= 1
    assert await stored(cell) == log


@pytest.mark.parametrize("when", ["in the middle", "before the end", "silent"])
async def test_a_batch_that_somebody_closed_is_begun_anew(
    nats_server: NatsServer,
    prefix: str,
    cell: Cell,
    writer_of: MakeWriter,
    when: str,
) -> None:
    log = numbered(100)
    writer = writer_of()
    for payload in log[:50]:
        writer.append(payload)
    await writer.prove_start()
    async with swept_cell(nats_server.url, prefix) as other:
        await other.batches.close([batch_id(1, 1, 0)])
    if when == "silent":

        async def noticed() -> bool:
            return writer.repairs == 1 and writer.state is not WriterState.REPAIRING

        await eventually(noticed)
    for payload in log[50:-1]:
        writer.append(payload)
        if when == "in the middle":
            await asyncio.sleep(0.001)
    async with asyncio.timeout(20):
        await writer.commit(log[-1])
    assert writer.repairs >= 1
    assert await stored(cell) == log


async def test_the_commit_itself_is_repaired(
    nats_server: NatsServer, prefix: str, cell: Cell, writer_of: MakeWriter
) -> None:
    writer = writer_of()
    writer.append(token(1))
    await writer.prove_start()
    async with swept_cell(nats_server.url, prefix) as other:
        await other.batches.close([batch_id(1, 1, 0)])
    async with asyncio.timeout(20):
        await writer.commit(end(2))
    assert await stored(cell) == [token(1), end(2)]


async def test_a_log_that_breaks_for_ever_is_left(
    nats_server: NatsServer, prefix: str, cell: Cell, writer_of: MakeWriter
) -> None:
    told: list[Exception] = []
    writer = writer_of()
    writer.on_failed = told.append
    writer.append(token(1))
    await writer.prove_start()
    seq = 1
    async with swept_cell(nats_server.url, prefix) as other:
        async with asyncio.timeout(60):
            while not told:
                repair = min(writer.repairs, MAX_REPAIRS)
                await other.batches.close([batch_id(1, 1, repair)])
                seq += 1
                writer.append(token(seq))
                await asyncio.sleep(0.01)
    assert isinstance(told[0], Fenced)
    log = await stored(cell)
    assert log == [token(n) for n in range(1, len(log) + 1)]


async def test_a_newer_attempt_fences(
    nats_server: NatsServer, prefix: str, cell: Cell, writer_of: MakeWriter
) -> None:
    told: list[Exception] = []
    stale = writer_of()
    stale.on_failed = told.append
    stale.append(token(1))
    await stale.prove_start()
    async with swept_cell(nats_server.url, prefix) as other:
        await other.batches.close([batch_id(1, 1, n) for n in range(MAX_REPAIRS + 1)])
        last = await other.last_stored("t", "one")
        assert last is not None
        owner = writer_on(other, attempt=2, stored=1, last_seq=last.seq)
        owner.append(token(2, 2))
        await owner.prove_start()
        stale.append(token(2))
        with pytest.raises(Fenced):
            await stale.commit(end(3))
        assert isinstance(told[0], Fenced)
        await owner.commit(end(3, 2))
    assert await stored(cell) == [token(1), token(2, 2), end(3, 2)]


async def test_without_the_lease_nothing_is_repaired(
    nats_server: NatsServer, prefix: str, cell: Cell, writer_of: MakeWriter
) -> None:
    mine = True
    writer = writer_of(owned=lambda: mine)
    writer.append(token(1))
    await writer.prove_start()
    mine = False
    async with swept_cell(nats_server.url, prefix) as other:
        await other.batches.close([batch_id(1, 1, 0)])
    with pytest.raises(Fenced, match="lease"):
        await writer.commit(end(2))
    assert await stored(cell) == [token(1)]


async def test_a_server_that_restarts(own_server: NatsServer, prefix: str) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        log = numbered(200)
        writer = writer_on(cell)
        for payload in log[:100]:
            writer.append(payload)
        await writer.prove_start()
        own_server.stop()
        for payload in log[100:-1]:
            writer.append(payload)
        committing = asyncio.create_task(writer.commit(log[-1]))
        await asyncio.sleep(0.1)
        assert not committing.done()
        own_server.start()
        async with asyncio.timeout(20):
            await committing
        assert await stored(cell) == log
        assert writer.repairs >= 1


async def test_a_start_while_the_server_is_away(
    own_server: NatsServer, prefix: str
) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        own_server.stop()

        async def gone() -> bool:
            return not cell.connection.connected

        await eventually(gone)
        writer = writer_on(cell)
        writer.append(token(1))
        proving = asyncio.create_task(writer.prove_start())
        own_server.start()
        async with asyncio.timeout(20):
            await proving
            await writer.commit(end(2))
        assert await stored(cell) == [token(1), end(2)]


async def test_a_stream_that_is_deleted(cell: Cell, writer_of: MakeWriter) -> None:
    told: list[Exception] = []
    writer = writer_of()
    writer.on_failed = told.append
    writer.append(token(1))
    await writer.prove_start()
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    with pytest.raises(LogGone):
        async with asyncio.timeout(20):
            await writer.commit(end(2))
    assert isinstance(told[0], LogGone)


# Limits


async def test_over_the_servers_limit_of_batches(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path / "nats", batches=1)
    server.start()
    try:
        async with swept_cell(server.url, prefix) as cell:
            first = writer_on(cell)
            first.append(token(1))
            await first.prove_start()
            late = writer_on(cell, id="late", job_seq=2)
            late.append(token(1))
            with pytest.raises(TooManyBatches):
                await late.prove_start()
            late.close()
            await first.commit(end(2))
            again = writer_on(cell, id="late", job_seq=2)
            again.append(token(1))
            await again.prove_start()
            await again.commit(end(2))
            assert await stored(cell, "late") == [token(1), end(2)]
    finally:
        server.stop()


async def test_a_slow_server_holds_the_reader_back(
    own_server: NatsServer, prefix: str
) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        room: list[int] = []
        writer = writer_on(cell)
        writer.on_room = lambda: room.append(1)
        writer.append(token(1))
        await writer.prove_start()
        own_server.freeze()
        seq = 1
        while not writer.full:
            seq += 1
            writer.append(token(seq, text="y" * 4000))
        assert MAX_UNPROVEN_BYTES < writer.unproven_bytes < MAX_UNPROVEN_BYTES + 5000
        assert not room
        own_server.thaw()

        async def relieved() -> bool:
            return not writer.full

        await eventually(relieved)
        assert room == [1]
        async with asyncio.timeout(20):
            await writer.commit(end(seq + 1))
        assert len(await stored(cell)) == seq + 1


# Ends


async def test_closing_ends_those_who_wait(own_server: NatsServer, prefix: str) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        writer = writer_on(cell)
        writer.append(token(1))
        await writer.prove_start()
        own_server.freeze()
        committing = asyncio.create_task(writer.commit(end(2)))
        await asyncio.sleep(0)
        writer.close()
        writer.close()
        with pytest.raises(Fenced):
            await committing
        with pytest.raises(Fenced):
            await writer.prove_start()
        assert not cell.writers
        own_server.thaw()


async def test_a_commit_may_be_cancelled(own_server: NatsServer, prefix: str) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        writer = writer_on(cell)
        own_server.freeze()
        committing = asyncio.create_task(writer.commit(end(1)))
        await asyncio.sleep(0)
        committing.cancel()
        await asyncio.wait([committing])
        assert committing.cancelled()
        writer.close()
        own_server.thaw()


async def test_speech_rides_in_the_same_batch(
    cell: Cell, writer_of: MakeWriter
) -> None:
    writer = writer_of()
    writer.append(token(1))
    writer.append_speech(b'{"seq":1,"attempt":1}')
    await writer.prove_start()
    writer.append(token(2))
    writer.append_speech(b'{"seq":2,"attempt":1}')
    async with asyncio.timeout(20):
        await writer.commit(end(3))
    assert await stored(cell) == [token(1), token(2), end(3)]
    spoken = [message.data async for message in cell.read_speech("t", "one")]
    assert spoken == [b'{"seq":1,"attempt":1}', b'{"seq":2,"attempt":1}']


async def test_a_writer_shows_its_state(writer_of: MakeWriter) -> None:
    writer = writer_of()
    assert "idle" in repr(writer)
    writer.append(token(1))
    assert "open sent=1 unproven=1" in repr(writer)
