"""The decision who asks for how many: never too many, and nobody starves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.slots import ASK_AGAIN, MAX_ASK, LaneLoad, asks, may_exceed

slots = st.integers(1, 100)


@st.composite
def loads(draw: st.DrawFn) -> tuple[int, list[LaneLoad]]:
    """Lanes as they can be: never more used than there is, reservations kept."""
    total = draw(slots)
    count = draw(st.integers(1, 6))
    left = total
    reserved = []
    for _ in range(count):
        share = draw(st.integers(0, left))
        reserved.append(share)
        left -= share
    lanes = []
    shared = left
    for share in reserved:
        used = draw(st.integers(0, share + shared))
        shared -= max(0, used - share)
        running = draw(st.integers(0, used))
        idle = draw(st.booleans())
        lanes.append(LaneLoad(share, running, used - running, idle))
    return total, lanes


def used(lanes: list[LaneLoad]) -> int:
    return sum(lane.used for lane in lanes)


@settings(deadline=None)
@given(loads())
def test_free_running_and_promised_never_exceed_the_slots(
    given_: tuple[int, list[LaneLoad]],
) -> None:
    total, lanes = given_
    wanted = asks(total, lanes)
    assert all(jobs >= 0 for jobs in wanted)
    assert used(lanes) + sum(wanted) <= total
    # What is reserved for one is left free by the others.
    after = [lane.used + jobs for lane, jobs in zip(lanes, wanted, strict=True)]
    assert sum(max(u, lane.reserved) for u, lane in zip(after, lanes, strict=True)) <= (
        total
    )


@settings(deadline=None)
@given(loads())
def test_no_pull_is_larger_than_allowed(given_: tuple[int, list[LaneLoad]]) -> None:
    total, lanes = given_
    for lane, jobs in zip(lanes, asks(total, lanes), strict=True):
        assert lane.asked + jobs <= max(MAX_ASK, lane.asked)


@settings(deadline=None)
@given(loads())
def test_asking_twice_changes_nothing(given_: tuple[int, list[LaneLoad]]) -> None:
    total, lanes = given_
    for lane, jobs in zip(lanes, asks(total, lanes), strict=True):
        lane.asked += jobs
    assert asks(total, lanes) == [0] * len(lanes)


@settings(deadline=None)
@given(loads())
def test_a_free_slot_is_asked_for(given_: tuple[int, list[LaneLoad]]) -> None:
    total, lanes = given_
    for lane in lanes:
        lane.asked = 0
        lane.reserved = 0
    if used(lanes) < total:
        assert sum(asks(total, lanes)) >= 1


@settings(deadline=None)
@given(loads())
def test_a_reservation_is_always_asked_for(
    given_: tuple[int, list[LaneLoad]],
) -> None:
    total, lanes = given_
    for lane, jobs in zip(lanes, asks(total, lanes), strict=True):
        if lane.used < lane.reserved and lane.asked <= ASK_AGAIN:
            assert jobs >= 1


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 100))
def test_with_a_slot_for_each_lane_each_lane_asks(count: int, more: int) -> None:
    lanes = [LaneLoad() for _ in range(count)]
    assert all(asks(count + more, lanes))


def test_the_first_lane_of_the_configuration_comes_first() -> None:
    assert asks(3, [LaneLoad(), LaneLoad()]) == [2, 1]
    assert asks(1, [LaneLoad(), LaneLoad()]) == [1, 0]


def test_who_came_back_with_nothing_lets_the_others_choose() -> None:
    assert asks(1, [LaneLoad(idle=True), LaneLoad()]) == [0, 1]
    assert asks(1, [LaneLoad(idle=True), LaneLoad(idle=True)]) == [1, 0]


def test_a_lane_asks_again_when_half_of_what_it_asked_for_has_come() -> None:
    assert asks(100, [LaneLoad(running=7, asked=ASK_AGAIN + 1)]) == [0]
    assert asks(100, [LaneLoad(running=8, asked=ASK_AGAIN)]) == [MAX_ASK - ASK_AGAIN]


def test_with_every_slot_taken_nobody_asks() -> None:
    assert asks(4, [LaneLoad(running=3), LaneLoad(running=1)]) == [0, 0]
    assert asks(4, [LaneLoad(running=3), LaneLoad(asked=1)]) == [0, 0]


@settings(deadline=None)
@given(loads(), st.integers(0, 5))
def test_no_more_than_one_job_beyond_the_slots(
    given_: tuple[int, list[LaneLoad]], which: int
) -> None:
    total, lanes = given_
    assert may_exceed(total, lanes)
    lane = lanes[which % len(lanes)]
    lane.running = max(lane.used, lane.reserved) + 1
    lane.asked = 0
    reserved = sum(max(lane.used, lane.reserved) for lane in lanes)
    assert may_exceed(total, lanes) is (reserved <= total)
    # And while it runs, nobody takes a slot for it.
    if reserved > total:
        for other, jobs in zip(lanes, asks(total, lanes), strict=True):
            assert jobs <= max(0, other.reserved - other.used)
