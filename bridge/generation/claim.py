"""Whose a delivered job is: what its log and the control stream say.

``docs/protocol.md``, section 4, "Claim". Reading decides nothing for good: the first
batch starts only on the log that was read, and a refused start claims again.
"""

from __future__ import annotations

import logging
from enum import Enum
from functools import partial
from typing import NamedTuple

from bridge.bus.batch import older_batches
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.log import find_last, find_next
from bridge.bus.refusals import Fenced
from bridge.errors import ConnectionLost
from bridge.events import AnyEvent, Control, Job, JobIdentity, Started, event_in
from bridge.history import History
from bridge.job import Look, look

log = logging.getLogger(__name__)

#: How much later than a request's cancel a job may be stored and still be cancelled by
#: it, in nanoseconds.
AHEAD_OF_JOB_NS = 10_000_000_000

#: How long to wait between the first two reads of a log, and at most between two later
#: ones, in seconds: what a direct get reads may lag behind the leader.
REREAD_S = 0.01
REREAD_AT_MOST_S = 0.25

#: How long a log that is not whole is read again, in seconds. Replicas and ingest that
#: is queued catch up in milliseconds.
PROVE_S = 2.0


class Found(Enum):
    """What the claim of a job came to."""

    FRESH = "fresh"  # nothing in the log: start
    TAKEOVER = "takeover"  # an older attempt's log, closed and read
    STANDS = "stands"  # ended, or a repeat of one that goes on
    NEWER = "newer"  # another worker's
    LOST = "lost"  # an older attempt's log, closed, of which a part is missing


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
    if stored is None:
        return Claim(Found.FRESH, History(), cancelled)
    last = event_in(job.id, stored.data)
    if last is not None and last.terminal:
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
        if seen is Look.EMPTY:
            return Claim(Found.FRESH, history, cancelled)
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
            return _taken_over(history, cancelled)
        history = await read_history(cell, tenant, job.id)


def _taken_over(history: History, cancelled: str | None) -> Claim:
    """The claim of a log that is closed and read; only a whole one is continued."""
    if history.passed_over:
        log.warning(
            "%d messages in the log of %s are not events",
            history.passed_over,
            history.last.id if history.last is not None else "",
        )
    if history.whole:
        return Claim(Found.TAKEOVER, history, cancelled)
    return Claim(Found.LOST, history)


async def read_history(cell: Cell, tenant: str, id: str) -> History:
    """The whole log, up to what is the leader's last message now.

    Read again for `PROVE_S` where that does not prove it: the last history that was
    read is returned then, and is not `History.whole`, unless it has its end. Raises
    `ConnectionLost` when no read reaches the leader's last message.
    """
    give_up_at = cell.now() + PROVE_S
    pause_s = REREAD_S
    while True:
        stored = await cell.last_stored(tenant, id)
        if stored is None:
            return History()
        history = History()
        async for message in cell.read_log(tenant, id):
            event = event_in(id, message.data)
            if event is None:
                history.pass_over(message.seq)
            else:
                history.receive(event, message.seq)
        reached = history.last_stream_seq >= stored.seq
        if reached and (history.whole or history.over):
            return history
        if cell.now() >= give_up_at:
            break
        await cell.pause(pause_s)
        pause_s = min(pause_s * 2, REREAD_AT_MOST_S)
    if not reached:
        raise ConnectionLost("the log cannot be read up to its last event")
    return history


async def close_to_end(
    cell: Cell, tenant: str, id: str, delivery: Delivery
) -> History | None:
    """Where a log ends, to put one last event behind it, or that it has its end.

    Closes what this delivery and older ones of the job may have open, if the log has no
    end. ``None`` where it was begun for another job. Raises `Fenced` for a newer
    attempt, and `BusError`. May be cancelled.
    """
    while True:
        end = History()
        end.last_stream_seq, end.last = await find_end(cell, tenant, id)
        if end.last is None or end.over:
            return end
        if end.last.attempt > delivery.attempt:
            raise Fenced("a newer attempt continues the request")
        original = await begun_for(cell, tenant, id)
        if original not in (None, delivery.identity):
            return None
        own = older_batches([delivery.identity], delivery.attempt + 1)
        await cell.batches.close(own)
        tip = await cell.last_stored(tenant, id)
        if tip is not None and tip.seq == end.last_stream_seq:
            return end


async def begun_for(cell: Cell, tenant: str, id: str) -> JobIdentity | None:
    """The job that a log was begun for, where its first event still says so.

    Raises `BusError`. May be cancelled.
    """
    subject = cell.subjects.tokens(tenant, id)
    read = partial(event_in, id)
    first = await find_next(cell.jetstream, cell.names.tokens, subject, 1, read)
    return first.identity if isinstance(first, Started) else None


async def find_end(cell: Cell, tenant: str, id: str) -> tuple[int, AnyEvent | None]:
    """Where a log ends: its last message's stream sequence, and its last event.

    Raises `BusError`. May be cancelled.
    """
    subject = cell.subjects.tokens(tenant, id)
    read = partial(event_in, id)
    return await find_last(cell.jetstream, cell.names.tokens, subject, read)


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
    that was made again are counted from the start.
    """
    if control.action != "cancel" or delivery.stored_ns >= at_ns:
        return False
    return control.before is None or delivery.stream_seq < control.before
