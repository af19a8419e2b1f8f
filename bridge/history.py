"""What a request's log says so far: folded from its events, in order.

A worker that takes over goes on from here; nothing else is known of the attempts
before. Sans-IO.
"""

from __future__ import annotations

from io import StringIO

from bridge.events import (
    AnyEvent,
    Handover,
    Reasoning,
    Resumed,
    Skipped,
    Started,
    Token,
    ToolCallDelta,
)


class History:
    """The fold. Feed `receive` with every stored event of the request, in order."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.last: AnyEvent | None = None
        self.last_stream_seq = 0
        self.handovers = 0
        self.reasoned = False
        self.tool_calls = False
        self.skipped = 0  # unreadable records of the text that stands
        self.deltas = 0  # text deltas of the text that stands
        self.tokens: list[tuple[int, str]] = []  # of the text that stands
        self._text = StringIO()

    def __repr__(self) -> str:
        return f"<History seq={self.seq} attempt={self.attempt} deltas={self.deltas}>"

    @property
    def seq(self) -> int:
        """The number of the last event; 0 for an empty log."""
        return self.last.seq if self.last is not None else 0

    @property
    def attempt(self) -> int:
        """The attempt of the last event; 0 for an empty log."""
        return self.last.attempt if self.last is not None else 0

    @property
    def text(self) -> str:
        """The text that stands."""
        return self._text.getvalue()

    @property
    def continuable(self) -> bool:
        """Whether what stands is plain text that a backend could go on with."""
        return not self.reasoned and not self.tool_calls

    def receive(self, event: AnyEvent, stream_seq: int) -> None:
        """Take the next stored event."""
        self.last = event
        self.last_stream_seq = stream_seq
        if isinstance(event, Token):
            self._text.write(event.text)
            self.tokens.append((event.seq, event.text))
            self.deltas += 1
        elif isinstance(event, Started):
            self.started = event
        elif isinstance(event, Reasoning):
            self.reasoned = True
        elif isinstance(event, ToolCallDelta):
            self.tool_calls = True
        elif isinstance(event, Skipped):
            self.skipped += event.count
        elif isinstance(event, Handover):
            self.handovers += 1
        elif isinstance(event, Resumed) and event.mode == "restart":
            self._restart()

    def _restart(self) -> None:
        self._text = StringIO()
        self.tokens.clear()
        self.deltas = self.skipped = 0
        self.reasoned = self.tool_calls = False
