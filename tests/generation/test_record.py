"""A record whose log was lost: its end goes into the stream that was made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.bus.batch import Answer, Op, Verdict, batch_id
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.refusals import StartRefused
from bridge.bus.streams import Lane
from bridge.errors import LogLost
from bridge.events import Failed, Job, Timings, Token, encode
from bridge.generation.record import Record, Writing, read_spoken
from bridge.generation.voice import Spoken
from bridge.history import History
from bridge.speech.options import SpeechOptions
from tests.bus.written import swept_cell
from tests.servers import NatsServer

DELIVERY = Delivery("", b"", "", "default", 7, 1, 70)


@pytest_asyncio.fixture
async def cell(nats_server: NatsServer, prefix: str) -> AsyncIterator[Cell]:
    async with swept_cell(nats_server.url, prefix) as cell:
        yield cell


def record_on(cell: Cell) -> Record:
    writing = Writing(
        cell=cell,
        tenant="t",
        id="one",
        delivery=DELIVERY,
        metadata={},
        max_text_bytes=1000,
        now=cell.now,
        owned=lambda: True,
    )
    return Record(writing, History(), Spoken(), SpeechOptions())


async def begun(cell: Cell) -> Record:
    """A record with a start that is proven, in a batch that is open."""
    record = record_on(cell)
    record.start(Job("one", {"model": "m"}), 0, 0, 1000)
    await record.writer.prove_start()
    return record


def lost(record: Record) -> Failed:
    error = LogLost("the stream of the log is gone")
    return record.failed(error, usage=None, backend=None, timings=Timings())


async def stored(cell: Cell) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The log and the speech log, up to the leader's last messages."""
    found = []
    for read, ask in (
        (cell.read_log, cell.last_stored),
        (cell.read_speech, cell.last_spoken),
    ):
        async with asyncio.timeout(20):
            while True:
                last = await ask("t", "one")
                messages = [m async for m in read("t", "one")]
                if last is None or (messages and messages[-1].seq >= last.seq):
                    break
        found.append([json.loads(m.data) for m in messages])
    return found[0], found[1]


async def make_again(cell: Cell) -> None:
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    await cell.ensure([Lane("default", 2.0)], "create")


async def commits(record: Record, event: Failed) -> None:
    await record.begin_anew(event)
    async with asyncio.timeout(20):
        await record.commit(event)


def numbers(log: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["type"], event["seq"]) for event in log]


async def test_the_end_keeps_its_number_and_so_does_speech(cell: Cell) -> None:
    record = await begun(cell)
    await make_again(cell)
    await commits(record, lost(record))
    log, speech = await stored(cell)
    assert numbers(log) == [("failed", 2)]
    assert numbers(speech) == [("failed", 1)]


async def test_a_try_that_failed_leaves_no_second_number(cell: Cell) -> None:
    record = await begun(cell)
    await make_again(cell)
    event = lost(record)
    await record.begin_anew(event)
    committing = asyncio.ensure_future(record.commit(event))
    await asyncio.sleep(0)
    committing.cancel()
    await make_again(cell)
    await commits(record, event)
    log, speech = await stored(cell)
    assert numbers(log) == [("failed", 2)]
    assert numbers(speech) == [("failed", 1)]


@pytest.mark.parametrize("repair", [0, 3])
async def test_a_name_that_a_batch_of_ours_has_open_there(
    cell: Cell, repair: int
) -> None:
    record = await begun(cell)
    await make_again(cell)
    # As a start that was made again has it, a moment before its stream was gone.
    name = batch_id(DELIVERY.identity, 1, repair)
    alive = asyncio.Event()

    def answered(op: Op, answer: Answer) -> None:
        if op is Op.PING and answer.verdict is Verdict.ALIVE:
            alive.set()

    cell.batches.listen(name, answered)
    subject = cell.subjects.tokens("t", "other")
    head = cell.batches.reply_head(name)
    cell.connection.publish(subject, b"x", f"{head}1.{Op.START:d}.$FI")
    cell.batches.send(Op.PING, name, 1)
    async with asyncio.timeout(20):
        await alive.wait()
    await commits(record, lost(record))
    assert record.writer.repairs == 0
    log, _ = await stored(cell)
    assert numbers(log) == [("failed", 2)]


async def test_a_log_that_somebody_has_begun_there_is_claimed(cell: Cell) -> None:
    record = await begun(cell)
    await make_again(cell)
    event = Token("one", 1, 2, "x")
    await cell.connection.request(cell.subjects.tokens("t", "one"), encode(event))
    with pytest.raises(StartRefused):
        await commits(record, lost(record))


async def test_garbage_there_is_no_beginning(cell: Cell) -> None:
    record = await begun(cell)
    await make_again(cell)
    await cell.connection.request(cell.subjects.tokens("t", "one"), b'"garbage"')
    await commits(record, lost(record))
    log, _ = await stored(cell)
    assert [str(log[0]), len(log)] == ["garbage", 2]
    assert numbers(log[1:]) == [("failed", 2)]


async def test_speech_is_read_past_what_is_none(cell: Cell) -> None:
    subject = cell.subjects.speech("t", "one")
    segment = {"type": "segment", "id": "one", "seq": 4, "attempt": 1, "text": "x"}
    places = {"first": 1, "last": 1, "start": 3, "end": 9}
    for message in (b"garbage", json.dumps({**segment, **places}).encode(), b"\xff"):
        await cell.connection.request(subject, message)
    spoken = await read_spoken(cell, "t", "one")
    assert (spoken.seq, spoken.end) == (4, 9)
    assert (await read_spoken(cell, "t", "nobody")).seq == 0
