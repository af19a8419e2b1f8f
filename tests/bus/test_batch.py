"""Fast-ingest batches: answers read, names known, older ones closed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bus.batch import (
    MAX_REPAIRS,
    Answer,
    Batches,
    Op,
    Verdict,
    batch_id,
    older_batches,
    parse_answer,
)
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.errors import ConnectionLost, StreamUnavailable
from bridge.events import JobIdentity
from tests.bus.written import numbered_job


def error(err_code: int, code: int = 400, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "err_code": err_code, "description": "x"}, **more}


ANSWERS = {
    "empty": (b"", Verdict.UNAVAILABLE, 0),
    "no json": (b"-ERR", Verdict.BROKEN, 0),
    "an array": (b"[]", Verdict.BROKEN, 0),
    "ack": ({"type": "ack", "seq": 7, "msgs": 3}, Verdict.ALIVE, 7),
    "first ack": ({"type": "ack", "seq": 0}, Verdict.ALIVE, 0),
    "gap": ({"type": "gap", "last_seq": 1, "seq": 3}, Verdict.BROKEN, 0),
    "commit": (
        {"stream": "S", "seq": 90, "batch": "1-1-0", "count": 12},
        Verdict.COMMITTED,
        12,
    ),
    "refused": (error(10071), Verdict.REFUSED, 0),
    "unknown": (error(10208), Verdict.UNKNOWN, 0),
    "overloaded": (error(10211, 429), Verdict.OVERLOADED, 0),
    "no leader": (error(10008, 503), Verdict.UNAVAILABLE, 0),
    "no space": (error(10023, 400), Verdict.BROKEN, 0),
    "one message": (error(10054, type="err", seq=3), Verdict.BROKEN, 0),
}


@pytest.mark.parametrize(
    ("answer", "verdict", "number"), ANSWERS.values(), ids=ANSWERS.keys()
)
def test_each_answer_has_its_verdict(
    answer: bytes | dict[str, Any], verdict: Verdict, number: int
) -> None:
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    parsed = parse_answer(data)
    assert (parsed.verdict, parsed.number) == (verdict, number)


@settings(deadline=None)
@given(st.binary())
def test_no_answer_is_too_odd(data: bytes) -> None:
    assert isinstance(parse_answer(data), Answer)


#: Whatever 64 bits hold.
IDENTITIES = st.builds(
    JobIdentity, st.integers(1, 2**64 - 1), st.integers(0, 2**63 - 1)
)


@settings(deadline=None)
@given(
    st.sets(IDENTITIES, min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, MAX_REPAIRS),
)
def test_a_successor_can_name_every_older_batch(
    jobs: set[JobIdentity], attempt: int, later: int, repair: int
) -> None:
    named = older_batches(jobs, attempt + later)
    for job in jobs:
        batch = batch_id(job, attempt, repair)
        assert batch in named
        assert len(batch) <= 64
        assert batch_id(job, attempt + later, repair) not in named
    assert len(named) == len(set(named))


def test_a_first_attempt_closes_nothing() -> None:
    assert older_batches([numbered_job(5)], 1) == []


class Answers:
    """The answers to one batch, in order."""

    def __init__(self, batches: Batches, batch: str) -> None:
        self.seen: list[tuple[Op, Answer]] = []
        self._changed = asyncio.Event()
        batches.listen(batch, self._take)

    def _take(self, op: Op, answer: Answer) -> None:
        self.seen.append((op, answer))
        self._changed.set()

    async def next(self, op: Op) -> Answer:
        """The next answer to an operation, others passed over."""
        async with asyncio.timeout(20):
            while True:
                while self.seen:
                    answered, answer = self.seen.pop(0)
                    if answered is op:
                        return answer
                self._changed.clear()
                await self._changed.wait()


async def test_closing_what_was_never_open_is_harmless(cell: Cell) -> None:
    await cell.batches.close([])
    await cell.batches.close(older_batches([numbered_job(1), numbered_job(2)], 4))
    await cell.batches.close(older_batches([numbered_job(1), numbered_job(2)], 4))


async def test_a_closed_batch_stores_nothing_more(cell: Cell) -> None:
    batch = batch_id(numbered_job(9), 1, 0)
    answers = Answers(cell.batches, batch)
    head = cell.batches.reply_head(batch)
    subject = cell.subjects.tokens("t", "one")
    publish = cell.connection.publish
    publish(subject, b"first", f"{head}1.0.$FI")
    publish(subject, b"second", f"{head}2.1.$FI")
    cell.batches.send(Op.PING, batch, 2)
    assert (await answers.next(Op.PING)).verdict is Verdict.ALIVE
    await cell.batches.close([batch, batch_id(numbered_job(9), 1, 1)])
    publish(subject, b"stale", f"{head}3.1.$FI")
    cell.batches.send(Op.PING, batch, 3)
    assert (await answers.next(Op.PING)).verdict is Verdict.UNKNOWN
    stored = [m.data async for m in cell.read_log("t", "one")]
    assert stored == [b"first", b"second"]


async def test_listeners_are_back_after_a_closing(cell: Cell) -> None:
    batch = batch_id(numbered_job(9), 1, 0)
    answers = Answers(cell.batches, batch)
    await cell.batches.close([batch])
    cell.batches.send(Op.PING, batch, 1)
    assert (await answers.next(Op.PING)).verdict is Verdict.UNKNOWN
    cell.batches.forget(batch)
    cell.batches.forget(batch)


async def test_closing_without_a_stream_does_not_succeed(
    connection: Connection, prefix: str
) -> None:
    batches = Batches(connection, f"{prefix}.tokens._.batch")
    await batches.open()
    with pytest.raises((ConnectionLost, StreamUnavailable)):
        await batches.close(["1-1-0", "1-1-1"], timeout_s=0.3)


async def test_a_closing_may_be_cancelled(connection: Connection, prefix: str) -> None:
    batches = Batches(connection, f"{prefix}.tokens._.batch")
    await batches.open()
    closing = asyncio.create_task(batches.close(["1-1-0"], timeout_s=100))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert not batches._listeners
