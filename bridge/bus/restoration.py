"""Streams that are gone while jobs are served: made again, and not too often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.bus.cell import Cell
from bridge.bus.streams import Lane, Setup
from bridge.errors import BridgeError

log = logging.getLogger(__name__)

#: A missing stream is made again at most so often, in seconds.
REMAKE_S = 1.0


class Restoration:
    """Keeps the streams of a worker's cells there, as ``setup`` allows."""

    def __init__(self, setup: Setup, now: Callable[[], float]) -> None:
        self._setup = setup
        self._now = now
        self._lanes: dict[Cell, list[Lane]] = {}
        self._remade_at: dict[Cell, float] = {}
        self._remaking = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Restoration cells={len(self._lanes)}>"

    def add(self, cell: Cell, lane: Lane) -> None:
        """Serve this lane, too."""
        self._lanes.setdefault(cell, []).append(lane)

    async def remake(self, cell: Cell) -> None:
        """Make streams that are gone again. Raises `BusError`."""
        async with self._remaking:
            if self._now() - self._remade_at.get(cell, -REMAKE_S) < REMAKE_S:
                return
            self._remade_at[cell] = self._now()
            log.error("a stream of prefix %s is gone", cell.subjects.prefix)
            await cell.ensure(self._lanes.get(cell, []), self._setup)

    def look(self, cell: Cell) -> None:
        """Nobody serves a lane: its stream or consumer may be gone. Does not wait."""
        if self._restoring is None or self._restoring.done():
            restoring = self._try_to_restore(cell)
            self._restoring = asyncio.get_running_loop().create_task(restoring)

    async def _try_to_restore(self, cell: Cell) -> None:
        try:
            await cell.ensure(self._lanes.get(cell, []), self._setup)
        except BridgeError as error:
            log.warning("jobs of prefix %s: %s", cell.subjects.prefix, error)
        await asyncio.sleep(REMAKE_S)

    async def stop(self) -> None:
        """Restore nothing more on its own. Safe to call twice."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait([self._restoring])
            self._restoring = None
