"""Numbering, and the reader's rules.

The invariant of the property test: whatever of the live events is lost, repeated,
refused by the log or of a stale attempt, and however far the log lags, what a reader
has delivered and not been told to truncate is contiguous at every moment, and equals
the log in the end.
"""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import sequence
from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    ErrorInfo,
    Failed,
    KnownEvent,
    Resumed,
    Started,
    Timings,
    Token,
    UnknownEvent,
    decode_event,
)
from bridge.sequence import Numbering, Position, Ruling, Verdict, split_text

DELIVER = Ruling(Verdict.DELIVER)
DROP = Ruling(Verdict.DROP)
HOLE = Ruling(Verdict.HOLE)
CONFIRM = Ruling(Verdict.CONFIRM)


def started(attempt: int = 1, seq: int = 1, job: int = 7) -> Started:
    return Started(
        "a",
        seq,
        attempt,
        v=1,
        model="m",
        created=0,
        queue_ms=0,
        job=job,
        metadata={},
    )


def token(seq: int, attempt: int = 1) -> Token:
    return Token("a", seq, attempt, f"{attempt}.{seq} ")


def tokens(first: int, last: int) -> list[AnyEvent]:
    return [token(seq) for seq in range(first, last + 1)]


def resumed(seq: int, attempt: int, *, reason: str = "takeover") -> Resumed:
    return Resumed(
        "a",
        seq,
        attempt,
        after=seq - 1,
        mode="continue",
        reason=reason,  # type: ignore[arg-type]
    )


def completed(seq: int, attempt: int = 1) -> Completed:
    return Completed(
        "a",
        seq,
        attempt,
        finish_reason="stop",
        timings=Timings(),
        backend="b",
        metadata={},
    )


def failed(seq: int, attempt: int, code: str) -> Failed:
    error = ErrorInfo(code, "gone", True)
    return Failed("a", seq, attempt, error=error, timings=Timings(), metadata={})


def read(position: Position, *events: AnyEvent) -> list[Ruling]:
    return [position.log(event) for event in events]


# Numbering


@pytest.mark.parametrize("text", ["", "Hi", 'a"\\\n\x00', "é😀\u2028", "x" * 5000])
def test_a_token_is_encoded_as_the_event_itself(text: str) -> None:
    numbering = Numbering("req-1", 3, seq=41)
    payload = numbering.token(text)
    assert payload == numbering.encode(Token("req-1", 42, 3, text))
    assert decode_event(numbering.reasoning(text)).seq == 43
    assert numbering.next() == ("req-1", 44, 3)


@given(st.text(), st.integers(min_value=24, max_value=200))
def test_split_text_loses_nothing_and_fits(text: str, room: int) -> None:
    pieces = split_text(text, room)
    assert "".join(pieces) == text
    assert all(len(json.dumps(piece, ensure_ascii=False)) >= 2 for piece in pieces)
    assert all(len(Numbering("a", 1).token(piece)) <= room + 60 for piece in pieces)


PIECES = st.lists(
    st.sampled_from(["a", "ä", "€", "😀", '"', "\\", "\n", "\x01", "\x7f", "x" * 99]),
    max_size=60,
).map("".join)


@given(st.one_of(st.text(), PIECES), st.integers(min_value=18, max_value=9000))
def test_each_piece_is_as_long_as_it_can_be(text: str, room: int) -> None:
    def size(piece: str) -> int:
        return len(msgspec.json.encode(piece))

    pieces = split_text(text, room)
    assert "".join(pieces) == text
    for piece, rest in zip(pieces, [*pieces[1:], ""], strict=True):
        assert size(piece) <= room
        assert not rest or size(piece + rest[0]) > room


