"""Jobs that are not valid: their readers are told, and the jobs are kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from bridge.bus.refusals import LogGone, StartRefused, TooManyBatches
from bridge.errors import InvalidJob
from bridge.generation.case import Case
from bridge.generation.claim import close_to_end
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
    cell, delivery = case.around.cell, case.delivery
    id = read_job_id(delivery.data, delivery.message_id, case.tenant)
    while id is not None and case.tenant != RESERVED_TENANT:
        end = await case.ownership.retried(
            lambda: close_to_end(cell, case.tenant, id, delivery)
        )
        if end is None or end.over:
            break  # another job's, or it has its end
        if await _tell(case, await open_record(id, end), error):
            break
        close_record()
        await case.ownership.pause(CROWDED_S)
    await case.letters.keep(error.code, error.message)
    case.progress.take(Step.BURY)


async def _tell(case: Case, record: Record, error: InvalidJob) -> bool:
    """Publish the log's last event, nearly always its only one; False: again."""
    case.ownership.check()
    event = case.account.failed(record, error)
    try:
        await record.commit(event)
    except TooManyBatches:
        case.around.crowded()
        return False
    except LogGone:
        await case.ownership.remake_streams()
        return False
    except StartRefused as reason:
        log.debug("%r: %s", case, reason)
        return False
    case.account.ended(event)
    return True
