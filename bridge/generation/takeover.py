"""How a claimed request goes on, or why it does not: pure decisions."""

from __future__ import annotations

from bridge.backends.http import Backends
from bridge.bus.jobs import Delivery
from bridge.dialects.openai_request import can_continue
from bridge.errors import (
    AttemptsExhausted,
    DeadlineExceeded,
    GenerationError,
    InternalError,
)
from bridge.events import Job, ResumeMode
from bridge.history import History
from bridge.job import deliveries


def too_late(
    delivery: Delivery, history: History, max_deliveries: int, remaining_s: float
) -> GenerationError | None:
    """Why the job is not to be run (any more), if it is not.

    ``remaining_s`` is how long it is until its deadline.
    """
    delivered = deliveries(delivery.attempt, history.handovers)
    if delivered > max_deliveries:
        return AttemptsExhausted(
            f"the job was delivered {delivered} times and came to no end"
        )
    if remaining_s <= 0:
        return DeadlineExceeded("the deadline passed before the job was served")
    return None


def resume_mode(history: History, job: Job, backends: Backends) -> ResumeMode:
    """Whether what stands in the log is continued, or voided by a restart."""
    if not history.continuable:
        return "restart"
    if not history.deltas:
        return "continue"  # nothing was said, so nothing is void
    return "continue" if can_be_continued(job, backends) else "restart"


def can_be_continued(job: Job, backends: Backends) -> bool:
    """Whether some backend can go on inside this job's text."""
    try:
        candidates = backends.candidates(job.model)
    except GenerationError:
        return False
    return any(c.can_continue for c in candidates) and can_continue(job.request)


def not_restarted(mode: ResumeMode, job: Job) -> GenerationError | None:
    """The error of a job that would have to be restarted and asks not to be."""
    if mode == "continue" or job.on_restart == "restart":
        return None
    return InternalError(
        "the request's worker is gone, its text cannot be continued, and the job asks "
        "not to restart it"
    )