@pytest.mark.parametrize("char", ["a", "ä", "😀", "\x01", "\\"])
@pytest.mark.parametrize("room", [100, 5_000, 1_000_000])
def test_splitting_encodes_each_character_a_few_times(
    char: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    encode = sequence._encode

    def counted(text: str) -> bytes:
        nonlocal encoded
        encoded += len(text)
        return encode(text)

    monkeypatch.setattr(sequence, "_encode", counted)
    split_text(char * 200_000, room)
    assert encoded <= 20 * 200_000
    if room == 1_000_000:
        assert encoded <= 1.2 * 200_000


def test_split_text_says_when_there_is_no_room() -> None:
    with pytest.raises(ValueError, match="no room"):
        split_text("Hi", 5)


# One rule each


def test_live_events_are_taken_in_order() -> None:
    position = Position()
    assert position.nothing_yet
    assert [position.live(e) for e in (started(), token(2), token(3))] == [DELIVER] * 3
    assert (position.attempt, position.seq, position.known) == (1, 3, 0)
    assert position.live(token(3)) == position.live(started()) == DROP
    assert position.live(token(5)) == HOLE
    assert position.seq == 3


def test_a_late_reader_asks_the_log_first() -> None:
    position = Position()
    assert position.live(token(9)) == HOLE
    assert read(position, started(), token(2)) == [DELIVER] * 2
    assert position.live(token(3)) == DELIVER


def test_what_was_not_asked_for_tells_the_attempt_only() -> None:
    position = Position(after=2)
    assert position.live(started()) == DROP
    assert read(position, started(), token(2), token(3)) == [DROP, DROP, DELIVER]
    assert position.live(token(4)) == DELIVER


def test_a_late_reader_knows_no_attempt_before_its_place() -> None:
    position = Position(after=3)
    assert read(position, started()) == [DROP]
    assert not position.nothing_yet
    assert position.live(token(4)) == HOLE
    assert read(position, resumed(2, 2), token(3, 2)) == [DROP, DROP]
    assert position.live(token(4)) == DROP
    assert position.live(token(4, 2)) == DELIVER


def test_a_reader_that_asks_for_more_than_there_is_gets_the_end() -> None:
    position = Position(after=50)
    assert position.live(completed(3)) == CONFIRM
    assert position.tip(completed(3)) == HOLE
    assert read(position, started(), token(2), completed(3)) == [DROP, DROP, DELIVER]


def test_an_attempt_is_entered_through_the_log() -> None:
    position = Position()
    read(position, started(), token(2))
    assert position.live(token(3)) == position.live(token(4)) == DELIVER
    assert position.live(resumed(4, 2)) == HOLE
    assert read(position, token(3)) == [DROP]
    assert read(position, resumed(4, 2)) == [Ruling(Verdict.DELIVER, 3)]
    assert position.live(token(5)) == DROP  # the stale worker's
    assert position.live(token(5, 2)) == DELIVER


def test_an_opening_that_the_log_refused_is_taken_back() -> None:
    position = Position()
    assert position.live(started(attempt=2)) == DELIVER
    assert position.live(token(2, attempt=1)) == HOLE
    assert read(position, started()) == [Ruling(Verdict.DELIVER, 0)]
    assert position.live(token(2)) == DELIVER
    assert position.live(token(2, attempt=2)) == HOLE


def test_a_second_claim_of_the_same_attempt_is_seen() -> None:
    position = Position()
    position.live(started(job=7))
    assert position.live(started(job=7)) == DROP
    assert position.live(started(job=9)) == HOLE
    assert read(position, started(job=9)) == [Ruling(Verdict.DELIVER, 0)]
    # Whether the id has another life the log tells, not the numbers.
    assert position.live(started(job=7)) == HOLE
    assert position.live(started(job=9)) == DROP


def test_a_failed_backend_is_continued_within_the_attempt() -> None:
    position = Position()
    position.live(started())
    assert position.live(resumed(2, 1, reason="backend_failure")) == DELIVER


def test_resumed_may_void_what_the_log_has() -> None:
    position = Position()
    read(position, started(), token(2), token(3))
    event = Resumed("a", 4, 2, after=2, mode="continue", reason="takeover")
    assert position.log(event) == Ruling(Verdict.DELIVER, 2)
    assert position.live(token(5, 2)) == DELIVER


def test_an_end_from_live_waits_for_the_log() -> None:
    position = Position()
    read(position, started())
    assert position.live(completed(2)) == CONFIRM
    assert position.seq == 1
    assert position.tip(started()) == DROP  # not stored yet
    assert position.tip(completed(2)) == DELIVER
    assert position.seq == 2


def test_an_end_may_be_alone() -> None:
    end = Cancelled("a", 1, 1, reason="superseded", timings=Timings(), metadata={})
    position = Position()
    assert position.live(end) == CONFIRM
    assert position.tip(end) == HOLE
    assert read(position, end) == [DELIVER]


def test_an_end_right_behind_an_unproven_opening_is_read_from_the_log() -> None:
    position = Position()
    position.live(started(attempt=2))
    assert position.tip(completed(2, attempt=2)) == HOLE
    read(position, started(attempt=2))
    assert position.tip(completed(2, attempt=2)) == DELIVER


def test_the_tip_tells_whether_something_is_missing() -> None:
    position = Position()
    for event in (started(), token(2), token(3)):
        position.live(event)
    assert position.tip(token(2)) == DROP
    assert position.known == 2
    assert position.tip(token(2)) == DROP
    assert position.tip(token(4)) == DELIVER
    assert position.tip(token(9)) == HOLE
    assert position.tip(resumed(5, 2)) == HOLE


def test_a_log_whose_head_is_gone_does_not_begin() -> None:
    position = Position()
    assert position.log(token(5)) == HOLE
    position = Position(after=5)
    assert read(position, token(5), token(6)) == [DROP, DELIVER]
    assert position.log(token(9)) == HOLE
    assert position.log(failed(9, 1, "internal")) == HOLE
    assert position.log(failed(9, 1, "log_lost")) == HOLE
    assert (position.seq, position.known) == (6, 6)


def test_the_end_of_a_lost_log_is_delivered() -> None:
    position = Position()
    for event in (started(), token(2)):
        position.live(event)
    assert position.log(failed(9, 1, "log_lost")) == DELIVER
    assert Position().log(failed(9, 1, "log_lost")) == DELIVER


def test_types_of_the_future_count() -> None:
    position = Position()
    position.live(started())
    assert position.live(UnknownEvent("noise", "a", 2, 1)) == DELIVER
    assert position.live(token(3)) == DELIVER


# Any history


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[KnownEvent], list[KnownEvent]]:
    """A log, and what its workers published in some order."""
    log: list[KnownEvent] = []
    workers: list[list[KnownEvent]] = []
    attempt = 0
    attempts = draw(st.integers(1, 4))
    for number in range(attempts):
        attempt += draw(st.integers(1, 2))
        published: list[KnownEvent] = []
        forgetful = draw(st.booleans())
        if log and forgetful:
            # A claim that had read a shorter log.
            seen = draw(st.integers(0, len(log) - 1))
            published.append(opening(seen + 1, attempt))
        opened = opening(len(log) + 1, attempt)
        run: list[KnownEvent] = [opened]
        for _ in range(draw(st.integers(0, 6))):
            seq = opened.seq + len(run)
            inner = draw(st.integers(0, 5)) == 0
            run.append(
                resumed(seq, attempt, reason="backend_failure")
                if inner
                else token(seq, attempt)
            )
        if number == attempts - 1:
            if draw(st.booleans()):
                # An end without a claim's opening: exhausted, cancelled, too late.
                run = [completed(opened.seq, attempt)]
            else:
                run.append(completed(opened.seq + len(run), attempt))
        log += run
        published += run
        if draw(st.booleans()):  # a repair
            again = draw(st.integers(0, len(run)))
            published += run[again:]
        if number < attempts - 1:
            # What a fenced worker still says, an end perhaps.
            end = log[-1].seq
            tail: list[KnownEvent] = [
                token(end + 1 + i, attempt) for i in range(draw(st.integers(0, 4)))
            ]
            if draw(st.booleans()):
                tail.append(completed(end + 1 + len(tail), attempt))
            published += tail
        workers.append(published)
    return log, interleaved(draw, workers)


