"""The line of figures under an answer: tokens, first token, tokens/s."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    Failed,
    Reasoning,
    Terminal,
    Token,
    ToolCallDelta,
)


class Figures:
    """Counts what one reader saw of a request, from its construction on.

    Where the backend reported its usage, that is the number of tokens; else the
    deltas are counted, which most backends send one per token.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._first: float | None = None
        self._last: float | None = None
        self.deltas = 0
        self.end: Terminal | None = None

    def __repr__(self) -> str:
        return f"<Figures {self.line()}>"

    def take(self, event: AnyEvent) -> None:
        """Count one event."""
        if isinstance(event, Token | Reasoning | ToolCallDelta):
            self._last = self._now()
            if self._first is None:
                self._first = self._last
            self.deltas += 1
        elif isinstance(event, Completed | Failed | Cancelled):
            self.end = event

    @property
    def tokens(self) -> int:
        """The tokens of the answer."""
        usage: dict[str, Any] | None = getattr(self.end, "usage", None)
        reported = usage.get("completion_tokens") if usage else None
        return reported if isinstance(reported, int) else self.deltas

    @property
    def first_token_ms(self) -> float | None:
        """From the construction to the first delta, in ms."""
        return None if self._first is None else (self._first - self._began) * 1000

    @property
    def tokens_per_second(self) -> float | None:
        """The pace from the first delta to the last one."""
        if self._first is None or self._last is None or self._last <= self._first:
            return None
        return (self.tokens - 1) / (self._last - self._first)

    def line(self) -> str:
        """``61 tokens, first after 212 ms, 40.1 tokens/s, stop``."""
        words = [f"{self.tokens} token{'' if self.tokens == 1 else 's'}"]
        if self.first_token_ms is not None:
            words.append(f"first after {self.first_token_ms:.0f} ms")
        if self.tokens_per_second is not None:
            words.append(f"{self.tokens_per_second:.1f} tokens/s")
        return ", ".join([*words, *_ending(self.end)])

    def logged_line(self) -> str:
        """The same of an answer that was read from its log: the bridge's own times."""
        words = [f"{self.tokens} token{'' if self.tokens == 1 else 's'}"]
        timings = self.end.timings if self.end is not None else None
        if timings is not None and timings.first_token_ms is not None:
            words.append(f"first after {timings.first_token_ms} ms")
        if timings is not None and timings.total_ms is not None:
            words.append(f"{timings.total_ms} ms in all")
        return ", ".join([*words, *_ending(self.end)])


def _ending(end: Terminal | None) -> list[str]:
    if isinstance(end, Completed):
        return [end.finish_reason]
    return [end.type] if end is not None else []
