"""What a worker remembers of the cancels that it has heard."""

from __future__ import annotations

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.config import BusSettings
from bridge.events import Control
from bridge.generation.controls import (
    MAX_REMEMBERED,
    REMEMBER_S,
    Heard,
    HeardCancels,
    Key,
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
