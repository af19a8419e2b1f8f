"""A reader beside a log and a connection that fail: in memory, without NATS.

The log is a list, pages of it lose what a test takes away, and a question is answered
or refused as the test says; the reader is the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bus.api import StoredMessage
from bridge.bus.cell import Cell
from bridge.bus.streams import StreamNames
from bridge.client import feed as feeds
from bridge.client import reader as readers
from bridge.client.feed import Feed
from bridge.client.reader import Reader
from bridge.config import BusSettings
from bridge.errors import (
    ConnectionLost,
    LogExpired,
    NothingInLog,
    NotPermitted,
    RequestLost,
    StreamUnavailable,
)
from bridge.events import AnyEvent, KnownEvent, Started, encode
from bridge.subjects import Subjects
from tests.client.bridge_side import PATIENCE_S, Author
from tests.test_sequence import histories

ID = "a"
REFUSED = 'nats: permissions violation for publish to "$js.api.x"'


class FakeConnection:
    """Connected or not."""

    def __init__(self) -> None:
        self.connected = True
        self.servers = "nats://nowhere"


class FakeCell:
    """A stream in memory; ``lose`` are the stream sequences that a page lacks."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.subjects = Subjects("llm")
        self.names = StreamNames.of(BusSettings(), "llm")
        self.jetstream = self
        self.feed = Feed()
        self.stored: list[StoredMessage] = []
        self.next_seq = 1
        #: Messages that pages lack, for so many pages.
        self.lose: set[int] = set()
        self.losing = 0
        self.lag = 0  # messages that a replica does not have yet
        self.pages = 0
        self.looks = 0
        self.refuses: set[str] = set()
        self.error: Exception | None = None

    def store(self, *payloads: bytes | KnownEvent, id: str = ID) -> None:
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else encode(payload)
            subject = self.subjects.tokens("default", id)
            self.stored.append(StoredMessage(self.next_seq, subject, data))
            self.next_seq += 1

    def other_traffic(self, messages: int = 10) -> None:
        self.next_seq += messages

    def wipe(self, next_seq: int = 1) -> None:
        self.stored.clear()
        self.next_seq = next_seq

    def discard(self, messages: int) -> None:
        del self.stored[:messages]

    def show(self, *events: KnownEvent | bytes) -> None:
        for event in events:
            data = event if isinstance(event, bytes) else encode(event)
            self.feed.receive(_Message(data))

    async def read_log(
        self, tenant: str, id: str, from_seq: int = 1
    ) -> AsyncIterator[StoredMessage]:
        self.pages += 1
        await self._answer("$JS.API.DIRECT.GET.LLM_TOKENS")
        losing = self.lose if self.losing > 0 else set()
        self.losing -= 1
        for stored in self.stored[: len(self.stored) - self.lag]:
            if stored.seq >= from_seq and stored.seq not in losing:
                yield stored

    async def last_stored(self, tenant: str, id: str) -> StoredMessage | None:
        self.looks += 1
        await self._answer("$JS.API.STREAM.MSG.GET.LLM_TOKENS")
        return self.stored[-1] if self.stored else None

    async def message(self, stream: str, seq: int) -> StoredMessage | None:
        await self._answer("$JS.API.STREAM.MSG.GET.LLM_TOKENS")
        return next((each for each in self.stored if each.seq == seq), None)

    async def next_message(
        self, stream: str, subject: str, seq: int
    ) -> StoredMessage | None:
        await self._answer("$JS.API.STREAM.MSG.GET.LLM_TOKENS")
        return next((each for each in self.stored if each.seq >= seq), None)

    async def _answer(self, subject: str) -> None:
        await asyncio.sleep(0)
        if not self.connection.connected:
            raise ConnectionLost("not connected")
        if subject in self.refuses:
            self.feed.refused(subject.lower(), REFUSED)
            await asyncio.sleep(60)
        if self.error is not None:
            raise self.error


class _Message(NamedTuple):
    data: bytes


def open_reader(
    cell: FakeCell,
    *,
    read: bool = False,
    from_seq: int = 1,
    wait_s: float | None = None,
    deadline_ms: int | None = None,
) -> Reader:
    reader = Reader(
        cast(Cell, cell), "default", ID, cell.feed,
        from_seq=from_seq, wait_s=wait_s, deadline_ms=deadline_ms,
    )  # fmt: skip
    reader.begin(read=read)
    return reader


