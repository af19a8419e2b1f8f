"""What a job took: as its events show it, and as it is counted."""

from __future__ import annotations

import time

import pytest

from bridge.bus.jobs import Delivery
from bridge.events import Cancelled, ErrorInfo, Failed, Timings
from bridge.generation.account import Account
from bridge.metrics import Meters


def account(meters: Meters, now: list[float], stored_at: float) -> Account:
    delivery = Delivery("llm.jobs.t.default", b"", "", "default", 1, 1, stored_at)
    return Account("t", delivery, meters, lambda: now[0])


def test_the_times_of_a_job_that_waited() -> None:
    now = [100.0]
    it = account(Meters(), now, time.time() - 3)
    assert it.queue_ms == pytest.approx(3000, abs=500)
    now[0] += 1.5
    assert it.timings() == Timings(queue_ms=it.queue_ms, total_ms=1500)


def test_a_clock_that_is_behind_the_servers_makes_no_negative_time() -> None:
    it = account(Meters(), [0.0], time.time() + 60)
    assert it.queue_ms == 0


def test_an_end_is_counted_by_its_code() -> None:
    meters = Meters()
    it = account(meters, [0.0], time.time())
    it.ended(Cancelled("one", 2, 1, reason="r", timings=Timings(), metadata={}))
    error = ErrorInfo("internal", "x", retryable=True)
    it.ended(Failed("one", 2, 1, error=error, timings=Timings(), metadata={}))
    assert meters.ended == {("cancelled", ""): 1, ("failed", "internal"): 1}


def test_the_times_are_counted_when_the_worker_is_done() -> None:
    meters, now = Meters(), [0.0]
    it = account(meters, now, time.time())
    now[0] = 7.0
    assert sum(meters.total.counts) == 0
    it.close()
    assert meters.total.total_s == 7.0
    assert sum(meters.queue.counts) == 1
