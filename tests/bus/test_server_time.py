"""Times read exactly, and the servers' clock held against a monotonic one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bus.server_time import DRIFT, ServerTime, parse_time

TIMES = {
    "1970-01-01T00:00:00Z": 0,
    "2023-11-14T22:13:20Z": 1_700_000_000_000_000_000,
    "2023-11-14T22:13:20.123456789Z": 1_700_000_000_123_456_789,
    "2023-11-14T22:13:20.123456788Z": 1_700_000_000_123_456_788,
    # Go leaves out zeros at the end.
    "2023-11-14T22:13:20.5Z": 1_700_000_000_500_000_000,
    "2023-11-14T22:13:20.00000001Z": 1_700_000_000_000_000_010,
    "2023-11-14T22:13:20.1234567891Z": 1_700_000_000_123_456_789,
    "2023-11-14T23:43:20.000000001+01:30": 1_700_000_000_000_000_001,
    "2023-11-14T17:13:20-05:00": 1_700_000_000_000_000_000,
    "1969-12-31T23:59:59.999999999Z": -1,
    "0001-01-01T00:00:00Z": -62_135_596_800_000_000_000,
}


@pytest.mark.parametrize(("text", "ns"), TIMES.items())
def test_a_time_is_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_time(text) == ns


@given(st.integers(0, 2**62))
def test_no_two_times_are_one(ns: int) -> None:
    seconds, fraction = divmod(ns, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    shown = f"{whole}.{fraction:09}".rstrip("0").rstrip(".")
    assert parse_time(f"{shown}Z") == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20.Z",
        "2023-13-14T22:13:20Z",
        "2023-11-14T22:13:61Z",
        "1700000000",
        "2023-11-14T22:13:20Z ",
        "٢٠٢٣-11-14T22:13:20Z",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="no time of RFC 3339"):
        parse_time(text)


NS = 10**9


def test_before_a_sample_nobody_knows() -> None:
    time = ServerTime()
    assert not time.known
    assert repr(time) == "<ServerTime unknown>"
    for ask in (lambda: time.at(1.0), lambda: time.monotonic(1), lambda: time.bound_ns):
        with pytest.raises(LookupError):
            ask()


def test_the_middle_of_the_way_is_when_the_server_looked() -> None:
    time = ServerTime()
    time.sample(100.0, 100.2, 5_000 * NS)
    assert time.at(100.1) == 5_000 * NS
    assert time.bound_ns == NS // 10
    assert time.monotonic(5_001 * NS) == pytest.approx(101.1)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=20),
    st.integers(-(2**40), 2**61),
)
def test_the_estimate_is_within_its_bound(
    answers: list[tuple[float, float]], offset_ns: int
) -> None:
    """Whatever the ways there and back are, as long as the clocks run alike."""
    time, now = ServerTime(), 1.0
    for way, part in answers:
        there = now + way * part
        time.sample(now, now + way, offset_ns + round(there * NS))
        now += way + 0.1
        off = time.at(now) - (offset_ns + round(now * NS))
        # Floating point: a microsecond.
        assert abs(off) <= time.bound_ns + 1000
    assert time.bound_ns <= min(way for way, _ in answers) / 2 * NS + DRIFT * now * NS


def test_a_longer_way_tells_nothing_new() -> None:
    time = ServerTime()
    time.sample(1.0, 1.001, 10 * NS)
    before = time.at(2.0)
    time.sample(2.0, 2.5, 11 * NS + 249_000_000)
    assert time.at(2.0) == before


def test_what_drift_has_spoilt_is_replaced() -> None:
    time = ServerTime()
    time.sample(1.0, 1.002, 1 * NS)
    later = 1.0 + 0.002 / DRIFT
    time.sample(later, later + 0.003, round(later * NS))
    assert time.bound_ns == 1_500_000


@pytest.mark.parametrize("step_s", [-3600, -60, 60, 3600])
def test_a_clock_that_was_set_is_followed(step_s: int) -> None:
    """The server's; or this machine was asleep, and its monotonic clock stood still."""
    time = ServerTime()
    time.sample(1.0, 1.0001, 1_000 * NS)
    time.sample(2.0, 2.3, (1_001 + step_s) * NS)
    assert time.at(2.15) == (1_001 + step_s) * NS


def test_another_server_has_another_clock() -> None:
    time = ServerTime()
    time.sample(1.0, 1.0001, 1_000 * NS)
    time.sample(2.0, 2.3, 1_001 * NS, anew=True)
    assert time.bound_ns == 150_000_000
