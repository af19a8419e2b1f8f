"""A job that a worker runs: kept claimed while it is served, and then settled."""

from __future__ import annotations

import asyncio
import logging

from bridge.bus.cell import Cell
from bridge.bus.leases import RENEW_AFTER, REPEAT_AFTER, Leases
from bridge.errors import BusError
from bridge.generation.course import Generation
from bridge.job import Settlement
from bridge.slots import LaneLoad

log = logging.getLogger(__name__)


class Running:
    """A generation, its task, and when its lease was last asked to be renewed.

    ``load`` is that of the lane that the job came from.
    """

    __slots__ = (
        "_epoch",
        "_leases",
        "_renewed_at",
        "cell",
        "generation",
        "load",
        "task",
    )

    def __init__(
        self,
        generation: Generation,
        cell: Cell,
        load: LaneLoad,
        leases: Leases,
        now: float,
    ) -> None:
        self.generation = generation
        self.cell = cell
        self.load = load
        self.task: asyncio.Task[None] | None = None
        self._leases = leases
        self._renewed_at = now
        #: Which connection brought the job: behind another one, much may be new.
        self._epoch = cell.connection.reconnects

    def __repr__(self) -> str:
        return f"<Running {self.generation!r}>"

    def sweep(self, now: float) -> None:
        """Called a few times a second: the lease, and what the job waits for."""
        self._renew(now)
        if not self.cell.connection.connected:
            self.generation.heard()  # nobody could be, so nobody is missing
        self.generation.sweep(now)

    def _renew(self, now: float) -> None:
        generation = self.generation
        lease = generation.lease
        wait = lease.ack_wait_s
        if now > lease.until:
            return  # it is another worker's; a sign of life would only disturb
        left = lease.until - now
        due = left < wait * (1 - RENEW_AFTER)
        if due and now - self._renewed_at >= wait * REPEAT_AFTER:
            self._renewed_at = now
            self._leases.renew(generation.delivery, lease.extend)

    async def settlement(self, now: float) -> Settlement:
        """How to settle, or not at all where the job may not be what it was."""
        cell, generation = self.cell, self.generation
        how = generation.settlement
        if how is Settlement.NAK and now > generation.lease.until:
            return Settlement.NOTHING  # from under whoever has it by now
        if how is Settlement.NOTHING or cell.connection.reconnects == self._epoch:
            return how
        try:
            return (
                how
                if await cell.job_stands(generation.delivery)
                else Settlement.NOTHING
            )
        except BusError as error:
            # It is delivered again, and its log says that it has ended.
            log.debug("%r is not settled: %s", generation, error)
            return Settlement.NOTHING
