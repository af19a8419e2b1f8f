"""The worker: takes as many jobs as it has slots, keeps their leases, lets them go.

Stop is not drain. `Worker.drain` takes no new jobs, lets the running ones finish and
hands over what is left when the time is up; `Worker.stop` abandons everything at once
and settles nothing, so that other workers take over after ``ack_wait``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bridge.backends.http import Backends
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery, LanePull, settle
from bridge.bus.leases import Lease, Leases
from bridge.bus.restoration import Restoration
from bridge.bus.streams import Lane
from bridge.config import Settings
from bridge.errors import BusError
from bridge.generation.controls import Controls
from bridge.generation.course import Generation
from bridge.generation.queue_head import QueueHead
from bridge.generation.running import Running
from bridge.generation.surroundings import Surroundings
from bridge.job import Settlement
from bridge.metrics import Meters
from bridge.slots import LaneLoad, asks, may_exceed

log = logging.getLogger(__name__)

#: Leases, deadlines and silences are looked at so often, in seconds.
SWEEP_S = 0.1

#: Each time, at least so many of the running jobs are looked at, and a fourth of them
#: all; so many at once, for everybody's tokens wait meanwhile.
SWEEP_AT_LEAST = 64
SWEEP_TURNS = 4
SWEEP_SLICE = 32

#: After the server had too many open batches, nothing new is asked for so long, in s.
CROWDED_S = 1.0

#: After a handover or ack at the end of a drain, so long for the server to read it.
FLUSH_S = 2.0

#: The longest that handing everything over may take: a commit is a round trip, so this
#: is for a NATS that comes back; Kubernetes kills at 30 s.
HAND_OVER_S = 4.0


class _Source(NamedTuple):
    """One lane of one cell, with its pulls."""

    cell: Cell
    lane: Lane
    pull: LanePull
    load: LaneLoad
    head: QueueHead


class Worker:
    """Serves jobs of all lanes of its cells."""

    def __init__(
        self,
        cells: list[Cell],
        backends: Backends,
        settings: Settings,
        meters: Meters,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cells = cells
        self._backends = backends
        self._settings = settings
        self._meters = meters
        self._now = now
        self._sources: list[_Source] = []
        self._leases: dict[Cell, Leases] = {}
        self._running: set[Running] = set()
        self._rota: deque[Running] = deque()
        self._controls = Controls(now)
        self._taking = False
        self._crowded_until = 0.0
        self._restoration = Restoration(settings.stream_setup, now)
        self._sweeping: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        state = "taking jobs" if self._taking else "not taking jobs"
        return f"<Worker {state} running={len(self._running)}>"

    @property
    def running(self) -> int:
        """How many jobs occupy a slot."""
        return len(self._running)

    @property
    def taking(self) -> bool:
        """Whether the worker asks for jobs."""
        return self._taking

    async def start(self) -> None:
        """Listen for cancels, then ask for jobs. Raises `ConnectionLost`."""
        for cell in self._cells:
            await cell.open()
            leases = self._leases[cell] = Leases(cell.connection, self._now)
            await leases.open()
            await cell.listen_control(partial(self._controls.receive, cell))
            for name, lane_settings in self._settings.lanes.items():
                lane = Lane(name, self._settings.ack_wait_of(name))
                load = LaneLoad(reserved=lane_settings.reserved_slots)
                await self._add(cell, lane, load)
        for connection in {cell.connection for cell in self._cells}:
            connection.on_reconnected.append(self._reconnected)
        self._taking = True
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep_for_ever())
        self._ask()

    async def _add(self, cell: Cell, lane: Lane, load: LaneLoad) -> None:
        pull = LanePull(
            cell.connection,
            cell.names.jobs,
            lane.name,
            ack_wait_s=lane.ack_wait_s,
            on_job=lambda delivery: self._take(source, delivery),
            on_change=self._pull_ended,
            now=self._now,
        )
        head = QueueHead(
            cell,
            lane.name,
            self._settings,
            on_overdue=lambda: self._exceed(source),
            now=self._now,
        )
        source = _Source(cell, lane, pull, load, head)
        await pull.open()
        self._sources.append(source)
        self._restoration.add(cell, lane)

    # Taking jobs

    def _pull_ended(self) -> None:
        for source in self._sources:
            source.load.idle = source.pull.empty_handed
        self._ask()

    def _ask(self) -> None:
        """Ask for as many jobs as there are slots for."""
        if not self._taking or self._now() < self._crowded_until:
            return
        slots, loads = self._settings.slots, self._loads()
        wanted = asks(slots, loads)
        for source, jobs in zip(self._sources, wanted, strict=True):
            if not source.cell.connection.connected:
                continue
            if jobs > 0:
                source.head.rest()
                self._ask_for(source, jobs)
            elif not source.load.asked and may_exceed(slots, loads):
                source.head.look()  # all slots are taken

    def _loads(self) -> list[LaneLoad]:
        for source in self._sources:
            source.load.asked = source.pull.reserved
        return [source.load for source in self._sources]

    def _ask_for(self, source: _Source, jobs: int) -> None:
        try:
            source.pull.ask(jobs)
        except BusError as error:
            log.warning("cannot ask for jobs: %s", error)

    def _exceed(self, source: _Source) -> None:
        """Ask for one job more than there are slots, if there is none already.

        For one that is over. If it is another one that comes, it is served all the
        same.
        """
        if not self._taking or not source.cell.connection.connected:
            return
        if may_exceed(self._settings.slots, self._loads()) and not source.load.asked:
            self._ask_for(source, 1)

    def _take(self, source: _Source, delivery: Delivery) -> None:
        now = self._now()
        source.load.idle = False
        running = None
        try:
            running = self._running_job(source, delivery, now)
            self._controls.enter(running.cell, running.generation)
        except Exception:
            # It is delivered again: another try, or another worker, may be luckier.
            log.exception("job %d cannot be taken", delivery.stream_seq)
            if running is not None:
                self._controls.leave(running.cell, running.generation)
                running.close()
            return
        source.load.running += 1
        self._running.add(running)
        self._rota.append(running)
        self._idle.clear()
        running.task = asyncio.get_running_loop().create_task(self._serve(running))

    def _running_job(self, source: _Source, delivery: Delivery, now: float) -> Running:
        cell = source.cell
        address = cell.subjects.parse_job(delivery.subject)
        generation = Generation(
            Surroundings(
                cell=cell,
                backends=self._backends,
                settings=self._settings,
                meters=self._meters,
                now=self._now,
                crowded=self._crowded,
                gone=partial(self._restoration.remake, cell),
            ),
            address.tenant if address is not None else None,
            delivery,
            Lease(now, source.lane.ack_wait_s),
        )
        return Running(generation, cell, source.load, self._leases[cell], now)

    async def _serve(self, running: Running) -> None:
        generation = running.generation
        try:
            await generation.run()
            how = await running.settlement(self._now())
        finally:
            self._finished(running)
        settle(running.cell.connection, generation.delivery, how)
        if how is not Settlement.NOTHING:
            log.debug("%r: %s", generation, how.name)
        self._ask()

    def _finished(self, running: Running) -> None:
        self._running.discard(running)
        running.close()
        running.load.running -= 1
        self._controls.leave(running.cell, running.generation)
        if not self._running:
            self._idle.set()

    def _crowded(self) -> None:
        if self._now() >= self._crowded_until:
            log.warning(
                "the NATS server has as many open batches as it allows; raise "
                "limits.batch.max_inflight_per_stream, or lower slots"
            )
        self._crowded_until = self._now() + CROWDED_S

    def _reconnected(self) -> None:
        """Cancels may have been missed, and pulls are gone with their server."""
        for source in self._sources:
            source.pull.reset()
        for running in self._running:
            self._controls.look(running.cell, running.generation)
        self._ask()

    # Sweeping

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            due = max(SWEEP_AT_LEAST, len(self._rota) // SWEEP_TURNS)
            due = min(due, len(self._rota))
            try:
                for done in range(0, due, SWEEP_SLICE):
                    self._sweep_jobs(min(SWEEP_SLICE, due - done))
                    await asyncio.sleep(0)
                self._sweep(self._now())
            except Exception:
                log.exception("a sweep failed")

    def _sweep_jobs(self, count: int) -> None:
        now = self._now()
        for _ in range(min(count, len(self._rota))):
            running = self._rota.popleft()
            if running in self._running:
                self._rota.append(running)
                running.sweep(now)

    def _sweep(self, now: float) -> None:
        self._controls.sweep()
        for cell in self._cells:
            cell.sweep(now)
            cell.watch.sweep(now)
        for leases in self._leases.values():
            leases.sweep(now, self._settings.ack_wait_s)
        for source in self._sources:
            source.pull.sweep(now)
            if source.pull.missing:
                self._restoration.look(source.cell)
        self._ask()

    # Ending

    async def drain(self, timeout_s: float) -> None:
        """Take no new jobs, let the running ones end; hand over the rest in the end.

        ``timeout_s`` is for the running jobs; the handover takes a moment more. May be
        cancelled, which leaves the rest of the jobs to others.
        """
        self._taking = False
        await asyncio.gather(*(source.pull.close() for source in self._sources))
        if self._running:
            log.info("draining: %d requests are running", len(self._running))
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            await self._hand_over()
        await self._stop_sweeping()
        for cell in self._cells:
            if cell.connection.connected:
                try:
                    await cell.connection.flush(FLUSH_S)
                except BusError as error:
                    log.warning("the last acknowledgements may be lost: %s", error)

    async def _hand_over(self) -> None:
        log.info("handing over %d requests", len(self._running))
        for running in list(self._running):
            running.give_back()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._idle.wait()
        except TimeoutError:
            log.error(
                "%d requests could not be handed over; others take over after ack_wait",
                len(self._running),
            )
            await self.stop()

    async def stop(self) -> None:
        """Abandon everything at once; settles nothing."""
        self._taking = False
        await self._stop_sweeping()
        tasks = [r.task for r in self._running if r.task is not None]
        await self._controls.stop()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
            self._sweeping = None
        for cell in self._cells:
            await cell.watch.stop()
        for source in self._sources:
            await source.head.stop()
        await self._restoration.stop()
