"""An event loop without I/O whose clock jumps from timer to timer."""

from __future__ import annotations

import asyncio
from typing import Any


class Stuck(Exception):
    """Somebody waits, and nothing is scheduled that could wake them."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks and timers; hours pass in no time. Opens no file descriptor.

    ``failures`` collects what would have gone to the loop's exception handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 0.0
        # What `asyncio.BaseEventLoop._run_once` waits with: here, without waiting.
        self._selector = self
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._virtual_now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self._virtual_now += timeout
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
