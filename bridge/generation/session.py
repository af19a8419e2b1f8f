"""A session's newest request cancels the older ones (section 5, ``supersede``)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bridge.bus.api import WRONG_LAST_SEQUENCE, ApiError
from bridge.bus.cell import Cell, KeptControl
from bridge.errors import BusError, ConnectionLost
from bridge.events import Control

log = logging.getLogger(__name__)

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

#: The reason that the cancelled requests show.
SUPERSEDED = "superseded"

#: Others may publish on the session's subject at the same time; each time one does, it
#: is looked at again.
MAX_TRIES = 20


async def supersede(cell: Cell, tenant: str, session: str, before: int) -> bool:
    """Cancel the session's jobs with a sequence below ``before``.

    Never lowers what stands there: returns True when a newer job has superseded this
    one already. A cancel of the whole session that covers job ``before`` too stays as
    well, and reaches that job by itself. Raises `BusError`. May be cancelled.
    """
    for _ in range(MAX_TRIES):
        kept = await cell.kept_control(tenant, "session", session)
        expected = 0
        if kept is not None:
            expected = kept.stream_seq
            if kept.control.before is not None and kept.control.before >= before:
                return kept.control.before > before
            if await _covers(cell, kept, before):
                return False
        control = Control("cancel", SUPERSEDED, before)
        try:
            await cell.store_control(tenant, "session", session, control, expected)
        except ApiError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
        else:
            return False
    raise ConnectionLost(f"session {session} is cancelled over and over again")


async def _covers(cell: Cell, kept: KeptControl, before: int) -> bool:
    """Whether a cancel without ``before`` ends what ``before`` would, and more.

    Such a one goes by the time at which jobs were stored: jobs above ``before`` that
    were queued then are to end by it, and would not any more if it was replaced.
    """
    if kept.control.action != "cancel" or kept.control.before is not None:
        return False
    job = await cell.jetstream.message(cell.names.jobs, before)
    return job is None or job.stored_at < kept.stored_at


async def supersede_until_done(
    cell: Cell,
    tenant: str,
    session: str,
    before: int,
    *,
    owned: Callable[[], bool],
    on_newer: Callable[[], None],
) -> bool:
    """`supersede`, as long as the job is ours; ``on_newer`` if a newer one did.

    False when the job was lost before that was stored.
    """
    while owned():
        try:
            if await supersede(cell, tenant, session, before):
                on_newer()
            return True
        except BusError as error:
            log.debug("session %s cannot be superseded yet: %s", session, error)
        await cell.pause(RETRY_S)
    return False
