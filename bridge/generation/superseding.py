"""What one job supersedes: cancelled beside its generation, stored before its ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.events import Job
from bridge.generation.session import supersede_until_done

log = logging.getLogger(__name__)

#: How long a job waits to be acknowledged before the operator is told, in seconds.
SAY_AFTER_S = 5.0


class Superseding:
    """Cancels what the job's session has of older jobs, in a task of its own.

    ``owned`` tells whether the job's lease holds. Close it, so that the task does not
    outlive the job.
    """

    def __init__(
        self, cell: Cell, tenant: str, delivery: Delivery, owned: Callable[[], bool]
    ) -> None:
        self._cell = cell
        self._tenant = tenant
        self._delivery = delivery
        self._owned = owned
        self._session = ""
        self._task: asyncio.Task[bool] | None = None

    def __repr__(self) -> str:
        task = self._task
        state = "not begun" if task is None else "done" if task.done() else "under way"
        return f"<Superseding {state}>"

    def begin(self, job: Job, on_newer: Callable[[], None]) -> None:
        """Begin, if the job asks for it; ``on_newer`` if a newer job supersedes it."""
        if self._task is None and job.supersede and job.session is not None:
            self._session = job.session
            self._task = asyncio.get_running_loop().create_task(
                supersede_until_done(
                    self._cell,
                    self._tenant,
                    job.session,
                    self._delivery.identity,
                    owned=self._owned,
                    on_newer=on_newer,
                )
            )

    async def stored(self) -> bool:
        """Wait until it is stored; False when it was given up, or the job was lost.

        True at once where nothing was begun. May be cancelled.
        """
        task = self._task
        if task is None:
            return True
        await asyncio.wait([task], timeout=SAY_AFTER_S)
        if not task.done():
            log.warning(
                "a cancel of the older requests of session %s cannot be stored; job %d "
                "keeps its slot, and is not acknowledged, until it is",
                self._session,
                self._delivery.stream_seq,
            )
            await asyncio.wait([task])
        return not task.cancelled() and task.result()

    def give_up(self) -> None:
        """Leave it to the next worker of the job. Does nothing once it is stored."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Give up, and wait until the task is over. Safe to call twice."""
        self.give_up()
        if self._task is not None:
            await asyncio.wait([self._task])
