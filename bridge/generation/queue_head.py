"""The next job of a lane that has no free slot: is its time over?

A worker asks for no jobs while every slot is taken, so a job could pass its deadline in
the queue and its reader would hear nothing until a slot is free. The next one is looked
at now and then, and pulled if it is over: to end it takes no backend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.bus.cell import Cell
from bridge.config import Settings
from bridge.errors import BusError
from bridge.generation.deadline import effective_deadline_ms, read_deadline_ms

log = logging.getLogger(__name__)

#: Between two looks while nothing is over, in seconds.
LOOK_EVERY_S = 1.0


class QueueHead:
    """The first job of a lane that was not delivered yet.

    ``on_overdue`` is called when it has passed its deadline.
    """

    def __init__(
        self,
        cell: Cell,
        lane: str,
        settings: Settings,
        *,
        on_overdue: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._cell = cell
        self._lane = lane
        self._settings = settings
        self._on_overdue = on_overdue
        self._now = now
        self._look_at: float | None = None  # not while a slot is free
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<QueueHead {self._lane}>"

    def look(self) -> None:
        """Look if it is time to. Does not wait.

        To be called while no slot is free, and one more job could be asked for.
        """
        now = self._now()
        if self._look_at is None:
            self._look_at = now + LOOK_EVERY_S
        elif now >= self._look_at and (self._looking is None or self._looking.done()):
            self._look_at = now + LOOK_EVERY_S
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def rest(self) -> None:
        """A slot is free: the next job comes by itself."""
        self._look_at = None

    async def _look(self) -> None:
        try:
            overdue = await self.is_overdue()
        except BusError as error:
            log.debug("lane %s cannot be looked at: %s", self._lane, error)
            return
        if overdue:
            # Whichever is next may be over as well: it is looked at as soon as this one
            # is out of the way.
            self._look_at = self._now()
            self._on_overdue()

    async def is_overdue(self) -> bool:
        """Whether there is such a job, and its deadline has passed. Raises `BusError`.

        The job is not checked: an invalid one is over after the default deadline.
        """
        stored = await self._cell.first_undelivered(self._lane)
        if stored is None:
            return False
        wanted_ms = read_deadline_ms(stored.data)
        deadline_ms = effective_deadline_ms(wanted_ms, self._settings)
        now_ns = self._cell.watch.time.at(self._now())
        return stored.stored_ns + deadline_ms * 1_000_000 <= now_ns

    async def stop(self) -> None:
        """Look no more. Safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None
