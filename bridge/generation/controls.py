"""What control messages do to a worker's jobs (section 5).

A listener gets a control message before its stream has stored it: a moment earlier, or
seconds, while the stream elects a leader. So neither what is heard nor what is kept is
enough alone: a job that is pulled in between is held against what was `HeardCancels`
lately, and what is kept is looked at again for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.errors import BusError
from bridge.events import Control
from bridge.generation.claim import kept_cancel
from bridge.generation.course import Generation
from bridge.generation.interrupt import Interrupt, Kind
from bridge.subjects import ControlAddress

log = logging.getLogger(__name__)

#: How long a control message may have been on its way when it is heard, in
#: nanoseconds. It does not apply to a job that was stored meanwhile. So for younger
#: jobs, the time at which the message was stored decides.
HEARD_LATE_NS = 5_000_000_000

#: So long until a message is stored for sure, or never will be, in seconds: elections
#: take less.
REMEMBER_S = 5.0

#: Over so many the oldest are forgotten: 1,000 cancels a second for `REMEMBER_S`.
MAX_REMEMBERED = 5000

#: The pauses before each look at what is kept for a running job, `REMEMBER_S` in all.
LOOKS_AFTER_S = (0.0, 0.02, 0.08, 0.4, 1.5, 3.0)

#: While NATS does not answer, so long between two tries, in seconds.
RETRY_S = 0.1

Key = tuple[Cell, ControlAddress]


class Effect(Enum):
    """What a cancel that was heard does to a job."""

    NONE = "none"
    CANCEL = "cancel"
    LOOK = "look"  # was it or the job first? The servers know


def effect(
    kind: str, control: Control, delivery: Delivery, heard_ns: int, bound_ns: int
) -> Effect:
    """What a cancel of a request or session does to a job.

    It was heard at ``heard_ns`` on the servers' clock, which is known to ``bound_ns``.
    """
    if kind == "request":
        return Effect.CANCEL
    if control.before is None:
        sure_ns = heard_ns - bound_ns - HEARD_LATE_NS
    elif delivery.stream_seq < control.before:
        # One stream has one order; only one that was made again meanwhile has not.
        sure_ns = heard_ns - bound_ns
    else:
        return Effect.NONE
    return Effect.CANCEL if delivery.stored_ns < sure_ns else Effect.LOOK


class Heard(NamedTuple):
    """A control message; ``at`` is when it came, on the monotonic clock in seconds."""

    control: Control
    at: float


class HeardCancels:
    """The cancels of the last `REMEMBER_S`, by what they are about."""

    def __init__(self) -> None:
        self._heard: dict[Key, list[Heard]] = {}
        self._order: deque[tuple[float, Key]] = deque()

    def __repr__(self) -> str:
        return f"<HeardCancels {len(self._order)}>"

    def add(self, key: Key, heard: Heard) -> None:
        """Remember a cancel."""
        self._heard.setdefault(key, []).append(heard)
        self._order.append((heard.at, key))
        if len(self._order) > MAX_REMEMBERED:
            self._forget_oldest()

    def of(self, key: Key) -> list[Heard]:
        """What was heard of a request or session, the oldest first."""
        return self._heard.get(key, [])

    def sweep(self, now: float) -> None:
        """Forget what is older than `REMEMBER_S` at ``now``."""
        while self._order and now - self._order[0][0] > REMEMBER_S:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, key = self._order.popleft()
        heard = self._heard[key]
        del heard[0]
        if not heard:
            del self._heard[key]


class Controls:
    """A worker's jobs by request and session, and the cancels that meet them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: More than one by an id where a repeat is looked at beside its original.
        self._jobs: dict[Key, list[Generation]] = {}
        self._heard = HeardCancels()
        self._looking: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Controls looking={len(self._looking)} {self._heard!r}>"

    # Jobs

    def enter(self, cell: Cell, generation: Generation) -> None:
        """A job was pulled; cancels that were heard a moment ago apply to it."""
        for address in _addresses(generation):
            key = (cell, address)
            self._jobs.setdefault(key, []).append(generation)
            for heard in self._heard.of(key):
                self._apply(key, heard, generation)

    def leave(self, cell: Cell, generation: Generation) -> None:
        """The job is this worker's no more, however far it had entered."""
        for address in _addresses(generation):
            key = (cell, address)
            jobs = self._jobs.get(key, [])
            if generation in jobs:
                jobs.remove(generation)
            if not jobs:
                self._jobs.pop(key, None)

    # Messages

    def receive(self, cell: Cell, address: ControlAddress, control: Control) -> None:
        """A control message came: what is sure takes effect before this returns."""
        if address.kind == "lease":
            request = address._replace(kind="request")
            for generation in self._jobs.get((cell, request), ()):
                generation.heard()
        elif control.action == "cancel":
            key, heard = (cell, address), Heard(control, self._now())
            self._heard.add(key, heard)
            for generation in list(self._jobs.get(key, ())):
                self._apply(key, heard, generation)

    def _apply(self, key: Key, heard: Heard, generation: Generation) -> None:
        cell, address = key
        control, delivery = heard.control, generation.delivery
        time = cell.watch.time
        what = effect(address.kind, control, delivery, time.at(heard.at), time.bound_ns)
        if what is Effect.CANCEL:
            _cancel(generation, control.reason)
        elif what is Effect.LOOK:
            self.look(cell, generation)

    def look(self, cell: Cell, generation: Generation) -> None:
        """Apply what is kept for a job, for as long as something may get there."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._look(cell, generation))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, cell: Cell, generation: Generation) -> None:
        for pause_s in LOOKS_AFTER_S:
            if pause_s:
                await cell.pause(pause_s)
            if generation.progress.over:
                return
            reason = await self._kept(cell, generation)
            if reason is not None:
                _cancel(generation, reason)
                return

    async def _kept(self, cell: Cell, generation: Generation) -> str | None:
        job, tenant = generation.job, generation.tenant
        while job is not None and not generation.progress.over:
            try:
                return await kept_cancel(cell, tenant, generation.delivery, job)
            except BusError as error:
                log.debug("%r: cancels cannot be read yet: %s", generation, error)
            await cell.pause(RETRY_S)
        return None

    def sweep(self) -> None:
        """Called a few times a second: forgets what is stored by now."""
        self._heard.sweep(self._now())

    async def stop(self) -> None:
        """Look at nothing any more."""
        looking = list(self._looking)
        for task in looking:
            task.cancel()
        if looking:
            await asyncio.wait(looking)


def _addresses(generation: Generation) -> Iterator[ControlAddress]:
    """What a cancel of this job may be about; nothing where it is not valid."""
    job = generation.job
    if job is not None:
        yield ControlAddress(generation.tenant, "request", job.id)
        if job.session is not None:
            yield ControlAddress(generation.tenant, "session", job.session)


def _cancel(generation: Generation, reason: str) -> None:
    generation.interrupt(Interrupt(Kind.CANCELLED, reason or "cancelled"))
