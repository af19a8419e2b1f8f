"""What a claim makes of a log, decided on scripted answers and a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest

from bridge.bus.api import StoredMessage
from bridge.bus.batch import older_batches
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.refusals import Fenced
from bridge.errors import ConnectionLost
from bridge.events import (
    AnyEvent,
    Cancelled,
    Event,
    Job,
    JobIdentity,
    Resumed,
    Started,
    Timings,
    Token,
    encode,
)
from bridge.generation.claim import (
    PROVE_S,
    Found,
    claim,
    close_to_end,
    read_history,
)

JOB = JobIdentity(7, 70)
OTHER = JobIdentity(5, 50)
GARBAGE = b"no event"


def started(job: JobIdentity = JOB) -> Started:
    return Started(
        "one",
        1,
        1,
        v=1,
        model="m",
        created=0,
        queue_ms=0,
        job=job.stream_seq,
        job_time=str(job.stored_ns),
        metadata={},
    )


def token(seq: int, attempt: int = 1) -> Token:
    return Token("one", seq, attempt, "x")


def resumed(seq: int, attempt: int) -> Resumed:
    return Resumed(
        "one", seq, attempt, after=seq - 1, mode="continue", reason="takeover"
    )


def cancelled(seq: int, attempt: int = 1) -> Cancelled:
    return Cancelled("one", seq, attempt, reason="r", timings=Timings(), metadata={})


Log = list[Event | bytes]


def stored(log: Log) -> list[StoredMessage]:
    """A log in its stream: every message has a sequence, garbage too."""
    return [
        StoredMessage(10 * n, "s", m if isinstance(m, bytes) else encode(m))
        for n, m in enumerate(log, 1)
    ]


class Answer:
    def __init__(self, value: StoredMessage | None) -> None:
        self.value = value

    async def answer(self) -> StoredMessage | None:
        return self.value

    def forget(self) -> None:
        """Nothing waits."""


class FakeCell:
    """Whose leader has ``log``, and whose reads give ``reads`` first, one each.

    ``later`` is what the log becomes each time a batch was closed.
    """

    def __init__(self, log: Log, *reads: Log, later: list[Log] | None = None) -> None:
        self.log = stored(log)
        self.reads = [stored(read) for read in reads]
        self.later = [stored(each) for each in later or []]
        self.batches = self
        self.jetstream = self
        self.subjects = self
        self.names = self
        self.closed: list[list[str]] = []
        self.jobs: set[JobIdentity] = set()
        self.clock = 0.0
        self.read_count = 0

    def now(self) -> float:
        return self.clock

    async def pause(self, seconds: float) -> None:
        self.clock += seconds

    def tokens(self, tenant: str, id: str) -> str:
        return "s"

    async def close(self, batches: list[str]) -> None:
        self.closed.append(batches)
        if self.later:
            self.log = self.later.pop(0)

    async def last_stored(self, tenant: str, id: str) -> StoredMessage | None:
        return self.log[-1] if self.log else None

    async def last_message(self, stream: object, subject: str) -> StoredMessage | None:
        return self.log[-1] if self.log else None

    async def next_message(
        self, stream: object, subject: str, seq: int
    ) -> StoredMessage | None:
        return next((m for m in self.log if m.seq >= seq), None)

    def ask_last_stored(self, tenant: str, id: str) -> Answer:
        return Answer(self.log[-1] if self.log else None)

    def ask_kept_control(self, tenant: str, kind: str, name: str) -> Answer:
        return Answer(None)

    async def job_is_stored(self, job: JobIdentity) -> bool:
        return job in self.jobs

    async def read_log(self, tenant: str, id: str) -> AsyncIterator[StoredMessage]:
        self.read_count += 1
        for message in self.reads.pop(0) if self.reads else self.log:
            yield message


def cell_with(log: Log, *reads: Log, later: list[Log] | None = None) -> FakeCell:
    return FakeCell(log, *reads, later=later)


async def claims(cell: FakeCell, attempt: int = 2) -> tuple[Found, AnyEvent | None]:
    delivery = Delivery("", b"", "", "default", JOB.stream_seq, attempt, JOB.stored_ns)
    found = await claim(cast(Cell, cell), "t", delivery, Job("one", {}))
    return found.found, found.history.last


BEGUN: Log = [started(), token(2), token(3)]


@pytest.mark.parametrize(
    ("log", "attempt", "found", "last"),
    [
        ([], 1, Found.FRESH, None),
        ([GARBAGE], 1, Found.FRESH, None),
        ([GARBAGE, GARBAGE], 2, Found.FRESH, None),
        (BEGUN, 1, Found.NEWER, token(3)),
        (BEGUN, 2, Found.TAKEOVER, token(3)),
        ([*BEGUN, GARBAGE], 1, Found.NEWER, token(3)),
        ([*BEGUN, GARBAGE], 2, Found.TAKEOVER, token(3)),
        ([GARBAGE, *BEGUN, GARBAGE, token(4)], 2, Found.TAKEOVER, token(4)),
        ([*BEGUN, cancelled(4)], 1, Found.STANDS, cancelled(4)),
        ([*BEGUN, cancelled(4), GARBAGE], 2, Found.STANDS, cancelled(4)),
        ([*BEGUN, cancelled(4), token(5)], 2, Found.STANDS, cancelled(4)),
        ([cancelled(9)], 2, Found.STANDS, cancelled(9)),
        ([cancelled(9), GARBAGE], 2, Found.STANDS, cancelled(9)),
        # Not whole.
        ([token(3), token(4)], 2, Found.LOST, token(4)),
        ([started(), token(3)], 2, Found.LOST, token(3)),
        ([*BEGUN, token(3)], 2, Found.LOST, token(3)),
        ([*BEGUN, resumed(4, 3), token(5, 2)], 4, Found.LOST, token(5, 2)),
        ([token(3), token(4, 5)], 2, Found.NEWER, token(4, 5)),
        ([token(3), GARBAGE], 2, Found.LOST, token(3)),
        ([token(3), cancelled(4), GARBAGE], 2, Found.STANDS, cancelled(4)),
    ],
)
async def test_what_a_log_says(
    log: Log, attempt: int, found: Found, last: AnyEvent | None
) -> None:
    cell = cell_with(log)
    assert await claims(cell, attempt) == (found, last)
    # Only what is taken over has to be read to its end.
    assert cell.clock < PROVE_S + 1


async def test_a_lost_log_was_read_again_and_closed() -> None:
    cell = cell_with([started(), token(3)])
    await claims(cell, 4)
    assert cell.clock >= PROVE_S
    assert cell.read_count > 5
    assert cell.closed == [older_batches([JOB], 4)]


READS: dict[str, list[Log]] = {
    "nothing yet": [[], []],
    "the end is missing": [BEGUN[:1], BEGUN[:2]],
    "a page is missing": [[BEGUN[0], BEGUN[2]]],
    "the head is missing": [BEGUN[1:], BEGUN[2:]],
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS.keys())
async def test_what_a_read_missed_the_next_one_has(reads: list[Log]) -> None:
    cell = cell_with(BEGUN)
    there = list(zip(stored(BEGUN), BEGUN, strict=True))
    cell.reads = [[m for m, event in there if event in read] for read in reads]
    history = await read_history(cast(Cell, cell), "t", "one")
    assert history.whole
    assert (history.seq, history.last_stream_seq) == (3, 30)
    assert cell.read_count == len(reads) + 1
    assert cell.clock < 0.1


async def test_a_log_that_cannot_be_read_to_its_end_is_not_lost() -> None:
    cell = cell_with(BEGUN)
    cell.reads = [stored(BEGUN[:2])] * 1000
    with pytest.raises(ConnectionLost, match="up to its last"):
        await read_history(cast(Cell, cell), "t", "one")
    assert PROVE_S <= cell.clock < PROVE_S + 1


async def test_a_log_that_moves_is_read_and_closed_again() -> None:
    """An owner that lives, perhaps of a repeat whose batches nobody can name."""
    moved: list[Log] = [[token(3), token(4)], [token(3), token(4), cancelled(5)]]
    cell = cell_with([token(3)], later=moved)
    assert await claims(cell) == (Found.STANDS, cancelled(5))
    assert len(cell.closed) == 2


async def test_a_repeat_of_a_job_that_is_stored_stands() -> None:
    cell = cell_with([started(OTHER), token(2)])
    cell.jobs = {OTHER}
    assert (await claims(cell))[0] is Found.STANDS
    cell.jobs = set()
    assert (await claims(cell))[0] is Found.TAKEOVER
    assert cell.closed == [older_batches([OTHER, JOB], 2)]


# One last event


async def end_of(cell: FakeCell, attempt: int = 2) -> tuple[int, int] | None:
    delivery = Delivery("", b"", "", "default", JOB.stream_seq, attempt, JOB.stored_ns)
    end = await close_to_end(cast(Cell, cell), "t", "one", delivery)
    return None if end is None else (end.seq, end.last_stream_seq)


@pytest.mark.parametrize(
    ("log", "end"),
    [
        ([], (0, 0)),
        (BEGUN, (3, 30)),
        ([token(5), token(9)], (9, 20)),
        ([*BEGUN, resumed(4, 2)], (4, 40)),
        ([*BEGUN, cancelled(4)], (4, 40)),
        ([started(OTHER), token(2)], None),
    ],
)
async def test_where_a_last_event_goes(log: Log, end: tuple[int, int] | None) -> None:
    assert await end_of(cell_with(log)) == end


async def test_a_last_event_is_no_business_of_an_older_attempt() -> None:
    with pytest.raises(Fenced):
        await end_of(cell_with([*BEGUN, resumed(4, 3)]))


async def test_its_own_batches_are_closed_too() -> None:
    cell = cell_with(BEGUN, later=[[*BEGUN, token(4)]])
    assert await end_of(cell) == (4, 40)
    assert cell.closed == [older_batches([JOB], 3)] * 2