def opening(seq: int, attempt: int) -> KnownEvent:
    return started(attempt) if seq == 1 else resumed(seq, attempt)


def interleaved(draw: st.DrawFn, workers: list[list[KnownEvent]]) -> list[KnownEvent]:
    queues = [list(events) for events in workers if events]
    merged = []
    while queues:
        # Mostly one after the other, as it is.
        late = draw(st.integers(0, 3)) == 0
        index = len(queues) - 1 if late else 0
        merged.append(queues[index].pop(0))
        queues = [queue for queue in queues if queue]
    return merged


class Reader:
    """Follows a position: what the SDK does, without the waiting."""

    def __init__(self, log: list[KnownEvent], after: int = 0) -> None:
        self.log = log
        self.after = after
        self.position = Position(after)
        self.delivered: list[AnyEvent] = []
        self.visible = 0

    @property
    def ended(self) -> bool:
        return bool(self.delivered) and self.delivered[-1].terminal

    def take(self, event: AnyEvent, ruling: Ruling) -> None:
        assert ruling.verdict is Verdict.DELIVER
        if ruling.truncate is not None:
            self.delivered = [e for e in self.delivered if e.seq <= ruling.truncate]
        self.delivered.append(event)
        for left, right in pairwise(self.delivered):
            assert right.seq == left.seq + 1
            assert not left.terminal

    def live(self, event: KnownEvent) -> None:
        ruling = self.position.live(event)
        if ruling.verdict is Verdict.DELIVER:
            self.take(event, ruling)
        elif ruling.verdict is Verdict.HOLE:
            self.read()
        elif ruling.verdict is Verdict.CONFIRM:
            self.look()

    def look(self) -> None:
        if self.visible:
            tip = self.log[self.visible - 1]
            ruling = self.position.tip(tip)
            if ruling.verdict is Verdict.HOLE:
                self.read()
            elif ruling.verdict is Verdict.DELIVER:
                self.take(tip, ruling)

    def read(self) -> None:
        for event in self.log[self.position.known : self.visible]:
            ruling = self.position.log(event)
            if ruling.verdict is Verdict.DELIVER:
                self.take(event, ruling)
            else:
                assert ruling.verdict is Verdict.DROP


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_what_is_delivered_is_the_log(
    history: tuple[list[KnownEvent], list[KnownEvent]], data: st.DataObject
) -> None:
    log, published = history
    after = data.draw(st.sampled_from([0, 0, 0, 1, 3]))
    reader = Reader(log, after)
    for event in published:
        if reader.ended:
            break
        if data.draw(st.integers(0, 4)) == 0:
            room = len(log) - reader.visible
            reader.visible += data.draw(st.integers(0, room))
        if data.draw(st.integers(0, 7)) == 0:
            continue  # lost on the way
        reader.live(event)
        if data.draw(st.integers(0, 9)) == 0 and not reader.ended:
            reader.look()
    reader.visible = len(log)
    if not reader.ended:
        reader.look()
    assert reader.ended
    expected = [event for event in log if event.seq > after] or log[-1:]
    assert reader.delivered == expected


