"""How events come out: as the text that grows, or as JSON, one event a line."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

import click

from bridge.cli import exit_codes
from bridge.cli.output import CONTROL
from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    Event,
    Failed,
    Handover,
    Reasoning,
    Resumed,
    Skipped,
    Token,
    ToolCall,
    UnknownEvent,
    encode,
)


class Printer(Protocol):
    """Prints the events of one request as they come."""

    def show(self, event: AnyEvent) -> None:
        """Print one event; it is on its way when this returns."""

    def truncate(self, seq: int) -> None:
        """What was printed of events above ``seq`` does not stand any more."""

    def note(self, text: str) -> None:
        """Say ``text`` about the request, on stderr."""

    def close(self) -> None:
        """End what was begun: after the last event, whatever it was."""


def make_printer(as_json: bool) -> Printer:
    """The printer that ``--json`` asks for."""
    return JsonPrinter(sys.stdout) if as_json else TextPrinter(sys.stdout)


class JsonPrinter:
    """One event a line, as it is on the wire."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: AnyEvent) -> None:
        """Print one event; types that this version does not know are passed over."""
        if isinstance(event, UnknownEvent):
            return
        self._out.write(encode(event).decode() + "\n")
        self._out.flush()

    def truncate(self, seq: int) -> None:
        """The ``resumed`` event that follows says the same."""

    def note(self, text: str) -> None:
        """Say ``text`` on stderr."""
        say_note(text)

    def close(self) -> None:
        """Nothing is left open."""


class TextPrinter:
    """The answer's text on stdout, everything that is said about it on stderr."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._safe = out.isatty()
        self._open_line = False
        self._reasoning = False
        self._printed: list[tuple[int, int]] = []

    def show(self, event: AnyEvent) -> None:
        """Print what is new with this event."""
        match event:
            case Token():
                self._end_reasoning()
                self._write(event.text)
                self._printed.append((event.seq, len(event.text)))
            case Reasoning():
                self._reason(event.text)
            case Skipped():
                self.note(_skipped(event.count))
            case Handover():
                self.note("the worker hands the request over; another one goes on")
            case Resumed():
                self._resumed(event)
            case Completed() | Failed() | Cancelled():
                self._ended(event)

    def truncate(self, seq: int) -> None:
        """Say how much of the text is void: it cannot be taken back from a pipe."""
        void = 0
        while self._printed and self._printed[-1][0] > seq:
            void += self._printed.pop()[1]
        if void:
            self.close()
            self.note(f"the last {void} characters are void")

    def note(self, text: str) -> None:
        """Say ``text`` on a line of its own; a pipe's or file's text is left alone."""
        if self._safe:
            self.close()
        self._end_reasoning()
        say_note(text)

    def close(self) -> None:
        """End the line that the text stopped in."""
        self._end_reasoning()
        if self._open_line:
            self._write("\n")

    def _resumed(self, event: Resumed) -> None:
        if event.mode == "continue":
            return
        self.close()
        self._printed.clear()
        then = (
            "; trying again"
            if event.reason == "backend_failure"
            else ", it starts anew"
        )
        self.note(f"{_why(event)}: the text above is void{then}")

    def _ended(self, event: Event) -> None:
        if isinstance(event, Completed):
            for call in event.tool_calls or []:
                self.note(_call(call))
        self.close()

    def _reason(self, text: str) -> None:
        # Not the answer, so not on stdout, which may be a file.
        self._reasoning = True
        shown = CONTROL.sub("", text)
        click.echo(click.style(shown, dim=True, italic=True), err=True, nl=False)

    def _end_reasoning(self) -> None:
        if self._reasoning:
            self._reasoning = False
            click.echo(err=True)

    def _write(self, text: str) -> None:
        if not text:
            return
        self._open_line = not text.endswith("\n")
        self._out.write(CONTROL.sub("", text) if self._safe else text)
        self._out.flush()


def _why(event: Resumed) -> str:
    return {
        "takeover": "a worker was lost",
        "handover": "a worker was stopped",
        "backend_failure": "the backend failed",
    }.get(event.reason, event.reason)


def _skipped(count: int) -> str:
    what = "a record" if count == 1 else f"{count} records"
    return f"{what} of the backend could not be read; words may be missing here"


def _call(call: ToolCall) -> str:
    return CONTROL.sub("", f"tool call: {call.name or '?'}({call.arguments})")


def say_note(text: str) -> None:
    """Print ``text`` as the line on stderr that a note is."""
    click.echo(click.style(f"[{text}]", dim=True), err=True)


def say_end(end: AnyEvent | None) -> int:
    """Say on stderr how a request ended where that is no answer; the exit code."""
    match end:
        case Completed():
            return exit_codes.COMPLETED
        case Failed():
            retry = "; worth another try, under a new id" if end.error.retryable else ""
            _say("failed", f"{end.error.code}: {end.error.message}{retry}")
        case Cancelled():
            _say("cancelled", end.reason or "no reason was given")
            return exit_codes.CANCELLED
    return exit_codes.FAILED


def _say(what: str, text: str) -> None:
    line = CONTROL.sub("", " ".join(text.split()))
    click.echo(f"{click.style(f'{what}:', fg='red', bold=True)} {line}", err=True)
