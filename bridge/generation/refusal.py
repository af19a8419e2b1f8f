"""Jobs that are not valid: their readers are told, and the jobs are kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from bridge.bus.refusals import LogGone, StartRefused, TooManyBatches
from bridge.errors import InvalidJob
from bridge.generation.case import Case
from bridge.generation.record import Record
from bridge.generation.surroundings import CROWDED_S
from bridge.history import History
from bridge.intake import read_job_id
from bridge.job import Step
from bridge.subjects import RESERVED_TENANT

log = logging.getLogger(__name__)

OpenRecord = Callable[[str, History], Awaitable[Record]]


async def refuse(
    case: Case,
    error: InvalidJob,
    *,
    open_record: OpenRecord,
    close_record: Callable[[], None],
) -> None:
    """Tell the reader of a job that is not valid, keep it, terminate it.

    Raises `Fenced` and `Interrupted`.
    """
    cell, id = case.around.cell, read_job_id(case.delivery.data)
    if id is not None and case.tenant != RESERVED_TENANT:
        stored = await case.ownership.retried(lambda: cell.last_stored(case.tenant, id))
        if stored is None:
            while not await _tell(case, await open_record(id, History()), error):
                close_record()
                await case.ownership.pause(CROWDED_S)
    await case.letters.keep(error.code, error.message)
    case.progress.take(Step.BURY)


async def _tell(case: Case, record: Record, error: InvalidJob) -> bool:
    """Publish a log of that one event; False when there was no room for it."""
    event = case.account.failed(record, error)
    try:
        await record.commit(event)
    except TooManyBatches:
        case.around.crowded()
        return False
    except LogGone:
        await case.around.gone()
        return False
    except StartRefused as reason:
        log.debug("%r: %s", case, reason)
    else:
        case.account.ended(event)
    return True