async def rest_of(reader: Reader) -> list[AnyEvent]:
    """What stands of the events up to the terminal one."""
    events: list[AnyEvent] = []
    async with asyncio.timeout(PATIENCE_S):
        while not (events and events[-1].terminal):
            event = await reader.next()
            if reader.truncated_to is not None:
                events = [e for e in events if e.seq <= reader.truncated_to]
            events.append(event)
    return events


async def some_of(reader: Reader, count: int) -> list[AnyEvent]:
    async with asyncio.timeout(PATIENCE_S):
        return [await reader.next() for _ in range(count)]


@contextlib.asynccontextmanager
async def silence(cell: FakeCell) -> AsyncIterator[None]:
    """Let the sweep find the subject silent, again and again."""

    async def sweep() -> None:
        while True:
            cell.feed.due = True
            cell.feed.wake()
            await asyncio.sleep(0.01)

    sweeping = asyncio.ensure_future(sweep())
    try:
        yield
    finally:
        sweeping.cancel()


@pytest.fixture
def cell() -> FakeCell:
    return FakeCell()


@pytest.fixture
def author() -> Author:
    return Author(ID)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience in tenths of what it is, where a test waits for its end."""
    monkeypatch.setattr(readers, "HOLE_S", 0.1)
    monkeypatch.setattr(readers, "EMPTY_S", 0.1)
    monkeypatch.setattr(readers, "EMPTY_LOOK_S", 0.02)
    monkeypatch.setattr(readers, "LOST_AFTER_S", 0.1)
    monkeypatch.setattr(readers, "REFUSED_S", 0.1)
    monkeypatch.setattr(readers, "UNCONFIRMED_S", 0.2)


# What is no event


NOISE = [
    b"",
    b"garbage",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    b'{"type":"token","id":"b","seq":2,"attempt":1,"text":"another"}',
    b'{"type":"token","id":"a","seq":0,"attempt":1,"text":"zero"}',
    b'{"type":"token","id":"a","seq":9007199254740993,"attempt":1,"text":"far"}',
    b'{"type":"completed","id":"b","seq":2,"attempt":1}',
]


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: repr(noise[:40]))
async def test_noise_in_a_log_is_passed_over(
    cell: FakeCell, author: Author, noise: bytes
) -> None:
    events = [author.started(), author.token(), author.completed()]
    for event in events:
        cell.store(noise, event)
    cell.store(noise)
    reader = open_reader(cell, read=True)
    assert await rest_of(reader) == events
    assert reader.ignored == 3


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: repr(noise[:40]))
async def test_noise_in_live_and_as_the_logs_last_message(
    cell: FakeCell, author: Author, noise: bytes
) -> None:
    events = [author.started(), author.token(), author.completed()]
    reader = open_reader(cell)
    for event in events:
        cell.show(noise, event)
        cell.store(event, noise)
    # Its end is compared with a last message that is noise.
    assert await rest_of(reader) == events
    assert reader.ignored >= 3


async def test_a_log_of_noise_only_has_nothing(
    cell: FakeCell, caplog: pytest.LogCaptureFixture
) -> None:
    cell.store(*NOISE)
    reader = open_reader(cell, read=True, wait_s=0.1)
    async with silence(cell):
        with pytest.raises(NothingInLog):
            await some_of(reader, 1)
    said = [r for r in caplog.records if "no event of it" in r.getMessage()]
    assert len(said) == 1


async def test_what_a_stale_attempt_stored_is_no_part_of_the_log(
    cell: FakeCell, author: Author
) -> None:
    first = [author.started(), *author.tokens(2)]
    second = [author.resumed(), author.token(), author.completed()]
    stale = Author(ID)
    stale.seq = 4
    cell.store(*first, *second[:1], *stale.tokens(3), *second[1:])
    assert await rest_of(open_reader(cell, read=True)) == [*first, *second]


# Holes


async def test_a_page_that_was_cut_is_read_again(
    cell: FakeCell, author: Author
) -> None:
    events = [author.started(), *author.tokens(20), author.completed()]
    cell.store(*events)
    cell.lose, cell.losing = {1, 2, 7, 8, 9}, 2
    assert await rest_of(open_reader(cell, read=True)) == events
    assert cell.pages > 2


@pytest.mark.parametrize("lost", [{1}, {1, 2, 3}, {5}, {9, 10, 11}, {1, 12}])
async def test_a_hole_that_stays_ends_the_reader(
    cell: FakeCell, author: Author, lost: set[int]
) -> None:
    events = [author.started(), *author.tokens(10), author.completed()]
    cell.store(*(event for event in events if event.seq not in lost))
    reader = open_reader(cell, read=True)
    whole = min(lost) - 1
    assert await some_of(reader, whole) == events[:whole]
    with pytest.raises(LogExpired) as caught:
        await some_of(reader, 1)
    assert "begins at seq" in str(caught.value) or "not whole" in str(caught.value)
    assert reader.position.seq == whole


async def test_live_goes_on_though_the_head_of_its_log_is_discarded(
    cell: FakeCell, author: Author
) -> None:
    reader = open_reader(cell)
    events = [author.started(), *author.tokens(30), author.completed()]
    async with silence(cell):
        for at, event in enumerate(events):
            cell.store(event)
            cell.show(event)
            if at % 5 == 4:
                cell.discard(4)
                cell.feed.reconnected()
            assert await some_of(reader, 1) == [event]


async def test_live_that_missed_what_was_discarded_does_not_go_on(
    cell: FakeCell, author: Author
) -> None:
    reader = open_reader(cell)
    events = [author.started(), *author.tokens(30)]
    cell.show(*events[:10])
    assert await some_of(reader, 10) == events[:10]
    cell.store(*events)
    cell.discard(12)
    cell.show(*events[20:])
    with pytest.raises(LogExpired, match="begins at seq 13 by now; seq 11"):
        await some_of(reader, 1)


# Another log


@pytest.mark.parametrize("beyond", [1, 1000])
@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("read", [True, False])
async def test_the_end_of_a_lost_log_is_delivered_whatever_was_read(
    cell: FakeCell, author: Author, beyond: int, heard: bool, read: bool
) -> None:
    """NATS came back empty; the new stream's sequences are lower, or higher."""
    events = [author.started(), *author.tokens(8)]
    cell.other_traffic(100)
    cell.store(*events)
    reader = open_reader(cell, read=read)
    if not read:
        cell.show(*events)
    assert await some_of(reader, 9) == events
    author.tokens(5)  # which nobody heard
    cell.wipe(beyond)
    end = author.failed("log_lost")
    cell.store(end)
    cell.feed.reconnected()
    if heard:
        cell.show(end)
    assert await some_of(reader, 1) == [end]


