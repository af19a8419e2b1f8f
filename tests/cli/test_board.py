"""The demo's boards: panels on a terminal, whole lines elsewhere."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bridge.cli.board import PLAIN_LINE_CHARS, Answer, Lines, Panels, make_board
from bridge.events import Completed, ErrorInfo, Failed, Timings, Token

TEXT = "One [bold]sentence[/bold]. " * 12


def completed(seq: int) -> Completed:
    return Completed(
        id="a",
        seq=seq,
        attempt=1,
        finish_reason="stop",
        timings=Timings(),
        backend="b",
        metadata={},
    )


def feed(board: Panels | Lines, answer: Answer, deltas: list[str]) -> None:
    text = ""
    for seq, delta in enumerate(deltas, start=1):
        text += delta
        answer.take(Token(id="a", seq=seq, attempt=1, text=delta), text)
        board.changed(answer)
    answer.take(completed(len(deltas) + 1), text)
    board.changed(answer)


# Rich leaves control characters out.
PRINTABLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
DELTAS = st.lists(st.text(PRINTABLE | st.just("\n"), max_size=200), max_size=20)


@given(DELTAS)
def test_lines_have_the_whole_text_and_none_is_long(deltas: list[str]) -> None:
    out = io.StringIO()
    answer = Answer(1, "Why?", "a")
    with Lines(Console(file=out, width=80), [answer]) as board:
        feed(board, answer, deltas)
    seen = out.getvalue().removesuffix("\n").split("\n")
    assert seen[0] == "[1] ? Why?"
    assert seen[-1].startswith("[1] = ")
    lines = [line.removeprefix("[1] ") for line in seen[1:-1]]
    assert all(len(line) <= PLAIN_LINE_CHARS for line in lines)
    assert "".join("".join(lines).split()) == "".join("".join(deltas).split())


def test_a_line_is_printed_before_the_answer_has_ended() -> None:
    out = io.StringIO()
    answer = Answer(2, "Why?", "a")
    board = Lines(Console(file=out, width=80), [Answer(1, "x", "b"), answer])
    answer.take(Token(id="a", seq=1, attempt=1, text=TEXT), TEXT)
    board.changed(answer)
    assert "[2] One [bold]sentence[/bold]." in out.getvalue()
    assert all(line.startswith("[2] ") for line in out.getvalue().splitlines())
    assert answer.figures.end is None


def rendered(width: int, height: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True)
    answers = [Answer(number, "Why?", "a") for number in (1, 2, 3)]
    answers[0].take(Token(id="a", seq=1, attempt=1, text=TEXT), TEXT + "the end")
    answers[1].take(completed(2), "short")
    board = Panels(console, answers)
    with console.capture() as capture:
        console.print(board)
    return capture.get()


def test_panels_show_the_end_of_each_text_side_by_side() -> None:
    shown = rendered(100, 40)
    first = shown.splitlines()[0]
    assert first.count("Why?") == 2
    assert "the end" in shown
    assert "[bold]" in shown
    assert "streaming, 1 tokens" in shown
    assert "completed" in shown
    assert "queued" in shown


def test_a_narrow_and_low_terminal_has_one_column_that_fits() -> None:
    shown = rendered(60, 16)
    assert shown.splitlines()[0].count("Why?") == 1
    assert len(shown.splitlines()) <= 16


def test_the_console_decides() -> None:
    answers: list[Answer] = []
    assert isinstance(make_board(Console(force_terminal=True), answers), Panels)
    assert isinstance(make_board(Console(file=io.StringIO()), answers), Lines)


def test_only_a_completed_answer_is_good() -> None:
    answer = Answer(1, "Why?", "a")
    assert not answer.good
    error = ErrorInfo("internal", "x", retryable=True)
    failed = Failed(
        id="a", seq=1, attempt=1, error=error, timings=Timings(), metadata={}
    )
    answer.take(failed, "")
    assert (answer.state, answer.good) == ("failed", False)
    answer.take(completed(2), "x")
    assert (answer.state, answer.good, answer.events) == ("completed", True, 2)