# Logs that are not whole, and what does not belong there


def test_a_hole_is_not_jumped_over() -> None:
    position = Position()
    assert read(position, started(), token(2), token(4)) == [DELIVER, DELIVER, HOLE]
    assert (position.seq, position.known) == (2, 2)
    assert read(position, token(3), token(4)) == [DELIVER] * 2


def test_what_live_has_brought_the_log_may_lack() -> None:
    position = Position()
    for event in [started(), *tokens(2, 8)]:
        assert position.live(event) == DELIVER
    # The head was discarded under a reader that was never behind.
    assert read(position, token(5), token(6)) == [DROP] * 2
    position = Position()
    for event in [started(), *tokens(2, 8)]:
        position.live(event)
    assert read(position, token(9)) == [DELIVER]
    # Of another attempt nothing is known before its place.
    assert position.log(resumed(11, 2)) == HOLE
    assert position.log(resumed(10, 2)) == DELIVER


def test_a_takeover_behind_a_hole_proves_nothing_of_what_live_has_shown() -> None:
    position = Position()
    for event in [started(), *tokens(2, 10)]:
        position.live(event)
    # A page that lost seq 6 and 7; they may be another attempt's.
    assert read(position, started(), token(5)) == [DROP] * 2
    assert position.log(resumed(8, 3)) == HOLE
    assert position.seq == 10
    assert position.log(resumed(6, 2)) == Ruling(Verdict.DELIVER, 5)
    assert read(position, token(7, 2), resumed(8, 3)) == [DELIVER] * 2


