"""After a backend failed: the plan as a table, and usage added up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import (
    AttemptsExhausted,
    BackendProtocolError,
    BackendRejected,
    BackendReportedError,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    GenerationError,
    InternalError,
    InvalidJob,
    LogLost,
    RateLimited,
    UnknownModel,
)
from bridge.retry import BACKOFF_S, Failure, Next, Plan, add_usage, plan


def failure(error: GenerationError, **known: Any) -> Failure:
    values: dict[str, Any] = {
        "begun": False,
        "continuable": False,
        "may_restart": True,
        "retries": 0,
        "budget": 2,
        "other_candidates": False,
        "remaining_s": 60.0,
        **known,
    }
    return Failure(error=error, **values)


UNAVAILABLE = BackendUnavailable("x")
PROTOCOL = BackendProtocolError("x")
TIMEOUT = BackendTimeout("x")
LIMITED = RateLimited("x")
LIMITED_5 = RateLimited("x", retry_after_s=5.0)
PASSING = BackendReportedError("x", retryable=True)

TABLE: list[tuple[GenerationError, dict[str, Any], Next]] = [
    # Nothing was published yet: silently again.
    (UNAVAILABLE, {}, Next.AGAIN),
    (PROTOCOL, {}, Next.AGAIN),
    (LIMITED, {}, Next.AGAIN),
    (PASSING, {}, Next.AGAIN),
    # Silent from the start, and nobody else to ask.
    (TIMEOUT, {}, Next.FAIL),
    (TIMEOUT, {"other_candidates": True}, Next.AGAIN),
    (TIMEOUT, {"begun": True}, Next.RESTART),
    # In the middle of a text.
    (UNAVAILABLE, {"begun": True, "continuable": True}, Next.CONTINUE),
    (UNAVAILABLE, {"begun": True}, Next.RESTART),
    (UNAVAILABLE, {"begun": True, "may_restart": False}, Next.FAIL),
    (
        UNAVAILABLE,
        {"begun": True, "continuable": True, "may_restart": False},
        Next.CONTINUE,
    ),
    # The budget, and the deadline.
    (UNAVAILABLE, {"retries": 1}, Next.AGAIN),
    (UNAVAILABLE, {"retries": 2}, Next.FAIL),
    (UNAVAILABLE, {"budget": 0}, Next.FAIL),
    (UNAVAILABLE, {"remaining_s": 0.0}, Next.FAIL),
    (UNAVAILABLE, {"remaining_s": -5.0}, Next.FAIL),
    (LIMITED_5, {"remaining_s": 4.0}, Next.FAIL),
    (LIMITED_5, {"remaining_s": 6.0}, Next.AGAIN),
    (LIMITED_5, {"remaining_s": 4.0, "other_candidates": True}, Next.AGAIN),
    # What no retry will change.
    (BackendRejected("x"), {}, Next.FAIL),
    (BackendReportedError("x"), {}, Next.FAIL),
    (InvalidJob("x"), {}, Next.FAIL),
    (UnknownModel("x"), {}, Next.FAIL),
    (DeadlineExceeded("x"), {}, Next.FAIL),
    (AttemptsExhausted("x"), {}, Next.FAIL),
    (LogLost("x"), {}, Next.FAIL),
    (InternalError("x"), {}, Next.FAIL),
]


@pytest.mark.parametrize(("error", "known", "next_"), TABLE)
def test_the_plan(error: GenerationError, known: dict[str, Any], next_: Next) -> None:
    assert plan(failure(error, **known)).next is next_


@pytest.mark.parametrize(
    ("error", "known", "delay_s"),
    [
        (UNAVAILABLE, {}, BACKOFF_S[0]),
        (UNAVAILABLE, {"retries": 1}, BACKOFF_S[1]),
        (UNAVAILABLE, {"retries": 50, "budget": 99}, BACKOFF_S[-1]),
        (UNAVAILABLE, {"other_candidates": True}, 0.0),
        (UNAVAILABLE, {"begun": True}, 0.0),
        (UNAVAILABLE, {"begun": True, "retries": 1}, BACKOFF_S[0]),
        (LIMITED_5, {}, 5.0),
        (LIMITED_5, {"begun": True}, 5.0),
        (LIMITED_5, {"other_candidates": True}, 0.0),
        (RateLimited("x", retry_after_s=0.0), {}, 0.0),
        (LIMITED, {}, BACKOFF_S[0]),
        (LIMITED, {"retries": 1}, BACKOFF_S[1]),
    ],
)
def test_the_wait(
    error: GenerationError, known: dict[str, Any], delay_s: float
) -> None:
    assert plan(failure(error, **known)).delay_s == delay_s


failures = st.builds(
    Failure,
    error=st.sampled_from([UNAVAILABLE, PROTOCOL, TIMEOUT, LIMITED, LIMITED_5]),
    begun=st.booleans(),
    continuable=st.booleans(),
    may_restart=st.booleans(),
    retries=st.integers(0, 9),
    budget=st.integers(0, 9),
    other_candidates=st.booleans(),
    remaining_s=st.floats(-10, 100),
)


@settings(deadline=None)
@given(failures)
def test_what_every_plan_keeps(known: Failure) -> None:
    decided = plan(known)
    if decided.next is Next.FAIL:
        assert decided == Plan(Next.FAIL)
        return
    assert known.retries < known.budget
    assert 0 <= decided.delay_s < known.remaining_s
    if decided.next is Next.AGAIN:
        assert not known.begun
    if decided.next is Next.CONTINUE:
        assert known.begun
        assert known.continuable
    if decided.next is Next.RESTART:
        assert known.begun
        assert known.may_restart


@pytest.mark.parametrize(
    ("total", "reported", "sum_"),
    [
        (None, {"a": 1}, {"a": 1}),
        ({}, {}, {}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 3, "b": 3}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, None, {"a": 1, "partial": True}),
        (None, None, {"partial": True}),
        ({"a": 1, "partial": True}, {"a": 2}, {"a": 3, "partial": True}),
        ({"d": {"x": 1}}, {"d": {"x": 2, "y": 1}}, {"d": {"x": 3, "y": 1}}),
        ({"d": 5}, {"d": {"x": 1}}, {"d": {"x": 1}}),
        ({"a": None}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"t": 0.5}, {"t": 0.25}, {"t": 0.75}),
        ({"s": "x"}, {"s": "y"}, {"s": "y"}),
        ({"f": True}, {"f": True}, {"f": True}),
        ({"l": [1]}, {"l": [2]}, {"l": [2]}),
    ],
)
def test_usage_is_added_up(
    total: dict[str, object] | None,
    reported: dict[str, object] | None,
    sum_: dict[str, object],
) -> None:
    before = repr(total)
    assert add_usage(total, reported) == sum_
    assert repr(total) == before
