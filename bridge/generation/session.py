"""A session's newest request cancels the older ones (section 5, ``supersede``)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bridge.bus.api import WRONG_LAST_SEQUENCE, ApiError
from bridge.bus.cell import Cell, KeptControl
from bridge.errors import BusError, ConnectionLost
from bridge.events import Control, JobIdentity

log = logging.getLogger(__name__)

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

#: The reason that the cancelled requests show.
SUPERSEDED = "superseded"

#: Others may publish on the session's subject at the same time; each time one does, it
#: is looked at again.
MAX_TRIES = 20


async def supersede(cell: Cell, tenant: str, session: str, job: JobIdentity) -> bool:
    """Cancel the session's jobs that were stored before ``job``.

    Never lowers what stands there: returns True when a newer job has superseded this
    one already. A cancel of the whole session that covers ``job`` too stays as well,
    and reaches that job by itself. What was kept before ``job`` was stored is of its
    past, and may count the sequences of a stream that is no more. Raises `BusError`.
    May be cancelled.
    """
    before = job.stream_seq
    for _ in range(MAX_TRIES):
        kept = await cell.kept_control(tenant, "session", session)
        expected = 0
        if kept is not None:
            expected = kept.stream_seq
            newer = _supersedes_too(kept, job)
            if newer is not None:
                return newer
        control = Control("cancel", SUPERSEDED, before)
        try:
            await cell.store_control(tenant, "session", session, control, expected)
        except ApiError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
        else:
            return False
    raise ConnectionLost(f"session {session} is cancelled over and over again")


def _supersedes_too(kept: KeptControl, job: JobIdentity) -> bool | None:
    """Whether ``kept``, which ends all that ``job`` would, is of a newer job.

    ``None`` where it does not end as much. A cancel without ``before`` goes by the time
    at which jobs were stored: later jobs that were queued then are to end by it, and
    would not any more if it was replaced.
    """
    control = kept.control
    if control.action != "cancel" or kept.stored_ns <= job.stored_ns:
        return None
    if control.before is None:
        return False
    return control.before > job.stream_seq if control.before >= job.stream_seq else None


async def supersede_until_done(
    cell: Cell,
    tenant: str,
    session: str,
    job: JobIdentity,
    *,
    owned: Callable[[], bool],
    on_newer: Callable[[], None],
) -> bool:
    """`supersede`, as long as the job is ours; ``on_newer`` if a newer one did.

    False when the job was lost before that was stored.
    """
    while owned():
        try:
            if await supersede(cell, tenant, session, job):
                on_newer()
            return True
        except BusError as error:
            log.debug("session %s cannot be superseded yet: %s", session, error)
        await cell.pause(RETRY_S)
    return False