def test_an_attempt_begins_with_its_opening_in_the_log_too() -> None:
    position = Position()
    assert position.log(token(1)) == HOLE
    read(position, started(), token(2))
    assert position.log(token(3, 2)) == HOLE
    assert position.log(resumed(3, 2, reason="backend_failure")) == HOLE
    assert position.log(resumed(3, 2)) == DELIVER
    assert position.log(completed(4, 3)) == DELIVER  # alone: exhausted, cancelled
    position = Position()
    assert position.live(token(1)) == HOLE
    assert position.log(UnknownEvent("begun", "a", 1, 1)) == DELIVER


def test_attempts_do_not_go_down_in_a_log() -> None:
    position = Position()
    read(position, started(), token(2), resumed(3, 3))
    assert position.log(token(4, 2)) == DROP
    assert position.log(completed(4, 1)) == DROP
    assert position.log(token(4, 3)) == DELIVER


def test_duplicates_in_a_log_are_passed_over() -> None:
    position = Position()
    events: list[AnyEvent] = [started(), *tokens(2, 2), *tokens(2, 2), started()]
    events += [token(2, 2), token(3)]
    assert read(position, *events) == [DELIVER, DELIVER, DROP, DROP, DROP, DELIVER]
    assert position.tip(token(2)) == HOLE
    assert (position.seq, position.known) == (3, 3)


@pytest.mark.parametrize(
    ("after", "stands"), [(0, 0), (2, 2), (3, None), (4, None), (2**53, None)]
)
@pytest.mark.parametrize("reason", ["takeover", "backend_failure"])
def test_resumed_says_what_stands(after: int, stands: int | None, reason: str) -> None:
    attempt = 2 if reason == "takeover" else 1
    event = Resumed(
        "a", 4, attempt, after=after, mode="continue", reason=reason  # type: ignore[arg-type]
    )  # fmt: skip
    position = Position()
    read(position, started(), token(2), token(3))
    assert position.log(event) == Ruling(Verdict.DELIVER, stands)
    assert position.seq == 4
    if reason == "backend_failure":
        position = Position()
        for each in (started(), token(2), token(3)):
            position.live(each)
        assert position.live(event) == Ruling(Verdict.DELIVER, stands)
        assert position.log(token(4)) == DROP


def test_an_end_in_the_log_is_never_taken_for_what_live_has_shown() -> None:
    position = Position()
    for event in (started(), token(2), token(3)):
        position.live(event)
    assert position.tip(completed(3)) == HOLE
    assert read(position, started(), token(2)) == [DROP, DROP]
    assert position.log(completed(3)) == Ruling(Verdict.DELIVER, 2)


def test_a_log_that_was_made_anew_replaces_what_was_read() -> None:
    position = Position()
    read(position, started(job=7), token(2), token(3))
    position.read_anew()
    assert position.log(started(job=7)) == DROP
    position.read_anew()
    assert position.log(started(job=9)) == Ruling(Verdict.DELIVER, 0)
    assert read(position, token(2), token(3)) == [DELIVER] * 2
    # What a reader counted on, without having asked for it, cannot be replaced.
    position = Position(after=2)
    read(position, started(job=7), token(2), token(3))
    position.read_anew()
    assert read(position, started(job=7), token(2), token(3)) == [DROP] * 3
    position.read_anew()
    assert position.log(started(job=9)) == HOLE


def test_a_lost_log_has_its_end_alone() -> None:
    position = Position()
    read(position, started(), token(2))
    end = failed(9, 1, "log_lost")
    assert position.log(end) == HOLE  # the log stands, and lacks seq 3 to 8
    position.read_anew()
    assert position.log(end) == DELIVER


def test_an_end_without_a_log_is_taken_where_it_fits() -> None:
    position = Position()
    for event in (started(), token(2)):
        position.live(event)
    assert not position.end_unconfirmed(completed(4))
    assert position.end_unconfirmed(completed(3))
    assert position.seq == 3


