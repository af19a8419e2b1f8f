"""What a request's log says so far: folded from its events, in order.

A worker that takes over goes on from here; nothing else is known of the attempts
before. So the fold also proves the log: events 1…N, each once, attempts in order. What
is no event is passed over and counted. Sans-IO.
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
    """The fold. Feed it with every stored message of the request, in order.

    ``last_stream_seq`` is the stream sequence of the last message, which need not be
    an event.
    """

    def __init__(self) -> None:
        self.started: Started | None = None
        self.last: AnyEvent | None = None
        self.last_stream_seq = 0
        #: Messages that are no events of this log.
        self.passed_over = 0
        #: What is wrong with the log; empty while it is proven whole.
        self.fault = ""
        self.handovers = 0
        self.reasoned = False
        self.tool_calls = False
        self.skipped = 0  # unreadable records of the current text
        self.deltas = 0  # text deltas of the current text
        self.tokens: list[tuple[int, str]] = []  # of the current text
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

    @property
    def over(self) -> bool:
        """Whether the log has its terminal event."""
        return self.last is not None and self.last.terminal

    @property
    def whole(self) -> bool:
        """Whether it holds events 1…N, each once, with attempts that never fall."""
        return not self.fault

    def end_only(self) -> History:
        """The position of a log's end, without its text: for one that is not whole.

        An event that is published behind it takes the next number, and no text.
        """
        end = History()
        end.last, end.last_stream_seq = self.last, self.last_stream_seq
        return end

    def pass_over(self, stream_seq: int) -> None:
        """The next stored message is no event of this log."""
        self.last_stream_seq = stream_seq
        self.passed_over += 1

    def receive(self, event: AnyEvent, stream_seq: int) -> None:
        """Take the next stored event."""
        self.last_stream_seq = stream_seq
        if not self.fault:
            self.fault = self._fault_before(event)
        if self.over:
            return  # nothing counts after the end
        self.last = event
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

    def _fault_before(self, event: AnyEvent) -> str:
        if self.last is not None and self.last.terminal:
            return f"event {event.seq} stands behind the end, event {self.seq}"
        if event.seq != self.seq + 1:
            return f"event {event.seq} stands behind event {self.seq}"
        if event.attempt < self.attempt:
            return (
                f"event {event.seq} of attempt {event.attempt} stands behind attempt "
                f"{self.attempt}"
            )
        return ""

    def _restart(self) -> None:
        self._text = StringIO()
        self.tokens.clear()
        self.deltas = self.skipped = 0
        self.reasoned = self.tool_calls = False
