"""What cuts a generation off, and waiting that it can cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Kind(Enum):
    """Why a generation is cut off."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    DRAIN = "drain"
    LOG_GONE = "log gone"
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
    """At most one interrupt, which ends every wait made through `race`."""

    def __init__(self) -> None:
        self._fired: asyncio.Future[Interrupt] = (
            asyncio.get_running_loop().create_future()
        )

    def __repr__(self) -> str:
        state = self._fired.result() if self._fired.done() else "not fired"
        return f"<Interruption {state}>"

    @property
    def fired(self) -> bool:
        """Whether an interrupt came."""
        return self._fired.done()

    def fire(self, interrupt: Interrupt) -> bool:
        """Interrupt; False when another one came first."""
        if self._fired.done():
            return False
        self._fired.set_result(interrupt)
        return True

    def check(self) -> None:
        """Raises `Interrupted` if an interrupt came."""
        if self._fired.done():
            raise Interrupted(self._fired.result())

    async def race(
        self, work: Coroutine[Any, Any, T], undo: Callable[[T], None] | None = None
    ) -> T:
        """Await ``work``; raises `Interrupted`, and cancels it, if that comes first.

        ``undo`` gets what ``work`` returned although it was too late.
        """
        return await self.race_task(asyncio.get_running_loop().create_task(work), undo)

    async def race_task(
        self, task: asyncio.Task[T], undo: Callable[[T], None] | None = None
    ) -> T:
        """The same for a task; raises `asyncio.CancelledError` when it is cancelled."""
        try:
            await self.race_future(task)
        except BaseException:
            await _end(task, undo)
            raise
        return task.result()

    async def race_future(self, future: asyncio.Future[Any]) -> None:
        """Wait until ``future`` is done; raises `Interrupted` if that comes first."""
        if not (future.done() or self._fired.done()):
            # What asyncio.wait does, without its sets: a request waits three times.
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def wake(_: object) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            future.add_done_callback(wake)
            self._fired.add_done_callback(wake)
            try:
                await waiter
            finally:
                future.remove_done_callback(wake)
                self._fired.remove_done_callback(wake)
        self.check()


async def _end(task: asyncio.Task[T], undo: Callable[[T], None] | None) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())
