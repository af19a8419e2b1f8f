"""Which kept control messages end a job: by the servers' times, and by sequences."""

from __future__ import annotations

import pytest

from bridge.bus.jobs import Delivery
from bridge.events import Control
from bridge.generation.claim import cancels_request_job, cancels_session_job

S = 1_000_000_000
KEPT_NS = 1_700_000_000 * S


def job(seq: int, later_ns: int) -> Delivery:
    """A job that was stored so much later than the control message."""
    return Delivery("", b"", "", "default", seq, 1, KEPT_NS + later_ns)


@pytest.mark.parametrize(
    ("action", "later_ns", "ends"),
    [
        ("cancel", -3600 * S, True),
        ("cancel", -1, True),
        ("cancel", 0, True),
        ("cancel", 10 * S, True),
        # Meant for an earlier request of that id, whose log is gone.
        ("cancel", 10 * S + 1, False),
        ("cancel", 1800 * S, False),
        ("pause", -1, False),
        ("", 0, False),
    ],
)
def test_a_requests_cancel(action: str, later_ns: int, ends: bool) -> None:
    assert cancels_request_job(Control(action), job(5, later_ns), KEPT_NS) is ends


@pytest.mark.parametrize(
    ("action", "before", "seq", "later_ns", "ends"),
    [
        ("cancel", None, 5, -1, True),
        ("cancel", None, 5, 0, False),
        ("cancel", None, 5, 1, False),
        ("cancel", 6, 5, -1, True),
        ("cancel", 6, 6, -1, False),
        ("cancel", 6, 7, -1, False),
        # Of a stream that was made again.
        ("cancel", 31, 1, 0, False),
        ("cancel", 31, 1, 3600 * S, False),
        ("pause", None, 5, -1, False),
    ],
)
def test_a_sessions_cancel(
    action: str, before: int | None, seq: int, later_ns: int, ends: bool
) -> None:
    control = Control(action, "", before)
    assert cancels_session_job(control, job(seq, later_ns), KEPT_NS) is ends
