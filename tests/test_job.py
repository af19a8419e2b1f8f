"""The tables of a job's life: every step from every state, and what it settles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events import Cancelled, Handover, Timings, Token, UnknownEvent
from bridge.job import (
    SETTLEMENTS,
    TRANSITIONS,
    IllegalStep,
    Look,
    Progress,
    Settlement,
    State,
    Step,
    deliveries,
    look,
    resume_reason,
)

#: How each state is reached.
PATHS: dict[State, list[Step]] = {
    State.DELIVERED: [],
    State.CLAIMED: [Step.START],
    State.RUNNING: [Step.START, Step.PROVEN],
    State.ENDING: [Step.END],
    State.HANDING_OVER: [Step.START, Step.PROVEN, Step.HAND_OVER],
    State.ENDED: [Step.START, Step.PROVEN, Step.END, Step.PROVEN],
    State.GIVEN_BACK: [Step.HAND_OVER],
    State.STANDS: [Step.STANDS],
    State.BURIED: [Step.BURY],
    State.LEFT: [Step.LEAVE],
}

LAST = {State.ENDED, State.GIVEN_BACK, State.STANDS, State.BURIED, State.LEFT}


def progress_at(state: State) -> Progress:
    progress = Progress()
    for step in PATHS[state]:
        progress.take(step)
    assert progress.state is state
    return progress


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("step", list(Step))
def test_every_step_from_every_state(state: State, step: Step) -> None:
    progress = progress_at(state)
    settlement = progress.settlement
    if step in TRANSITIONS[state]:
        assert progress.take(step) is TRANSITIONS[state][step]
        assert progress.state is TRANSITIONS[state][step]
        return
    with pytest.raises(IllegalStep, match=f"{step.value}.*{state.value}"):
        progress.take(step)
    assert progress.state is state
    assert progress.settlement is settlement


def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state in State if not TRANSITIONS[state]} == LAST
    assert set(SETTLEMENTS) == LAST
    reachable = {target for steps in TRANSITIONS.values() for target in steps.values()}
    assert reachable | {State.DELIVERED} == set(State)


@pytest.mark.parametrize("state", [state for state in State if state not in LAST])
def test_from_everywhere_the_job_can_be_left(state: State) -> None:
    assert TRANSITIONS[state][Step.LEAVE] is State.LEFT


@pytest.mark.parametrize(
    ("state", "settlement"),
    [
        (State.DELIVERED, Settlement.NOTHING),
        (State.CLAIMED, Settlement.NOTHING),
        (State.RUNNING, Settlement.NOTHING),
        (State.ENDING, Settlement.NOTHING),
        (State.HANDING_OVER, Settlement.NOTHING),
        (State.ENDED, Settlement.ACK),
        (State.STANDS, Settlement.ACK),
        (State.GIVEN_BACK, Settlement.NAK),
        (State.BURIED, Settlement.TERM),
        (State.LEFT, Settlement.NOTHING),
    ],
)
def test_what_each_state_settles(state: State, settlement: Settlement) -> None:
    progress = progress_at(state)
    assert progress.settlement is settlement
    assert progress.over is (state in LAST)
    assert state.value in repr(progress)


@settings(deadline=None)
@given(st.lists(st.sampled_from(Step), max_size=30))
def test_nothing_is_acknowledged_without_a_proof_or_a_standing_log(
    steps: list[Step],
) -> None:
    progress = Progress()
    taken = []
    for step in steps:
        try:
            progress.take(step)
        except IllegalStep:
            continue
        taken.append(step)
    if progress.state is State.ENDED:
        assert taken[-1] is Step.PROVEN
        assert {Step.END, Step.LOSE_LOG, Step.DEFECT} & set(taken)
    if progress.settlement is Settlement.ACK:
        assert taken[-1] in (Step.PROVEN, Step.STANDS)


def test_the_words_of_jetstream() -> None:
    assert [s.value for s in Settlement] == [b"+ACK", b"-NAK", b"+TERM", b""]


CANCELLED = Cancelled("a", 3, 2, reason="r", timings=Timings(), metadata={})


@pytest.mark.parametrize(
    ("last", "attempt", "seen"),
    [
        (None, 1, Look.EMPTY),
        (None, 7, Look.EMPTY),
        (CANCELLED, 1, Look.ENDED),
        (CANCELLED, 2, Look.ENDED),
        (CANCELLED, 3, Look.ENDED),
        (Token("a", 3, 2, "x"), 1, Look.NEWER),
        (Token("a", 3, 2, "x"), 2, Look.NEWER),
        (Token("a", 3, 2, "x"), 3, Look.OLDER),
        (Handover("a", 3, 2), 3, Look.OLDER),
        (UnknownEvent("later", "a", 3, 2), 3, Look.OLDER),
        (UnknownEvent("later", "a", 3, 2), 2, Look.NEWER),
    ],
)
def test_what_the_last_event_says(
    last: Token | Cancelled | Handover | UnknownEvent | None, attempt: int, seen: Look
) -> None:
    assert look(last, attempt) is seen


def test_handovers_are_no_deliveries() -> None:
    assert deliveries(1, 0) == 1
    assert deliveries(8, 7) == 1
    assert deliveries(8, 2) == 6


def test_why_another_worker_goes_on() -> None:
    assert resume_reason(Handover("a", 3, 2)) == "handover"
    assert resume_reason(Token("a", 3, 2, "x")) == "takeover"


@pytest.mark.parametrize(
    ("state", "step", "after"),
    [
        # A defect of the bridge ends what was not over and is nobody else's.
        (State.DELIVERED, Step.DEFECT, State.ENDING),
        (State.CLAIMED, Step.DEFECT, State.ENDING),
        (State.RUNNING, Step.DEFECT, State.ENDING),
        (State.ENDING, Step.DEFECT, State.ENDING),
        # The log has its end, what the job supersedes is not stored.
        (State.ENDING, Step.HAND_OVER, State.GIVEN_BACK),
        # A drain during a wipe.
        (State.HANDING_OVER, Step.LOSE_LOG, State.ENDING),
    ],
)
def test_ways_that_are_rare(state: State, step: Step, after: State) -> None:
    assert progress_at(state).take(step) is after
