"""After a backend failed: again, where, when, or not at all. A pure decision."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from bridge.errors import (
    BackendProtocolError,
    BackendReportedError,
    BackendTimeout,
    BackendUnavailable,
    GenerationError,
    LimitExceeded,
    RateLimited,
)

#: Waits before the retries where the backend names none, in seconds; the last repeats.
BACKOFF_S = (0.1, 0.5, 1.0, 2.0)


class Next(Enum):
    """What to do after a failure."""

    FAIL = "fail"
    AGAIN = "again"  # nothing was published: silently
    CONTINUE = "continue"
    RESTART = "restart"


class Plan(NamedTuple):
    """What to do, and after how many seconds."""

    next: Next
    delay_s: float = 0.0


FAIL = Plan(Next.FAIL)


class Failure(NamedTuple):
    """What is known when a backend failed.

    ``begun`` tells whether deltas of the text that stands were published,
    ``continuable`` whether that text could be continued by a candidate.
    """

    error: GenerationError
    begun: bool
    continuable: bool
    may_restart: bool
    retries: int
    budget: int
    other_candidates: bool
    remaining_s: float


def plan(failure: Failure) -> Plan:
    """Decide (``docs/design.md``, "When a backend fails")."""
    if not _worth_it(failure) or failure.retries >= failure.budget:
        return FAIL
    delay = _delay(failure)
    if delay >= failure.remaining_s:
        return FAIL
    if not failure.begun:
        return Plan(Next.AGAIN, delay)
    if failure.continuable:
        return Plan(Next.CONTINUE, delay)
    return Plan(Next.RESTART, delay) if failure.may_restart else FAIL


def _worth_it(failure: Failure) -> bool:
    error = failure.error
    if isinstance(error, BackendTimeout):
        # One that is silent from the start has had all the time there was.
        return failure.begun or failure.other_candidates
    if isinstance(error, LimitExceeded):
        return False
    if isinstance(error, BackendReportedError):
        return error.retryable
    return isinstance(error, BackendUnavailable | BackendProtocolError | RateLimited)


def _delay(failure: Failure) -> float:
    error = failure.error
    if isinstance(error, RateLimited) and not failure.other_candidates:
        asked = error.retry_after_s
        if asked is not None:
            return asked
    elif failure.begun or failure.other_candidates:
        # The request fell with its connection; the next one need not wait.
        return 0.0 if failure.retries == 0 else BACKOFF_S[0]
    return BACKOFF_S[min(failure.retries, len(BACKOFF_S) - 1)]


def add_usage(
    total: dict[str, object] | None, reported: dict[str, object] | None
) -> dict[str, object]:
    """Add what one call reported to what others did; a missing report is partial."""
    result: dict[str, object] = dict(total or {})
    if reported is None:
        result["partial"] = True
        return result
    for key, value in reported.items():
        before = result.get(key)
        if isinstance(value, bool):
            result[key] = value
        elif isinstance(value, int | float):
            base = before if isinstance(before, int | float) else 0
            result[key] = base + value
        elif isinstance(value, dict):
            result[key] = add_usage(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result
