"""A log folded: the text that stands, and what a worker must know to go on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events import (
    AnyEvent,
    Handover,
    Reasoning,
    Resumed,
    ResumeMode,
    Started,
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
