"""A job that a worker runs: kept claimed while it is served, and then settled."""

from __future__ import annotations

import asyncio
import logging

from bridge.bus.cell import Cell
from bridge.bus.leases import RENEW_AFTER, REPEAT_AFTER, Leases
from bridge.errors import BusError
from bridge.generation.course import Generation
from bridge.generation.interrupt import Interrupt, Kind
from bridge.job import Settlement
from bridge.slots import LaneLoad

log = logging.getLogger(__name__)


class Running:
    """A generation, its task, and when its lease was last asked to be renewed.

    ``load`` is that of the lane that the job came from. Where the stream of the jobs
    may have become another, the job is read and compared before anything is renewed
    or settled: what names it may name another job there.
    """

    __slots__ = (
        "_checking",
        "_epoch",
        "_leases",
        "_renewed_at",
        "cell",
        "generation",
        "load",
        "stored",
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
        #: False once the stream was seen without the job: it ends in its log, and
        #: there is nothing to renew or to settle.
        self.stored = True
        #: The epoch of the stream in which the job was last known to be there.
        self._epoch = cell.watch.epoch
        self._checking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Running {self.generation!r}>"

    def give_back(self) -> None:
        """The drain time is over: hand the request over, or end it.

        A job that is in no stream any more would not be delivered again.
        """
        if self.stored:
            self.generation.give_back()
        else:
            reason = "the worker drains, and the job is in no stream any more"
            self.generation.interrupt(Interrupt(Kind.JOB_GONE, reason))

    def sweep(self, now: float) -> None:
        """Called a few times a second: the lease, and what the job waits for."""
        if not self.cell.connection.connected:
            self.generation.heard()  # nobody could be, so nobody is missing
        elif self._doubtful:
            self._check()
        self._renew(now)
        self.generation.sweep(now)

    @property
    def _doubtful(self) -> bool:
        return self.stored and self._epoch != self.cell.watch.epoch

    def _unheard(self) -> None:
        """No server serves the consumer that had brought the job."""
        self._epoch = -1

    def _check(self) -> None:
        if self._checking is None or self._checking.done():
            checking = self._look_and_renew()
            self._checking = asyncio.get_running_loop().create_task(checking)

    async def _look_and_renew(self) -> None:
        try:
            await self._look()
        except BusError as error:
            log.debug("%r cannot be looked for yet: %s", self, error)
        else:
            self._renew(self._leases.now())

    async def _look(self) -> None:
        """Ask whether the stream still has the job. Raises `BusError`."""
        epoch = self.cell.watch.epoch
        generation = self.generation
        if await self.cell.job_is_stored(generation.delivery.identity):
            self._epoch = epoch
        elif self.stored:
            log.warning("%r: its job is in no stream any more", generation)
            self.stored = False
            if self._leases.now() <= generation.lease.until:
                generation.lease.keep()

    def close(self) -> None:
        """Look no more."""
        if self._checking is not None:
            self._checking.cancel()

    def _renew(self, now: float) -> None:
        if not self.stored or self._doubtful:
            return
        generation = self.generation
        lease = generation.lease
        wait = lease.ack_wait_s
        if now > lease.until:
            return  # it is another worker's; a sign of life would only disturb
        left = lease.until - now
        due = left < wait * (1 - RENEW_AFTER)
        if due and now - self._renewed_at >= wait * REPEAT_AFTER:
            self._renewed_at = now
            self._leases.renew(generation.delivery, lease.extend, self._unheard)

    async def settlement(self, now: float) -> Settlement:
        """How to settle, or not at all where the job may not be what it was."""
        generation = self.generation
        how = generation.settlement
        if how is Settlement.NAK and now > generation.lease.until:
            return Settlement.NOTHING  # from under whoever has it by now
        if how is Settlement.NOTHING:
            return how
        try:
            while self._doubtful:
                await self._look()
        except BusError as error:
            # It is delivered again, and its log says that it has ended.
            log.debug("%r is not settled: %s", generation, error)
            return Settlement.NOTHING
        return how if self.stored else Settlement.NOTHING
