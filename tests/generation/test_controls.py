"""What a worker remembers of the cancels that it has heard."""

from __future__ import annotations

import pytest

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.config import BusSettings
from bridge.events import Control
from bridge.generation.controls import (
    MAX_REMEMBERED,
    REMEMBER_S,
    Effect,
    Heard,
    HeardCancels,
    Key,
    effect,
)
from bridge.subjects import ControlAddress


def cell() -> Cell:
    """One that is connected to nothing."""
    settings = BusSettings()
    return Cell(Connection(settings, name="test"), settings, "llm")


def key(cell: Cell, name: str, kind: str = "request") -> Key:
    return cell, ControlAddress("default", kind, name)


def cancel(at: float, reason: str = "barge-in") -> Heard:
    return Heard(Control("cancel", reason), at)


async def test_the_oldest_first_and_only_what_it_is_about() -> None:
    here, there = cell(), cell()
    heard = HeardCancels()
    first, second = cancel(1.0, "first"), cancel(2.0, "second")
    heard.add(key(here, "one"), first)
    heard.add(key(here, "one"), second)
    assert heard.of(key(here, "one")) == [first, second]
    for other in (
        key(here, "two"),
        key(here, "one", "session"),
        key(there, "one"),
        (here, ControlAddress("acme", "request", "one")),
    ):
        assert heard.of(other) == []


async def test_forgotten_after_its_time() -> None:
    here = cell()
    heard = HeardCancels()
    heard.add(key(here, "one"), cancel(100.0))
    heard.add(key(here, "two"), cancel(101.0))
    heard.add(key(here, "one"), cancel(102.0))
    heard.sweep(100.0 + REMEMBER_S)
    assert len(heard.of(key(here, "one"))) == 2
    heard.sweep(101.5 + REMEMBER_S)
    assert heard.of(key(here, "one")) == [cancel(102.0)]
    assert heard.of(key(here, "two")) == []
    heard.sweep(1000.0)
    assert repr(heard) == "<HeardCancels 0>"


async def test_no_more_than_so_many() -> None:
    here = cell()
    heard = HeardCancels()
    for n in range(MAX_REMEMBERED + 2):
        heard.add(key(here, f"r{n}"), cancel(float(n)))
    assert repr(heard) == f"<HeardCancels {MAX_REMEMBERED}>"
    assert heard.of(key(here, "r1")) == []
    assert heard.of(key(here, "r2")) == [cancel(2.0)]


S = 1_000_000_000
HEARD_NS, BOUND_NS = 1000 * S, S // 1000

# (about, before, the job's sequence, how long it was stored before the hearing in ns)
EFFECTS = [
    ("request", None, 5, 0, Effect.CANCEL),
    ("request", None, 5, -60 * S, Effect.CANCEL),
    # Heard late, it may have been sent before the job was.
    ("session", None, 5, 60 * S, Effect.CANCEL),
    ("session", None, 5, 5 * S + BOUND_NS + 1, Effect.CANCEL),
    ("session", None, 5, 5 * S + BOUND_NS, Effect.LOOK),
    ("session", None, 5, 0, Effect.LOOK),
    ("session", None, 5, -60 * S, Effect.LOOK),
    # Of one stream the sequence tells, as far as it is one.
    ("session", 6, 5, 60 * S, Effect.CANCEL),
    ("session", 6, 5, BOUND_NS + 1, Effect.CANCEL),
    ("session", 6, 5, BOUND_NS, Effect.LOOK),
    ("session", 6, 5, -S, Effect.LOOK),
    ("session", 6, 6, 60 * S, Effect.NONE),
    ("session", 6, 7, 60 * S, Effect.NONE),
]


@pytest.mark.parametrize(("kind", "before", "seq", "age_ns", "expected"), EFFECTS)
def test_what_a_cancel_does_that_was_heard(
    kind: str, before: int | None, seq: int, age_ns: int, expected: Effect
) -> None:
    delivery = Delivery("", b"", "", "default", seq, 1, HEARD_NS - age_ns)
    control = Control("cancel", "barge-in", before)
    assert effect(kind, control, delivery, HEARD_NS, BOUND_NS) is expected
