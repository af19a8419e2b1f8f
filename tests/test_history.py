"""A log folded: the text that stands, and what a worker must know to go on."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events import (
    AnyEvent,
    Cancelled,
    Handover,
    Reasoning,
    Resumed,
    ResumeMode,
    Started,
    Timings,
    Token,
    ToolCallDelta,
    UnknownEvent,
)
from bridge.history import History


def folded(*events: AnyEvent) -> History:
    history = History()
    for stream_seq, event in enumerate(events, 100):
        history.receive(event, stream_seq)
    return history


def started(seq: int = 1) -> Started:
    return Started(
        "a", seq, 1, v=1, model="m", created=0, queue_ms=0, job=7, metadata={}
    )


def resumed(seq: int, attempt: int, mode: ResumeMode) -> Resumed:
    return Resumed("a", seq, attempt, after=seq - 1, mode=mode, reason="takeover")


def test_an_empty_log() -> None:
    history = History()
    assert (history.seq, history.attempt, history.text) == (0, 0, "")
    assert history.last is None
    assert history.started is None
    assert history.continuable


def test_a_plain_log() -> None:
    history = folded(started(), Token("a", 2, 1, "Hel"), Token("a", 3, 1, "lo"))
    assert history.started == started()
    assert (history.seq, history.attempt) == (3, 1)
    assert (history.text, history.deltas) == ("Hello", 2)
    assert history.tokens == [(2, "Hel"), (3, "lo")]
    assert history.last_stream_seq == 102
    assert history.continuable
    assert repr(history) == "<History seq=3 attempt=1 deltas=2>"


def test_a_restart_voids_and_a_continuation_does_not() -> None:
    before = (started(), Token("a", 2, 1, "Hel"))
    history = folded(*before, resumed(3, 2, "continue"), Token("a", 4, 2, "lo"))
    assert (history.text, history.attempt) == ("Hello", 2)
    history = folded(*before, resumed(3, 2, "restart"), Token("a", 4, 2, "Hi"))
    assert (history.text, history.deltas) == ("Hi", 1)
    assert history.tokens == [(4, "Hi")]
    assert history.started == started()


def test_reasoning_and_tool_calls_cannot_be_continued() -> None:
    reasoned = folded(started(), Reasoning("a", 2, 1, "hm"))
    assert not reasoned.continuable
    called = folded(started(), ToolCallDelta("a", 2, 1, index=0))
    assert not called.continuable
    for history in (reasoned, called):
        history.receive(resumed(3, 2, "restart"), 200)
        assert history.continuable


def test_handovers_are_counted_over_all_attempts() -> None:
    history = folded(
        started(),
        Handover("a", 2, 1),
        resumed(3, 2, "restart"),
        Handover("a", 4, 2),
    )
    assert history.handovers == 2
    assert history.last == Handover("a", 4, 2)


def test_unknown_events_count_as_events() -> None:
    history = folded(started(), UnknownEvent("later", "a", 2, 3))
    assert (history.seq, history.attempt, history.text) == (2, 3, "")


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(), st.sampled_from(["continue", "restart"]))))
def test_the_text_is_what_came_since_the_last_restart(parts: list[str]) -> None:
    history = History()
    expected = ""
    for seq, part in enumerate(parts, 1):
        if part == "continue":
            history.receive(resumed(seq, seq, "continue"), seq)
        elif part == "restart":
            history.receive(resumed(seq, seq, "restart"), seq)
            expected = ""
        else:
            history.receive(Token("a", seq, seq, part), seq)
            expected += part
    assert history.text == expected == "".join(text for _, text in history.tokens)
    assert history.deltas == len(history.tokens)


# Proven


def token(seq: int, attempt: int = 1) -> Token:
    return Token("a", seq, attempt, f"{seq} ")


def end(seq: int, attempt: int = 1) -> Cancelled:
    return Cancelled("a", seq, attempt, reason="r", timings=Timings(), metadata={})


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([], ""),
        ([started()], ""),
        ([started(), token(2), token(3)], ""),
        ([started(), token(2), resumed(3, 4, "continue"), token(4, 4)], ""),
        ([token(1, 3)], ""),
        ([token(2)], "event 2 stands behind event 0"),
        ([token(5), token(6)], "event 5 stands behind event 0"),
        ([started(), token(3)], "event 3 stands behind event 1"),
        ([started(), token(2), token(2)], "event 2 stands behind event 2"),
        ([started(), token(2), token(1)], "event 1 stands behind event 2"),
        ([started(), token(3), token(2)], "event 3 stands behind event 1"),
        (
            [started(), resumed(2, 3, "continue"), token(3, 2)],
            "event 3 of attempt 2 stands behind attempt 3",
        ),
        ([started(), end(2), token(3)], "event 3 stands behind the end, event 2"),
    ],
)
def test_a_log_is_whole_or_says_where_not(events: list[AnyEvent], fault: str) -> None:
    history = folded(*events)
    assert history.fault == fault
    assert history.whole is (not fault)


def test_what_is_no_event_is_passed_over_and_counted() -> None:
    history = History()
    history.pass_over(7)
    assert (history.last, history.last_stream_seq, history.seq) == (None, 7, 0)
    history.receive(started(), 8)
    history.pass_over(9)
    history.receive(token(2), 11)
    history.pass_over(12)
    assert history.last == token(2)
    assert (history.seq, history.last_stream_seq) == (2, 12)
    assert history.passed_over == 3
    assert history.whole


def test_nothing_stands_behind_the_end() -> None:
    history = folded(started(), end(2), token(3, 2))
    assert history.over
    assert history.last == end(2)
    assert history.last_stream_seq == 102
    assert not folded(started(), token(2)).over


def test_the_end_alone_says_where_a_log_stands_and_no_text() -> None:
    history = folded(token(4), token(5, 2)).end_only()
    assert (history.seq, history.attempt, history.last_stream_seq) == (5, 2, 101)
    assert (history.text, history.tokens, history.deltas) == ("", [], 0)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.randoms())
def test_a_log_that_misses_anything_is_not_whole(
    kept: list[bool], random: Random
) -> None:
    events: list[AnyEvent] = [started()]
    events += [token(n) for n in range(2, len(kept) + 1)]
    left = [event for event, keep in zip(events, kept, strict=True) if keep]
    # Missing at the end is not to be seen here: the leader's last message tells.
    assert folded(*left).whole is (left == events[: len(left)])
    if len(left) > 1:
        random.shuffle(left)
        assert folded(*left).whole is (left == events[: len(left)])
