"""The invariant: the text is that of the events that stand, however they came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.client.answer import Answer
from bridge.events import (
    KnownEvent,
    Reasoning,
    Resumed,
    Token,
    ToolCall,
    ToolCallDelta,
)


def restart(seq: int, mode: str = "restart") -> Resumed:
    return Resumed("a", seq, 1, after=seq - 1, mode=mode, reason="takeover")  # type: ignore[arg-type]


def whole(events: list[KnownEvent]) -> str:
    text = ""
    for event in events:
        if isinstance(event, Token):
            text += event.text
        elif isinstance(event, Resumed) and event.mode == "restart":
            text = ""
    return text


def test_text_and_reasoning_are_apart() -> None:
    answer = Answer()
    for event in (Reasoning("a", 1, 1, "Hm. "), Token("a", 2, 1, "Yes")):
        answer.add(event)
    answer.add(Token("a", 3, 1, "!"))
    assert (answer.text, answer.reasoning) == ("Yes!", "Hm. ")
    answer.truncate(2)
    assert (answer.text, answer.reasoning) == ("Yes", "Hm. ")
    answer.truncate(0)
    assert (answer.text, answer.reasoning) == ("", "")


def test_a_restart_voids_the_text_before_it() -> None:
    answer = Answer()
    answer.add(Token("a", 2, 1, "no"))
    answer.add(restart(3, "continue"))
    assert answer.text == "no"
    answer.add(restart(4))
    assert answer.text == ""
    answer.add(Token("a", 5, 1, "yes"))
    assert answer.text == "yes"


def test_a_restart_that_is_taken_back_voids_nothing() -> None:
    answer = Answer()
    answer.add(Token("a", 2, 1, "yes"))
    answer.add(restart(3))
    answer.add(Token("a", 4, 1, "no"))
    answer.truncate(2)
    assert answer.text == "yes"


def tool(seq: int, index: int, arguments: str = "", **named: str) -> ToolCallDelta:
    return ToolCallDelta("a", seq, 1, index=index, arguments=arguments, **named)


def test_tool_calls_are_put_together() -> None:
    answer = Answer()
    assert answer.tool_calls == []
    answer.add(tool(2, 1, '{"b"', call_id="c2", name="g"))
    answer.add(tool(3, 0, "{", call_id="c1", name="f"))
    answer.add(tool(4, 1, ":2}"))
    answer.add(tool(5, 0, "}"))
    whole = [ToolCall(0, "c1", "f", "{}"), ToolCall(1, "c2", "g", '{"b":2}')]
    assert answer.tool_calls == whole
    answer.truncate(4)
    assert answer.tool_calls == [ToolCall(0, "c1", "f", "{"), whole[1]]


def test_a_restart_voids_tool_calls_and_reasoning() -> None:
    answer = Answer()
    answer.add(Reasoning("a", 2, 1, "Hm. "))
    answer.add(tool(3, 0, "{}", call_id="c1", name="f"))
    answer.add(restart(4))
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("", "", [])
    answer.add(tool(5, 0, "[]", call_id="c2", name="g"))
    assert answer.tool_calls == [ToolCall(0, "c2", "g", "[]")]
    answer.truncate(3)
    assert answer.tool_calls == [ToolCall(0, "c1", "f", "{}")]
    assert answer.reasoning == "Hm. "


@given(
    st.lists(
        st.one_of(
            st.text(max_size=2).map(lambda text: ("token", text)),
            st.just(("restart", "")),
            st.integers(0, 10).map(lambda back: ("truncate", str(back))),
        ),
        max_size=30,
    )
)
def test_any_history(steps: list[tuple[str, str]]) -> None:
    answer, events, seq = Answer(), list[KnownEvent](), 0
    for kind, value in steps:
        if kind == "truncate":
            seq = max(0, seq - int(value))
            events = [event for event in events if event.seq <= seq]
            answer.truncate(seq)
            continue
        seq += 1
        event = Token("a", seq, 1, value) if kind == "token" else restart(seq)
        events.append(event)
        answer.add(event)
    assert answer.text == whole(events)