@pytest.mark.parametrize("read", [True, False])
async def test_another_life_of_the_id_replaces_the_first(
    cell: FakeCell, author: Author, read: bool
) -> None:
    events = [author.started(job=7), *author.tokens(8)]
    cell.store(*events)
    reader = open_reader(cell, read=read)
    if not read:
        cell.show(*events)
    assert await some_of(reader, 9) == events
    other = Author(ID)
    start = other.started(job=1)
    words = [other.token(f"other {n} ") for n in range(20)]
    second = [start, *words, other.completed()]
    cell.wipe()
    cell.store(*second)
    cell.feed.reconnected()
    cell.show(*second[9:])
    # Live may show some of it first, which the log takes back.
    assert await rest_of(reader) == second


async def test_a_reconnect_reads_no_log_that_live_has_shown(
    cell: FakeCell, author: Author
) -> None:
    events = [author.started(), *author.tokens(50)]
    cell.store(*events[:10])
    reader = open_reader(cell, read=True)
    assert await some_of(reader, 10) == events[:10]
    cell.store(*events[10:])
    cell.show(*events[10:])
    assert await some_of(reader, 41) == events[10:]
    pages = cell.pages
    for _ in range(3):
        cell.feed.reconnected()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await reader.next()
    assert cell.pages == pages
    assert reader.position.known == 51


