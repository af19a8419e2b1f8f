from typing import Any

import pytest

from bridge.simulator import Behaviour, InvalidBehaviour


def test_a_simulate_object_overrides_the_server() -> None:
    server = Behaviour(tokens_per_second=20, jitter=0.1)
    request = server.override({"tokens_per_second": 50, "reset_after": 3})
    assert request == Behaviour(tokens_per_second=50, jitter=0.1, reset_after=3)


def test_null_takes_a_fault_of_the_server_back() -> None:
    assert Behaviour(status=503).override({"status": None}) == Behaviour()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_token_ms", -1),
        ("tokens_per_second", "fast"),
        ("jitter", 1.5),
        ("status", 200),
        ("status", 600),
        ("retry_after_s", -0.1),
        ("refuse", 1),
        ("fail_times", -1),
        ("hang", "sometimes"),
        ("reset_after", 1.5),
        ("huge_line_bytes", 0),
        ("pieces", 0),
        ("pieces", []),
        ("pieces", [3, 0]),
        ("tool_call", "yes"),
        ("typo", 1),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidBehaviour, match=field):
        Behaviour().override({field: value})


def test_values_from_python_are_checked_too() -> None:
    with pytest.raises(InvalidBehaviour, match="jitter"):
        Behaviour(jitter=2).checked()
    behaviour = Behaviour(jitter=0.5, pieces=[3, 5])
    assert behaviour.checked() == behaviour


def test_without_faults_keeps_pace_and_format() -> None:
    kept = Behaviour(tokens_per_second=9, ndjson=True, reasoning=4, pieces=1)
    faulty = Behaviour(
        tokens_per_second=9,
        ndjson=True,
        reasoning=4,
        pieces=1,
        hang="after_head",
        stall_after=1,
        reset_after=2,
        end_after=3,
        malformed_after=4,
        error_after=5,
        huge_line_after=6,
    )
    assert faulty.without_faults() == kept


def test_piece_sizes() -> None:
    assert Behaviour().piece_sizes == ()
    assert Behaviour(pieces=4).piece_sizes == (4,)
    assert Behaviour(pieces=[3, 5]).piece_sizes == (3, 5)
