"""What comes out of events: the text, the notes beside it, JSON, and exit codes."""

from __future__ import annotations

import io
import json

import pytest

from bridge.cli.printers import JsonPrinter, TextPrinter, say_end
from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    ErrorInfo,
    Failed,
    Handover,
    Reasoning,
    Resumed,
    Skipped,
    Timings,
    Token,
    ToolCall,
    UnknownEvent,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def token(seq: int, text: str) -> Token:
    return Token(id="a", seq=seq, attempt=1, text=text)


def resumed(seq: int, after: int, mode: str) -> Resumed:
    return Resumed(
        id="a",
        seq=seq,
        attempt=2,
        after=after,
        mode="continue" if mode == "continue" else "restart",
        reason="takeover",
    )


def completed(calls: list[ToolCall] | None = None) -> Completed:
    return Completed(
        id="a",
        seq=9,
        attempt=1,
        finish_reason="stop",
        tool_calls=calls,
        timings=Timings(),
        backend="b",
        metadata={},
    )


def failed(*, retryable: bool) -> Failed:
    error = ErrorInfo("backend_timeout", "no delta\nin time", retryable)
    return Failed(id="a", seq=2, attempt=1, error=error, timings=Timings(), metadata={})


CANCELLED = Cancelled(
    id="a", seq=2, attempt=1, reason="barge-in", timings=Timings(), metadata={}
)


def printed(*events: AnyEvent, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    printer = TextPrinter(out)
    for event in events:
        printer.show(event)
    printer.close()
    return out.getvalue()


def test_the_text_ends_with_one_newline() -> None:
    assert printed(token(1, "a"), token(2, " b"), completed()) == "a b\n"
    assert printed(token(1, "a\n"), completed()) == "a\n"
    assert printed(token(1, "a")) == "a\n"
    assert printed(completed()) == ""


def test_a_terminal_does_not_obey_the_model() -> None:
    hostile = "a\x1b[2J\x07b\r\n\tc\x9b1m\u200bd"
    shown = printed(token(1, hostile), out=Terminal())
    assert shown == "a[2Jb\n\tc1m\u200bd\n"
    assert printed(token(1, hostile)) == hostile + "\n"


def test_reasoning_and_tool_calls_are_not_the_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    thought = Reasoning(id="a", seq=1, attempt=1, text="hm\x1b")
    call = ToolCall(0, "c1", "weather", '{"city":"Kiel"}')
    assert printed(thought, token(2, "So"), completed([call])) == "So\n"
    err = capsys.readouterr().err
    assert "hm\n" in err
    assert 'tool call: weather({"city":"Kiel"})' in err
    assert "\x1b" not in err.replace("\x1b[", "")


def test_a_restart_is_said_and_begins_a_new_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = (token(1, "old"), resumed(2, 1, "restart"), token(3, "new"))
    assert printed(*events) == "old\nnew\n"
    assert "the text above is void, it starts anew" in capsys.readouterr().err


def test_a_backend_that_failed_is_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = Resumed(
        id="a", seq=2, attempt=1, after=1, mode="restart", reason="backend_failure"
    )
    assert printed(token(1, "old"), again, token(3, "new")) == "old\nnew\n"
    note = "[the backend failed: the text above is void; trying again]\n"
    assert capsys.readouterr().err == note


def test_a_continuation_just_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    handover = Handover(id="a", seq=2, attempt=1)
    assert printed(token(1, "a"), resumed(2, 1, "continue"), token(3, "b")) == "ab\n"
    assert capsys.readouterr().err == ""
    assert printed(token(1, "a"), handover) == "a\n"
    assert "another one goes on" in capsys.readouterr().err


def test_what_became_void_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    printer = TextPrinter(out)
    for seq, text in enumerate(("one", "two", "three"), start=1):
        printer.show(token(seq, text))
    printer.truncate(3)
    assert capsys.readouterr().err == ""
    printer.truncate(1)
    assert "the last 8 characters are void" in capsys.readouterr().err
    printer.show(token(2, "zwei"))
    printer.close()
    assert out.getvalue() == "onetwothree\nzwei\n"


def test_json_is_one_event_a_line_without_unknown_ones() -> None:
    out = io.StringIO()
    printer = JsonPrinter(out)
    printer.show(token(1, "a\nb"))
    printer.show(UnknownEvent("new", "a", 2, 1))
    printer.truncate(0)
    printer.show(CANCELLED)
    printer.close()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == {"type": "token", "id": "a", "seq": 1, "attempt": 1, "text": "a\nb"}
    assert second["type"] == "cancelled"


def test_the_end_is_said_where_it_is_no_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert say_end(completed()) == 0
    assert capsys.readouterr().err == ""
    assert say_end(failed(retryable=True)) == 1
    err = capsys.readouterr().err
    assert err.startswith("failed: backend_timeout: no delta in time; worth another")
    assert say_end(failed(retryable=False)) == 1
    assert capsys.readouterr().err == "failed: backend_timeout: no delta in time\n"
    assert say_end(CANCELLED) == 3
    assert capsys.readouterr().err == "cancelled: barge-in\n"
    assert say_end(None) == 1


def test_a_note_leaves_the_text_of_a_pipe_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = io.StringIO()
    printer = TextPrinter(out)
    printer.show(token(1, "It is "))
    printer.show(Skipped("one", 2, 1, count=2))
    printer.note("NATS is away")
    printer.show(token(3, "safe."))
    printer.close()
    assert out.getvalue() == "It is safe.\n"
    said = capsys.readouterr().err
    assert "2 records of the backend could not be read" in said
    assert "NATS is away" in said
