"""The demo's answers side by side, while they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bridge.cli.figures import Figures
from bridge.events import Completed, KnownEvent

#: A panel narrower than this shows three words a line: then one column is better.
MIN_PANEL_WIDTH = 38

#: A finished line of plain output: long enough to be a sentence, short enough to fit.
PLAIN_LINE_CHARS = 72


@dataclass
class Answer:
    """One request of the demo, as far as its reader has it."""

    number: int
    prompt: str
    id: str
    text: str = ""
    state: str = "queued"
    proven: bool | None = None
    events: int = 0
    figures: Figures = field(default_factory=Figures)

    def take(self, event: KnownEvent, text: str) -> None:
        """Go on by one event; ``text`` is what stands after it."""
        self.figures.take(event)
        self.events = event.seq
        self.text = text
        if event.terminal:
            self.state = event.type
        else:
            self.state = "streaming" if text else "started"

    @property
    def good(self) -> bool:
        """Whether it ended with its whole text."""
        return isinstance(self.figures.end, Completed)


class Board(Protocol):
    """Shows the answers while they grow, inside a ``with`` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *exc: object) -> None:
        """End, leaving the last state on the terminal."""

    def changed(self, answer: Answer) -> None:
        """Show what is new in ``answer``."""


def make_board(console: Console, answers: list[Answer]) -> Board:
    """Panels where ``console`` is a terminal, lines where it is not."""
    return Panels(console, answers) if console.is_terminal else Lines(console, answers)


class Panels:
    """A panel for each answer, redrawn some times a second."""

    def __init__(self, console: Console, answers: list[Answer]) -> None:
        self._answers = answers
        self._live = Live(self, console=console, refresh_per_second=15, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def changed(self, answer: Answer) -> None:
        """Nothing to do: the next redraw shows it."""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        columns = 2 if options.max_width >= 2 * MIN_PANEL_WIDTH else 1
        rows = -(-len(self._answers) // columns)
        height = max(4, min(9, (console.height - 2) // rows))
        inner = options.max_width // columns - 4
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        for at in range(0, len(self._answers), columns):
            some = self._answers[at : at + columns]
            grid.add_row(*(_panel(console, a, inner, height) for a in some))
        yield Group(grid)


def _panel(console: Console, answer: Answer, width: int, height: int) -> Panel:
    # The last lines that fit: what is being written is what one wants to see.
    lines = Text(answer.text.replace("\n\n", "\n")).wrap(console, width)
    shown = Text("\n").join(lines[-(height - 2) :])
    colour = {"completed": "green", "streaming": "cyan"}.get(answer.state, "dim")
    return Panel(
        shown,
        title=Text(f"{answer.number} {answer.prompt}", style="bold"),
        title_align="left",
        subtitle=Text(f"{answer.state}, {answer.figures.tokens} tokens", style=colour),
        subtitle_align="right",
        border_style=colour,
        box=box.ROUNDED,
        height=height,
    )


class Lines:
    """Whole lines as they come, with the request's number before each."""

    def __init__(self, console: Console, answers: list[Answer]) -> None:
        self._console = console
        self._answers = answers
        self._shown = [0] * len(answers)

    def __enter__(self) -> Self:
        for answer in self._answers:
            self._say(answer, f"? {answer.prompt}")
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def changed(self, answer: Answer) -> None:
        """Print what has grown to a line, and the rest once the answer has ended."""
        for line in self._new_lines(answer):
            self._say(answer, line)
        if answer.figures.end is not None:
            self._say(answer, f"= {answer.figures.line()}")

    def _new_lines(self, answer: Answer) -> Iterator[str]:
        at = answer.number - 1
        ended = answer.figures.end is not None
        rest = answer.text[self._shown[at] :]
        while rest and (ended or len(rest) > PLAIN_LINE_CHARS or "\n" in rest):
            length = _break(rest)
            line, rest = rest[:length], rest[length:]
            self._shown[at] += length
            if line.strip():
                yield line.strip()

    def _say(self, answer: Answer, line: str) -> None:
        self._console.print(
            Text(f"[{answer.number}] {line}"), soft_wrap=True, highlight=False
        )


def _break(text: str) -> int:
    """Where the first line of ``text`` ends: a line break, or a space that fits."""
    start = text[:PLAIN_LINE_CHARS]
    if "\n" in start:
        return start.index("\n") + 1
    if len(text) <= PLAIN_LINE_CHARS:
        return len(text)
    return start.rfind(" ") + 1 or PLAIN_LINE_CHARS
