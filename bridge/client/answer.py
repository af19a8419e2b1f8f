"""The text that stands, put together from the events of a stream."""

from __future__ import annotations

from bisect import bisect_right

from bridge.events import AnyEvent, Reasoning, Resumed, Token


class _Part:
    """Deltas of one kind, each with its seq."""

    __slots__ = ("_deltas", "_seqs")

    def __init__(self) -> None:
        self._deltas: list[str] = []
        self._seqs: list[int] = []

    def add(self, seq: int, delta: str) -> None:
        self._deltas.append(delta)
        self._seqs.append(seq)

    def truncate(self, seq: int) -> None:
        keep = bisect_right(self._seqs, seq)
        del self._deltas[keep:], self._seqs[keep:]

    def join(self, after: int) -> str:
        return "".join(self._deltas[bisect_right(self._seqs, after) :])


class Answer:
    """What the model has said so far, without what became void.

    Void is what `truncate` takes back, and the text before a ``resumed`` with mode
    ``restart``, unless that is taken back itself.
    """

    __slots__ = ("_reasoning", "_restarts", "_text")

    def __init__(self) -> None:
        self._text = _Part()
        self._reasoning = _Part()
        self._restarts: list[int] = []

    def __repr__(self) -> str:
        return f"<Answer {len(self.text)} characters>"

    @property
    def text(self) -> str:
        """The answer's text. Takes time in proportion to its length."""
        return self._text.join(self._begin)

    @property
    def reasoning(self) -> str:
        """The model's reasoning."""
        return self._reasoning.join(self._begin)

    @property
    def _begin(self) -> int:
        return self._restarts[-1] if self._restarts else 0

    def add(self, event: AnyEvent) -> None:
        """Take the next event."""
        if type(event) is Token:
            self._text.add(event.seq, event.text)
        elif type(event) is Reasoning:
            self._reasoning.add(event.seq, event.text)
        elif type(event) is Resumed and event.mode == "restart":
            self._restarts.append(event.seq)

    def truncate(self, seq: int) -> None:
        """Take back what came above ``seq``."""
        self._text.truncate(seq)
        self._reasoning.truncate(seq)
        del self._restarts[bisect_right(self._restarts, seq) :]
