"""A log whose batch breaks on the real server: whole in the end, or left to others."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.bus.batch import MAX_REPAIRS, batch_id
from bridge.bus.cell import Cell
from bridge.bus.refusals import Fenced, LogGone
from bridge.bus.writer import LogWriter, WriterState
from bridge.events import SpeechSegment, Token, encode
from tests.bus.written import (
    MakeWriter,
    end,
    numbered,
    numbered_job,
    stored,
    swept_cell,
    token,
    writer_on,
)
from tests.plain_client import eventually
from tests.servers import NatsServer


async def test_a_gap_is_repaired(cell: Cell, writer_of: MakeWriter) -> None:
    log = numbered(400)
    writer = writer_of()
    for n, payload in enumerate(log[:-1]):
        writer.append(payload)
        if n == 100:
            await writer.prove_start()
            # A message too many: what would come where one was lost on the way.
            head = cell.batches.reply_head(batch_id(numbered_job(1), 1, 0))
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
        await other.batches.close([batch_id(numbered_job(1), 1, 0)])
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
        await other.batches.close([batch_id(numbered_job(1), 1, 0)])
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
                await other.batches.close([batch_id(numbered_job(1), 1, repair)])
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
        await other.batches.close(
            [batch_id(numbered_job(1), 1, n) for n in range(MAX_REPAIRS + 1)]
        )
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
        await other.batches.close([batch_id(numbered_job(1), 1, 0)])
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


async def test_a_stream_that_is_deleted_while_somebody_listens_to_all_logs(
    cell: Cell, writer_of: MakeWriter
) -> None:
    """Then the server does not say that nobody takes what is published there."""

    def listen(_: object) -> None:
        """Anybody may."""

    await cell.connection.subscribe(f"{cell.subjects.prefix}.tokens.>", listen)
    writer = writer_of()
    writer.append(token(1))
    await writer.prove_start()
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    writer.attach()  # as a missing answer does, later
    with pytest.raises(LogGone):
        async with asyncio.timeout(20):
            await writer.commit(end(2))


# What is no event of the log


GARBAGE = [b"garbage", b"\xff", b"[" * 100_000, encode(Token("two", 9, 9, "x"))]


async def put(cell: Cell, *messages: bytes) -> int:
    """Store what is no writer's on the subject; its last stream sequence."""
    subject = cell.subjects.tokens("t", "one")
    for message in messages:
        answer = await cell.connection.request(subject, message)
    return int(json.loads(answer.data)["seq"])


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("proven", [False, True])
async def test_garbage_in_the_log_is_no_newer_attempt(
    cell: Cell, writer_of: MakeWriter, garbage: bytes, proven: bool
) -> None:
    last = await put(cell, garbage)
    writer = writer_of(last_seq=last)
    writer.append(token(1))
    if proven:
        await writer.prove_start()
        writer.append(token(2))
    await put(cell, garbage)
    await cell.batches.close([batch_id(numbered_job(1), 1, 0)])
    if not proven:
        await writer.prove_start()
        writer.append(token(2))
    await put(cell, garbage)
    async with asyncio.timeout(20):
        await writer.commit(end(3))
    assert writer.repairs >= 1
    log = [message for message in await stored(cell) if message != garbage]
    assert log == [token(1), token(2), end(3)]


async def test_a_start_behind_garbage_that_was_never_stored(
    cell: Cell, writer_of: MakeWriter
) -> None:
    last = await put(cell, b"garbage")
    writer = writer_of(last_seq=last)
    await cell.batches.close([batch_id(numbered_job(1), 1, 0)])
    writer.append(token(1))
    writer.attach()
    async with asyncio.timeout(20):
        await writer.prove_start()
        await writer.commit(end(2))
    assert await stored(cell) == [b"garbage", token(1), end(2)]


# A log whose head the stream has discarded


async def break_batch(cell: Cell, writer: LogWriter) -> None:
    """Break the open batch, and wait until the writer has found out what stands."""
    repairs = writer.repairs
    await cell.batches.close([batch_id(numbered_job(1), 1, repairs)])
    writer.attach()

    async def over() -> bool:
        return writer.repairs > repairs or writer.state is WriterState.FAILED

    await eventually(over)


def segment(seq: int) -> bytes:
    event = SpeechSegment("one", seq, 1, text="x", first=1, last=1, start=0, end=1)
    return encode(event)


@pytest.mark.parametrize("behind", [0, 1, 5])
@pytest.mark.parametrize("said", [1, 3])
async def test_speech_that_was_discarded_is_not_lost(
    cell: Cell, writer_of: MakeWriter, said: int, behind: int
) -> None:
    writer = writer_of()
    writer.append(token(1))
    for n in range(1, said + 1):
        writer.append_speech(segment(n))
    writer.append(token(2))
    await writer.prove_start()
    for n in range(3, 3 + behind):
        writer.append(token(n))
    await cell.connection.flush()
    speech = cell.subjects.speech("t", "one")
    await cell.jetstream.call(f"STREAM.PURGE.{cell.names.tokens}", {"filter": speech})
    await break_batch(cell, writer)
    writer.append_speech(segment(said + 1))
    async with asyncio.timeout(20):
        await writer.commit(end(3 + behind))
    assert writer.repairs >= 1
    tokens = [token(n) for n in range(1, 3 + behind)]
    assert await stored(cell) == [*tokens, end(3 + behind)]
    left = [message.data async for message in cell.read_speech("t", "one")]
    assert left == [segment(said + 1)]


async def test_tokens_that_were_lost_are_missed_where_speech_was_discarded(
    cell: Cell, writer_of: MakeWriter
) -> None:
    writer = writer_of()
    writer.append(token(1))
    writer.append_speech(segment(1))
    for n in range(2, 101):
        writer.append(token(n))
    await writer.prove_start()
    proven = writer.tail.forgotten - 1
    assert proven > 2
    stream = cell.names.tokens
    speech = cell.subjects.speech("t", "one")
    await cell.jetstream.call(f"STREAM.PURGE.{stream}", {"filter": speech})
    messages = [message.seq async for message in cell.read_log("t", "one")]
    for seq in messages[proven - 1 :]:
        await cell.jetstream.call(f"STREAM.MSG.DELETE.{stream}", {"seq": seq})
    await break_batch(cell, writer)
    with pytest.raises(Fenced, match="lost 1 events"):
        async with asyncio.timeout(20):
            await writer.commit(end(101))
