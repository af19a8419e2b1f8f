"""How long a job may take: what it asks for, the default, and the cap."""

from __future__ import annotations

import pytest

from bridge.config import Settings
from bridge.generation.deadline import effective_deadline_ms, read_deadline_ms

SETTINGS = Settings(deadline_s=600.0, tokens_max_age_s=3600.0)


@pytest.mark.parametrize(
    ("wanted_ms", "effective_ms"),
    [
        (None, 600_000),
        (1, 1),
        (30_000, 30_000),
        (1_800_000, 1_800_000),
        (1_800_001, 1_800_000),
        (86_400_000, 1_800_000),
    ],
)
def test_what_counts(wanted_ms: int | None, effective_ms: int) -> None:
    assert effective_deadline_ms(wanted_ms, SETTINGS) == effective_ms


@pytest.mark.parametrize(
    ("data", "deadline_ms"),
    [
        (b'{"id": "one", "deadline_ms": 700, "request": {"deadline_ms": 9}}', 700),
        (b'{"id": "one", "request": {"deadline_ms": 9}}', None),
        (b'{"deadline_ms": null}', None),
        (b'{"deadline_ms": 0}', None),
        (b'{"deadline_ms": -5}', None),
        (b'{"deadline_ms": "700"}', None),
        (b'{"deadline_ms": 700, "unknown": [1, {}]}', 700),
        (b"[1]", None),
        (b"no json", None),
        (b"", None),
        (b'{"a":' * 5000, None),
        (b'{"id": "\xff", "deadline_ms": 700}', 700),
    ],
)
def test_what_a_job_says_that_nobody_has_checked(
    data: bytes, deadline_ms: int | None
) -> None:
    assert read_deadline_ms(data) == deadline_ms
