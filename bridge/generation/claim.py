"""Whose a delivered job is: what its log and the control stream say.

``docs/protocol.md``, section 4, "Claim". Reading decides nothing for good: the first
batch starts only on the log that was read, and a refused start claims again.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from bridge.bus.batch import older_batches
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.errors import ConnectionLost
from bridge.events import Control, Job, decode_event
from bridge.history import History
from bridge.job import Look, look

#: A log that is read by a direct get may lag behind its leader; so long between two
#: reads, in seconds.
REREAD_S = 0.01

#: A request's cancel counts for a job that was stored so much later, at most, in ns.
AHEAD_OF_JOB_NS = 10_000_000_000

#: After so many reads that do not reach the leader's last event, the claim begins anew.
MAX_READS = 200


class Found(Enum):
    """What the claim of a job came to."""

    FRESH = "fresh"  # nothing in the log: start
    TAKEOVER = "takeover"  # an older attempt's log, closed and read
    STANDS = "stands"  # ended, or a repeat of one that goes on
    NEWER = "newer"  # another worker's


class Claim(NamedTuple):
    """What was found, with the log's history, and a cancel that is kept."""

    found: Found
    history: History
    cancelled: str | None = None


async def claim(cell: Cell, tenant: str, delivery: Delivery, job: Job) -> Claim:
    """Find out whose ``job`` is; close what older attempts have open.

    Raises `BusError` when NATS does not answer. May be cancelled at any point.
    """
    # All asked in one turn, so that looking for a cancel delays nothing.
    log_question = cell.ask_last_stored(tenant, job.id)
    controls = KeptCancels(cell, tenant, delivery, job)
    try:
        stored = await log_question.answer()
        cancelled = await controls.answer()
    finally:
        log_question.forget()
        controls.forget()
    last = decode_event(stored.data) if stored is not None else None
    seen = look(last, delivery.attempt)
    if seen is Look.EMPTY:
        return Claim(Found.FRESH, History(), cancelled)
    if seen is Look.ENDED:
        history = History()
        history.last = last
        return Claim(Found.STANDS, history)
    return await _claim_begun(cell, tenant, delivery, job, cancelled)


async def _claim_begun(
    cell: Cell, tenant: str, delivery: Delivery, job: Job, cancelled: str | None
) -> Claim:
    history = await read_history(cell, tenant, job.id)
    jobs = {delivery.identity}
    if history.started is not None:
        original = history.started.identity
        jobs.add(original)
        if original != delivery.identity:
            if await cell.job_is_stored(original):
                return Claim(Found.STANDS, history)
            # Its owner may have ended it between the two looks.
            history = await read_history(cell, tenant, job.id)
    while True:
        seen = look(history.last, delivery.attempt)
        if seen is Look.ENDED:
            return Claim(Found.STANDS, history)
        if seen is Look.NEWER:
            return Claim(Found.NEWER, history)
        below = max(delivery.attempt, history.attempt + 1)
        await cell.batches.close(older_batches(jobs, below))
        tip = await cell.last_stored(tenant, job.id)
        # An owner that lives repairs what was closed, with a batch that is open then:
        # whatever it stored meanwhile, the closing is to be done again. Its repairs
        # are counted, and so are our rounds.
        if (tip.seq if tip is not None else 0) == history.last_stream_seq:
            return Claim(Found.TAKEOVER, history, cancelled)
        history = await read_history(cell, tenant, job.id)


async def read_history(cell: Cell, tenant: str, id: str) -> History:
    """The whole log, up to what is the leader's last event now.

    Raises `ConnectionLost` when no read reaches that.
    """
    for _ in range(MAX_READS):
        stored = await cell.last_stored(tenant, id)
        history = History()
        async for message in cell.read_log(tenant, id):
            history.receive(decode_event(message.data), message.seq)
        if stored is None or history.last_stream_seq >= stored.seq:
            return history
        await cell.pause(REREAD_S)
    raise ConnectionLost("the log cannot be read up to its last event")


class KeptCancels:
    """Asks for the cancels that are kept for a job, at once."""

    def __init__(self, cell: Cell, tenant: str, delivery: Delivery, job: Job) -> None:
        self._delivery = delivery
        self._request = cell.ask_kept_control(tenant, "request", job.id)
        self._session = None
        if job.session is not None:
            self._session = cell.ask_kept_control(tenant, "session", job.session)

    async def answer(self) -> str | None:
        """The reason of a cancel that applies, or ``None``. Raises `BusError`."""
        request = await self._request.answer()
        if request is not None and cancels_request_job(
            request.control, self._delivery, request.stored_ns
        ):
            return request.control.reason or "cancelled"
        kept = await self._session.answer() if self._session is not None else None
        if kept is None:
            return None
        if not cancels_session_job(kept.control, self._delivery, kept.stored_ns):
            return None
        return kept.control.reason or "cancelled"

    def forget(self) -> None:
        """Wait no longer."""
        self._request.forget()
        if self._session is not None:
            self._session.forget()


async def kept_cancel(
    cell: Cell, tenant: str, delivery: Delivery, job: Job
) -> str | None:
    """The reason of a cancel that is kept for this job, or ``None``."""
    controls = KeptCancels(cell, tenant, delivery, job)
    try:
        return await controls.answer()
    finally:
        controls.forget()


def cancels_request_job(control: Control, delivery: Delivery, at_ns: int) -> bool:
    """Whether a request's control message that was stored at ``at_ns`` ends this job.

    It may be sent before its job; one that is much older was meant for an earlier
    request with that id.
    """
    if control.action != "cancel":
        return False
    return delivery.stored_ns - at_ns <= AHEAD_OF_JOB_NS


def cancels_session_job(control: Control, delivery: Delivery, at_ns: int) -> bool:
    """Whether a session's control message that was stored at ``at_ns`` ends this job.

    A sequence counts for jobs that are older than the message alone: those of a stream
    that was made again are counted anew.
    """
    if control.action != "cancel" or delivery.stored_ns >= at_ns:
        return False
    return control.before is None or delivery.stream_seq < control.before
