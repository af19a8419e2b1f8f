"""A session's newest request cancels the older ones (section 5, ``supersede``)."""

from __future__ import annotations

from bridge.bus.api import WRONG_LAST_SEQUENCE, ApiError
from bridge.bus.cell import Cell
from bridge.errors import ConnectionLost
from bridge.events import Control

#: The reason that the cancelled requests show.
SUPERSEDED = "superseded"

#: Others may publish on the session's subject at the same time; each time one does, it
#: is looked at again.
MAX_TRIES = 20


async def supersede(cell: Cell, tenant: str, session: str, before: int) -> bool:
    """Cancel the session's jobs with a sequence below ``before``.

    Never lowers what stands there: returns True when a newer job has superseded this
    one already. Raises `BusError`. May be cancelled.
    """
    for _ in range(MAX_TRIES):
        kept = await cell.kept_control(tenant, "session", session)
        expected = 0
        if kept is not None:
            expected = kept.stream_seq
            if kept.control.before is not None and kept.control.before >= before:
                return kept.control.before > before
        control = Control("cancel", SUPERSEDED, before)
        try:
            await cell.store_control(tenant, "session", session, control, expected)
        except ApiError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
        else:
            return False
    raise ConnectionLost(f"session {session} is cancelled over and over again")
