"""The text that stands, put together from the events of a stream."""

from __future__ import annotations

from bisect import bisect_right
from typing import Generic, TypeVar

from bridge.events import (
    AnyEvent,
    Reasoning,
    Resumed,
    Token,
    ToolCall,
    ToolCallDelta,
)

T = TypeVar("T")


class _Part(Generic[T]):
    """Deltas of one kind, each with its seq."""

    __slots__ = ("_deltas", "_seqs")

    def __init__(self) -> None:
        self._deltas: list[T] = []
        self._seqs: list[int] = []

    def add(self, seq: int, delta: T) -> None:
        self._deltas.append(delta)
        self._seqs.append(seq)

    def truncate(self, seq: int) -> None:
        keep = bisect_right(self._seqs, seq)
        del self._deltas[keep:], self._seqs[keep:]

    def after(self, seq: int) -> list[T]:
        return self._deltas[bisect_right(self._seqs, seq) :]


class Answer:
    """What the model has said so far, without what became void.

    Void is what `truncate` takes back, and what came before a ``resumed`` with mode
    ``restart``, unless that is taken back itself.
    """

    __slots__ = ("_reasoning", "_restarts", "_text", "_tools")

    def __init__(self) -> None:
        self._text = _Part[str]()
        self._reasoning = _Part[str]()
        self._tools = _Part[ToolCallDelta]()
        self._restarts: list[int] = []

    def __repr__(self) -> str:
        return f"<Answer {len(self.text)} characters>"

    @property
    def text(self) -> str:
        """The answer's text. Takes time in proportion to its length."""
        return "".join(self._text.after(self._begin))

    @property
    def reasoning(self) -> str:
        """The model's reasoning."""
        return "".join(self._reasoning.after(self._begin))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls, by their index; arguments as far as they came."""
        calls: dict[int, ToolCall] = {}
        arguments: dict[int, list[str]] = {}
        for delta in self._tools.after(self._begin):
            call = calls.setdefault(delta.index, ToolCall(delta.index))
            call.call_id = delta.call_id or call.call_id
            call.name = delta.name or call.name
            arguments.setdefault(delta.index, []).append(delta.arguments or "")
        for index, call in calls.items():
            call.arguments = "".join(arguments[index])
        return [calls[index] for index in sorted(calls)]

    @property
    def _begin(self) -> int:
        return self._restarts[-1] if self._restarts else 0

    def add(self, event: AnyEvent) -> None:
        """Take the next event."""
        if type(event) is Token:
            self._text.add(event.seq, event.text)
        elif type(event) is Reasoning:
            self._reasoning.add(event.seq, event.text)
        elif type(event) is ToolCallDelta:
            self._tools.add(event.seq, event)
        elif type(event) is Resumed and event.mode == "restart":
            self._restarts.append(event.seq)

    def truncate(self, seq: int) -> None:
        """Take back what came above ``seq``."""
        for part in (self._text, self._reasoning, self._tools):
            part.truncate(seq)
        del self._restarts[bisect_right(self._restarts, seq) :]