async def test_a_log_that_lost_its_newest_events(
    cell: FakeCell, author: Author
) -> None:
    """A killed server had shown more than it kept; another worker goes on there."""
    events = [author.started(), *author.tokens(8)]
    cell.store(*events)
    reader = open_reader(cell, read=True)
    assert await some_of(reader, 9) == events
    del cell.stored[5:]
    cell.next_seq = 6
    second = [author.resumed(after=5), author.token(), author.completed()]
    cell.store(*second)
    cell.feed.reconnected()
    assert await some_of(reader, 1) == second[:1]
    assert reader.truncated_to == 5
    assert await rest_of(reader) == second[1:]


# Nobody waits for ever


async def test_a_request_that_never_ends_is_lost(
    cell: FakeCell, author: Author
) -> None:
    reader = open_reader(cell, deadline_ms=50)
    with pytest.raises(RequestLost, match=r"LLM_JOBS.*tokenbridge check") as caught:
        await some_of(reader, 1)
    assert "deadline of 50 ms" in str(caught.value)
    assert not isinstance(caught.value, LogExpired)


async def test_the_deadline_in_started_counts(cell: FakeCell, author: Author) -> None:
    started = author.started()
    assert isinstance(started, Started)
    started.deadline_ms = 50
    for read in (True, False):
        cell = FakeCell()
        cell.store(started)
        cell.show(started)
        # Of a reader that joined, and of one that had asked for more.
        for deadline_ms in (None, 60_000):
            reader = open_reader(cell, read=read, deadline_ms=deadline_ms)
            assert await some_of(reader, 1) == [started]
            with pytest.raises(RequestLost, match="deadline of 50 ms"):
                await some_of(reader, 1)
            cell.show(started)


async def test_a_reader_in_the_middle_learns_the_deadline_too(
    cell: FakeCell, author: Author
) -> None:
    started = author.started()
    assert isinstance(started, Started)
    started.deadline_ms = 50
    cell.store(started, *author.tokens(3))
    reader = open_reader(cell, read=True, from_seq=3)
    await some_of(reader, 2)
    with pytest.raises(RequestLost):
        await some_of(reader, 1)


async def test_an_outage_does_not_count(
    cell: FakeCell, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "EMPTY_S", PATIENCE_S)
    reader = open_reader(cell, deadline_ms=100)
    cell.connection.connected = False
    cell.feed.disconnected()
    reading = asyncio.ensure_future(some_of(reader, 1))
    await asyncio.wait([reading], timeout=0.4)
    assert not reading.done()
    cell.connection.connected = True
    cell.feed.reconnected()
    assert 0.3 < cell.feed.away_s < PATIENCE_S
    event = author.started()
    cell.show(event)
    assert await reading == [event]


async def test_a_slow_reader_gets_what_came_in_time(
    cell: FakeCell, author: Author
) -> None:
    """Its own pause is longer than the deadline: the log is looked at first."""
    events = [author.started(), *author.tokens(50), author.completed()]
    reader = open_reader(cell, deadline_ms=1)
    cell.show(*events[:1])
    assert await some_of(reader, 1) == events[:1]
    cell.store(*events)
    await asyncio.sleep(0.15)
    assert await rest_of(reader) == events[1:]


@pytest.mark.parametrize("gone", [True, False])
async def test_a_log_that_was_read_and_is_empty(
    cell: FakeCell, author: Author, gone: bool
) -> None:
    events = [author.started(), *author.tokens(3)]
    cell.store(*events)
    reader = open_reader(cell, read=True)
    assert await some_of(reader, 4) == events
    cell.wipe()
    if gone:
        cell.error = StreamUnavailable("stream not found", gone=True)
    cell.feed.reconnected()
    async with silence(cell):
        with pytest.raises(RequestLost, match=r"read up to seq 4.*LLM_JOBS"):
            await some_of(reader, 1)


async def test_an_empty_log_beside_live_events_is_waited_for(
    cell: FakeCell, author: Author
) -> None:
    reader = open_reader(cell)
    async with silence(cell):
        for _ in range(20):
            event = author.token() if author.seq else author.started()
            cell.show(event)
            assert await some_of(reader, 1) == [event]
            await asyncio.sleep(0.02)


# No right to read


BOTH = {"$JS.API.DIRECT.GET.LLM_TOKENS", "$JS.API.STREAM.MSG.GET.LLM_TOKENS"}


