"""What cuts a generation off, and waiting that it can cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Kind(Enum):
    """Why a generation is cut off."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    DRAIN = "drain"
    LOG_GONE = "log gone"
    JOB_GONE = "job gone"  # it drains, and the job will not be delivered again
    LOST = "lost"  # the job is another worker's


class Interrupt(NamedTuple):
    """One interrupt; ``reason`` is what the controller or the log said."""

    kind: Kind
    reason: str


class Interrupted(Exception):
    """Raised where a wait was cut off."""

    def __init__(self, interrupt: Interrupt) -> None:
        super().__init__(f"{interrupt.kind.value}: {interrupt.reason}")
        self.interrupt = interrupt


class Interruption:
    """At most one interrupt, which ends the wait that is made through `race`."""

    __slots__ = ("_fired", "_racing")

    def __init__(self) -> None:
        self._fired: Interrupt | None = None
        self._racing: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        return f"<Interruption {self._fired or 'not fired'}>"

    @property
    def fired(self) -> bool:
        """Whether an interrupt came."""
        return self._fired is not None

    def fire(self, interrupt: Interrupt) -> bool:
        """Interrupt; False when another one came first."""
        if self._fired is not None:
            return False
        self._fired = interrupt
        if self._racing is not None:
            self._racing.cancel()
        return True

    def check(self) -> None:
        """Raises `Interrupted` if an interrupt came."""
        if self._fired is not None:
            raise Interrupted(self._fired)

    async def race(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """Await ``work``; raises `Interrupted`, and cancels it, if that comes first.

        Cancels as `asyncio.timeout` does: the task that waits, and counted, so that it
        nests with others and a cancel from outside stays one. A ``work`` that finishes
        all the same has finished: the next race, or `check`, raises.
        """
        task = asyncio.current_task()
        assert task is not None
        if self.fired and asyncio.iscoroutine(work):
            work.close()
        self.check()
        cancelling = task.cancelling()
        self._racing = task
        try:
            return await work
        except asyncio.CancelledError:
            if task.cancelling() == cancelling + 1:
                self.check()
            raise
        finally:
            self._racing = None
            if self.fired:
                task.uncancel()