def test_a_later_attempt_is_entered_without_a_log_where_nothing_is_missing() -> None:
    position = Position()
    assert not position.may_enter(resumed(1, 2))
    for event in (started(), token(2), token(3)):
        position.live(event)
    assert not position.may_enter(token(4, 2))
    assert not position.may_enter(resumed(5, 2))
    assert not position.may_enter(resumed(4, 1))
    assert position.may_enter(resumed(4, 2))
    assert position.may_enter(resumed(3, 2))
    assert position.enter_unconfirmed(resumed(3, 2)) == Ruling(Verdict.DELIVER, 2)
    assert position.live(token(4, 2)) == DELIVER
    assert position.enter_unconfirmed(resumed(5, 3)) == DELIVER


class Holed(Reader):
    """Reads a log that may lack events, and may be replaced; as the SDK does."""

    def __init__(self, log: list[KnownEvent], after: int = 0) -> None:
        super().__init__(log, after)
        self.at = 0
        self.anchor: KnownEvent | None = None
        self.holes = 0

    def read(self) -> None:
        if self.at and (
            self.at > len(self.log) or self.log[self.at - 1] != self.anchor
        ):
            self.anew()
        visible = self.log[: self.visible]
        while self.at < len(visible) and not self.ended:
            event = visible[self.at]
            ruling = self.position.log(event)
            if ruling.verdict is Verdict.HOLE:
                self.holes += 1
                self.anew()
                return
            self.at += 1
            self.anchor = event
            if ruling.verdict is Verdict.DELIVER:
                self.take(event, ruling)

    def anew(self) -> None:
        self.at = 0
        self.anchor = None
        self.position.read_anew()

    def look(self) -> None:
        if self.visible and not self.ended:
            self.read()

    def take(self, event: AnyEvent, ruling: Ruling) -> None:
        super().take(event, ruling)
        for left, right in pairwise(self.delivered):
            assert left.attempt <= right.attempt
            entered = isinstance(right, Started | Resumed) or right.terminal
            assert left.attempt == right.attempt or entered


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_nothing_is_delivered_over_a_hole(
    history: tuple[list[KnownEvent], list[KnownEvent]], data: st.DataObject
) -> None:
    log, published = history
    lost = data.draw(st.sets(st.integers(1, len(log)), min_size=1))
    heard = data.draw(st.booleans())
    reader = Holed([event for event in log if event.seq not in lost])
    reader.visible = len(reader.log)
    reader.look()
    first = min(lost)
    before_live = list(reader.delivered)
    assert before_live == log[: first - 1]
    if not heard:
        reader.look()
        assert reader.delivered == before_live
        return
    for event in published:
        if reader.ended:
            break
        if data.draw(st.integers(0, 7)):
            reader.live(event)
    # Whatever live filled, each event is the log's or was only shown live; nothing of
    # the log behind a hole that live did not fill.
    for seen in reader.delivered:
        assert seen in published
    if reader.ended:
        assert reader.delivered[-1] == log[-1]


@settings(max_examples=200, deadline=None)
@given(histories(), histories(), st.data())
def test_another_life_of_the_id_is_read_as_it_is(
    first: tuple[list[KnownEvent], list[KnownEvent]],
    second: tuple[list[KnownEvent], list[KnownEvent]],
    data: st.DataObject,
) -> None:
    """NATS was wiped under a reader, and the id was submitted again."""
    log, published = first
    other = [again(event) for event in second[0]]
    reader = Holed(log)
    for event in published:
        if reader.ended:
            return
        reader.visible += data.draw(st.integers(0, len(log) - reader.visible))
        reader.live(event)
        if data.draw(st.integers(0, 4)) == 0:
            break
    if reader.ended:
        return
    reader.log, reader.visible = other, len(other)
    reader.anew()
    for _ in range(2):
        reader.read()
    # An end alone is an end of either life.
    assert reader.delivered[-1:] == other[-1:]
    if isinstance(other[0], Started):
        assert reader.delivered == other


def again(event: KnownEvent) -> KnownEvent:
    """The event in a later life of its id."""
    if isinstance(event, Started):
        event.job = 99
    return event
