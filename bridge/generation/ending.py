"""How a request's log comes to its last event, also where an outage took the log."""

from __future__ import annotations

import logging

from bridge.bus.refusals import LogGone, TooManyBatches
from bridge.errors import (
    BridgeError,
    BusError,
    DeadlineExceeded,
    GenerationError,
    InternalError,
    LogLost,
)
from bridge.events import Terminal
from bridge.generation.case import Case
from bridge.generation.interrupt import Interrupt, Interrupted, Kind
from bridge.generation.orphan import is_orphaned
from bridge.generation.ownership import RETRY_S
from bridge.generation.record import Record
from bridge.job import State, Step

log = logging.getLogger(__name__)

#: States of a request whose log has begun, and is this worker's to write.
BEGUN = (State.RUNNING, State.ENDING, State.HANDING_OVER)


class Ending:
    """The ends of one delivered job, made when it came.

    Each publishes a last event, proves it, and takes the steps that go with it. They
    raise `Fenced` when the job is another worker's by then, and may be cancelled.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._epoch = case.around.cell.connection.reconnects

    def __repr__(self) -> str:
        return f"<Ending {self._case!r}>"

    async def stop(self, record: Record, stop: Interrupt) -> None:
        """End, or give up, what an interrupt has cut off.

        Raises `Interrupted` where that leaves nothing to be published.
        """
        case = self._case
        if stop.kind is Kind.CANCELLED:
            timings = case.account.timings()
            await self.end(record, record.cancelled(stop.reason, timings))
        elif stop.kind is Kind.DEADLINE:
            await self.fail(record, DeadlineExceeded("the deadline passed"))
        elif stop.kind is Kind.DRAIN:
            case.ownership.check()
            case.progress.take(Step.HAND_OVER)
            try:
                await record.hand_over()
            except LogGone as gone:
                await self._log_lost(record, str(gone))
                return
            case.progress.take(Step.PROVEN)
        elif stop.kind is Kind.JOB_GONE:
            await self.fail(record, InternalError(stop.reason))
        elif stop.kind is Kind.LOG_GONE:
            await self._log_lost(record, stop.reason)
        else:
            raise Interrupted(stop)

    async def fail(self, record: Record, error: GenerationError) -> None:
        """End by an error."""
        await self.end(record, self._case.account.failed(record, error))

    async def end(self, record: Record, event: Terminal) -> None:
        """Publish the terminal event and prove the whole log.

        Raises `LogGone` where the event would have been the only one: nothing is lost.
        """
        case = self._case
        case.ownership.check()
        case.progress.take(Step.END)
        try:
            await record.commit(event)
        except LogGone as gone:
            if event.seq == 1:
                raise
            await self._log_lost(record, str(gone))
            return
        case.account.ended(event)
        await self.settle(event)

    async def settle(self, event: Terminal) -> None:
        """Take the steps that go with an end that is proven.

        The job is acknowledged once its dead letter, if it gets one, and what it
        supersedes are stored. Given up by a drain, it goes to the next worker.
        """
        case = self._case
        await case.letters.keep_if_due(event)
        if await case.superseding.stored():
            case.progress.take(Step.PROVEN)
            return
        case.ownership.check()
        case.progress.take(Step.HAND_OVER)

    async def _log_lost(self, record: Record, reason: str) -> None:
        """The log's stream was gone: the one that is made again gets the end."""
        case = self._case
        case.progress.take(Step.LOSE_LOG)
        error = LogLost(f"the stream of the log is gone: {reason}")
        event = case.account.failed(record, error)
        while True:
            case.ownership.check()
            try:
                await case.around.gone()
                await record.begin_anew(event)
                case.ownership.check()
                await record.commit(event)
                break
            except TooManyBatches:
                case.around.crowded()
            except (LogGone, BusError) as again:
                log.debug("%r: %s", self, again)
            await case.around.cell.pause(RETRY_S)
        case.account.ended(event)
        await self.settle(event)

    async def end_orphan(self, record: Record, id: str) -> bool:
        """End a request that an outage has cut off from its job and its log.

        Its job is in no stream, so that nothing of it is to be settled. False where it
        is another worker's to end, or could not be ended.
        """
        case = self._case
        cell = case.around.cell
        if case.progress.state not in BEGUN:
            return False
        if cell.connection.connected and not self._outlived:
            return False
        record.close()
        if not await is_orphaned(cell, case.tenant, id, case.delivery):
            return False
        case.progress.take(Step.LOSE_LOG)
        lost = LogLost("the server came back without the streams of job and log")
        event = case.account.failed(record, lost)
        while True:
            try:
                await case.around.gone()
                await record.begin_anew(event)
                await record.commit(event)
                break
            except (LogGone, TooManyBatches, BusError) as again:
                log.debug("%r: %s", self, again)
            except BridgeError as reason:
                log.warning("%r could not be ended: %s", case, reason)
                return False
            await cell.pause(RETRY_S)
        case.account.ended(event)
        return True

    @property
    def _outlived(self) -> bool:
        """Whether the connection that had brought the job is gone."""
        return self._case.around.cell.connection.reconnects != self._epoch