async def test_an_end_that_cannot_be_confirmed(cell: FakeCell, author: Author) -> None:
    cell.refuses = BOTH
    events = [author.started(), *author.tokens(3), author.completed()]
    reader = open_reader(cell)
    cell.show(*events)
    before = asyncio.get_running_loop().time()
    assert await rest_of(reader) == events
    assert not reader.confirmed
    assert asyncio.get_running_loop().time() - before < 1


async def test_an_end_that_nobody_answers_for(cell: FakeCell, author: Author) -> None:
    cell.error = StreamUnavailable("nobody answers")
    events = [author.started(), author.completed()]
    reader = open_reader(cell)
    cell.show(*events)
    assert await rest_of(reader) == events
    assert not reader.confirmed


@pytest.mark.parametrize("refused", sorted(BOTH))
async def test_one_of_the_two_rights_confirms(
    cell: FakeCell, author: Author, refused: str
) -> None:
    cell.refuses = {refused}
    events = [author.started(), *author.tokens(3), author.completed()]
    cell.store(*events)
    reader = open_reader(cell)
    cell.show(*events)
    assert await rest_of(reader) == events
    assert reader.confirmed


async def test_a_hole_that_may_not_be_filled(cell: FakeCell, author: Author) -> None:
    cell.refuses = BOTH
    events = [author.started(), *author.tokens(3), author.completed()]
    reader = open_reader(cell)
    cell.show(*events[:2], *events[3:])
    assert await some_of(reader, 2) == events[:2]
    with pytest.raises(NotPermitted, match=r"behind seq 2.*permissions violation"):
        await some_of(reader, 1)


async def test_a_takeover_is_followed_by_live_alone(
    cell: FakeCell, author: Author
) -> None:
    cell.refuses = BOTH
    first = [author.started(), *author.tokens(3)]
    second = [author.resumed(after=3), *author.tokens(3)]
    stale = Author(ID)
    stale.seq = 20
    third = [author.resumed("restart"), *author.tokens(2), author.completed()]
    reader = open_reader(cell)
    cell.show(*first)
    assert await some_of(reader, 4) == first
    reading = asyncio.ensure_future(rest_of(reader))
    await asyncio.sleep(0)
    cell.show(*second[:2])
    for event in (*second[2:], *third):
        await asyncio.sleep(0.02)
        cell.show(event, stale.token())
    assert await reading == [*second, *third]
    assert not reader.confirmed


async def test_a_takeover_behind_a_hole_is_not_followed(
    cell: FakeCell, author: Author
) -> None:
    cell.refuses = BOTH
    first = [author.started(), *author.tokens(3)]
    second = [author.resumed(), *author.tokens(3), author.completed()]
    for shown in ([*first, *second[1:]], [*first[:2], *second]):
        cell.feed = Feed()
        reader = open_reader(cell)
        cell.show(*shown)
        with pytest.raises(NotPermitted):
            await rest_of(reader)


async def test_a_hole_that_live_fills_needs_no_right(
    cell: FakeCell, author: Author
) -> None:
    cell.refuses = BOTH
    events = [author.started(), *author.tokens(3), author.completed()]
    reader = open_reader(cell)
    cell.show(*events[:2], events[3])
    assert await some_of(reader, 2) == events[:2]
    reading = asyncio.ensure_future(rest_of(reader))
    await asyncio.wait([reading], timeout=0.03)
    cell.show(*events[2:])
    assert await reading == events[2:]


async def test_joining_without_a_right(cell: FakeCell) -> None:
    cell.refuses = BOTH
    reader = open_reader(cell, read=True, wait_s=0.1)
    with pytest.raises(NotPermitted, match="may not read the log"):
        await some_of(reader, 1)


async def test_neither_live_nor_the_log(cell: FakeCell) -> None:
    cell.refuses = BOTH
    reader = open_reader(cell)
    cell.feed.deafened("no subscription")
    with pytest.raises(NotPermitted):
        await some_of(reader, 1)


