"""Whether a delivered job is still ours, and waiting for no longer than it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bridge.bus.leases import Lease
from bridge.bus.refusals import Fenced
from bridge.errors import BusError, StreamUnavailable
from bridge.generation.interrupt import Interruption
from bridge.generation.surroundings import Surroundings

log = logging.getLogger(__name__)

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

T = TypeVar("T")


class Ownership:
    """A job's lease, and what cuts its waits off; ``name`` is for the log."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        lease: Lease,
        interruption: Interruption,
    ) -> None:
        self._around = around
        self._name = name
        self.lease = lease
        self.interruption = interruption

    def __repr__(self) -> str:
        return f"<Ownership {self._name} {self.lease!r} {self.interruption!r}>"

    def holds(self) -> bool:
        """Whether the lease is not over."""
        return self._around.now() <= self.lease.until

    def check(self) -> None:
        """Raises `Fenced` once the lease is over."""
        if not self.holds():
            raise Fenced("the lease ran out")

    async def retried(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call until NATS answers or the lease is over.

        Raises `Fenced` and `Interrupted`; an interrupt cancels the call.
        """
        while True:
            self.check()
            self.interruption.check()
            try:
                return await self.interruption.race(call())
            except StreamUnavailable as error:
                if error.gone:
                    await self.remake_streams()
            except BusError as error:
                log.debug("%r tries again: %s", self, error)
            await self.pause(RETRY_S)

    async def remake_streams(self) -> None:
        """Make streams that are missing again, if NATS lets us now."""
        try:
            await self._around.gone()
        except BusError as error:
            log.debug("%r: the streams are not made again yet: %s", self, error)

    async def pause(self, seconds: float) -> None:
        """Wait a moment between two tries. Raises `Interrupted`."""
        work: Coroutine[Any, Any, None] = self._around.cell.pause(seconds)
        await self.interruption.race(work)
