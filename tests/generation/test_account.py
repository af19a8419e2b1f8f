"""What a job took: as its events show it, and as it is counted."""

from __future__ import annotations

from bridge.events import Cancelled, ErrorInfo, Failed, Timings
from bridge.generation.account import Account
from bridge.metrics import Meters

#: When the jobs came, in ns.
CLAIMED_NS = 1_700_000_000_123_456_789


def account(meters: Meters, now: list[float], waited_s: float) -> Account:
    stored_ns = CLAIMED_NS - round(waited_s * 1e9)
    return Account("t", stored_ns, CLAIMED_NS, meters, lambda: now[0])


def test_the_times_of_a_job_that_waited() -> None:
    now = [100.0]
    it = account(Meters(), now, 3)
    assert it.queue_ms == 3000
    now[0] += 1.5
    assert it.timings() == Timings(queue_ms=it.queue_ms, total_ms=1500)


def test_an_estimate_that_is_off_makes_no_negative_time() -> None:
    it = account(Meters(), [0.0], -60)
    assert it.queue_ms == 0


def test_an_end_is_counted_by_its_code() -> None:
    meters = Meters()
    it = account(meters, [0.0], 0)
    it.ended(Cancelled("one", 2, 1, reason="r", timings=Timings(), metadata={}))
    error = ErrorInfo("internal", "x", retryable=True)
    it.ended(Failed("one", 2, 1, error=error, timings=Timings(), metadata={}))
    assert meters.ended == {("cancelled", ""): 1, ("failed", "internal"): 1}


def test_the_times_are_counted_when_the_worker_is_done() -> None:
    meters, now = Meters(), [0.0]
    it = account(meters, now, 0)
    now[0] = 7.0
    assert sum(meters.total.counts) == 0
    it.close()
    assert meters.total.total_s == 7.0
    assert sum(meters.queue.counts) == 1