async def test_a_refused_look_is_not_asked_without_need(
    cell: FakeCell, author: Author
) -> None:
    cell.refuses = BOTH
    reader = open_reader(cell)
    cell.feed.reconnected()
    cell.show(author.started())
    await some_of(reader, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await reader.next()
    assert cell.pages <= 1
    assert cell.looks <= 2


async def test_a_silent_subject_is_read_where_its_end_may_not_be_asked(
    cell: FakeCell, author: Author
) -> None:
    cell.refuses = {"$JS.API.STREAM.MSG.GET.LLM_TOKENS"}
    events = [author.started(), *author.tokens(3), author.completed()]
    cell.store(*events)
    reader = open_reader(cell)
    cell.show(*events[:2])  # and nothing more
    async with silence(cell):
        assert await rest_of(reader) == events
    assert reader.confirmed


@pytest.mark.parametrize("deadline_ms", [0, -1, 10**400])
async def test_a_deadline_that_is_none_is_passed_over(
    cell: FakeCell, author: Author, deadline_ms: int
) -> None:
    started = author.started()
    data = encode(started)[:-1] + b',"deadline_ms":%d}' % deadline_ms
    reader = open_reader(cell, deadline_ms=1000)
    cell.show(data)
    cell.store(started, author.completed())
    cell.feed.due = True
    assert (await rest_of(reader))[-1].terminal


# Any


@contextlib.contextmanager
def tiny() -> Iterator[None]:
    """Limits that a short history reaches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PAGE_MESSAGES", 3)
        patch.setattr(readers, "AGAIN_LAST_S", 0.005)
        patch.setattr(readers, "AGAIN_UNANSWERED_S", 0.001)
        patch.setattr(feeds, "MAX_MESSAGES", 5)
        yield


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_faults_that_heal(data: st.DataObject) -> None:
    """Takeovers, noise, cut pages, lost live events: the reader delivers the log."""
    logging.disable(logging.WARNING)
    try:
        with tiny():
            asyncio.run(_any_faults(data))
    finally:
        logging.disable(logging.NOTSET)


async def _any_faults(data: st.DataObject) -> None:
    draw = data.draw
    cell, author = FakeCell(), Author(ID)
    log: list[KnownEvent] = [author.started()]
    for _ in range(draw(st.integers(0, 3))):
        log += author.tokens(draw(st.integers(0, 5)))
        log.append(
            author.resumed(
                draw(st.sampled_from(["continue", "restart"])),
                draw(st.sampled_from(["takeover", "backend_failure"])),
            )
        )
    log += [*author.tokens(draw(st.integers(0, 5))), author.completed()]
    reader = open_reader(cell, read=draw(st.booleans()))
    reading = asyncio.ensure_future(rest_of(reader))
    for event in log:
        if draw(st.integers(0, 3)) == 0:
            cell.store(draw(st.sampled_from(NOISE[:4])))
        cell.store(event)
        if draw(st.integers(0, 3)):
            cell.show(event)
        cell.lag = draw(st.integers(0, 2))
        cell.lose = draw(st.sets(st.integers(1, cell.next_seq), max_size=4))
        cell.losing = draw(st.integers(0, 2))
        if draw(st.integers(0, 5)) == 0:
            cell.feed.reconnected()
        for _ in range(draw(st.integers(0, 3))):
            await asyncio.sleep(0)
    cell.lag = 0
    async with silence(cell):
        assert await reading == log


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_any_history_beside_any_live(
    history: tuple[list[KnownEvent], list[KnownEvent]], data: st.DataObject
) -> None:
    """Refused openings, stale workers, repairs: the reader delivers the log."""
    logging.disable(logging.WARNING)
    try:
        with tiny():
            asyncio.run(_any_history(*history, data))
    finally:
        logging.disable(logging.NOTSET)


async def _any_history(
    log: list[KnownEvent], published: list[KnownEvent], data: st.DataObject
) -> None:
    draw, cell, left = data.draw, FakeCell(), list(log)
    reader = open_reader(cell, read=draw(st.booleans()))
    reading = asyncio.ensure_future(rest_of(reader))
    for event in published:
        for _ in range(draw(st.integers(0, 3))):
            if left:
                cell.store(left.pop(0))
        if draw(st.integers(0, 5)):
            cell.show(event)
        if draw(st.integers(0, 9)) == 0:
            cell.feed.reconnected()
        for _ in range(draw(st.integers(0, 3))):
            await asyncio.sleep(0)
    cell.store(*left)
    async with silence(cell):
        assert await reading == log
    assert reader.confirmed
