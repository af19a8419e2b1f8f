import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import Behaviour
from bridge.simulator.pace import Pace


def test_an_absolute_schedule() -> None:
    pace = Pace(Behaviour(first_token_ms=200, tokens_per_second=50), 100.0, "x")
    dues = [pace.due(index) for index in range(1000)]
    assert dues[0] == pytest.approx(100.2)
    assert dues[999] == pytest.approx(100.2 + 999 / 50)


def test_no_pace_is_due_at_once() -> None:
    pace = Pace(Behaviour(), 7.0, "x")
    assert [pace.due(index) for index in range(5)] == [7.0] * 5


def test_a_stall_shifts_the_rest() -> None:
    pace = Pace(Behaviour(tokens_per_second=10), 0.0, "x")
    assert pace.due(1) == pytest.approx(0.1)
    pace.shift(3.0)
    assert pace.due(2) == pytest.approx(3.2)


@given(st.text(), st.floats(0.01, 1))
def test_jitter_is_seeded_keeps_the_order_and_does_not_drift(
    seed: str, jitter: float
) -> None:
    behaviour = Behaviour(first_token_ms=100, tokens_per_second=20, jitter=jitter)
    one, other = Pace(behaviour, 0.0, seed), Pace(behaviour, 0.0, seed)
    dues = [one.due(index) for index in range(200)]
    assert dues == [other.due(index) for index in range(200)]
    assert dues == sorted(dues)
    assert abs(dues[0] - 0.1) <= 0.1 * jitter / 2 + 1e-9
    for index, due in enumerate(dues):
        assert abs(due - (dues[0] + index * 0.05)) <= 0.05 * jitter / 2 + 1e-9
    assert len({round(due % 0.05, 9) for due in dues}) > 100
