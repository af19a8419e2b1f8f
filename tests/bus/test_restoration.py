"""Streams that go missing are made again, and not for every job that finds it out."""

from __future__ import annotations

import asyncio

import pytest

from bridge.bus.cell import Cell
from bridge.bus.restoration import REMAKE_S, Restoration
from bridge.bus.streams import Lane
from tests.plain_client import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def restoration(cell: Cell, clock: Clock) -> Restoration:
    restoration = Restoration("create", clock)
    restoration.add(cell, Lane("default", 2.0))
    return restoration


async def lose(cell: Cell) -> None:
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    assert await cell.missing_streams() == [cell.names.tokens]


async def test_a_stream_is_made_again_once_in_a_while(
    cell: Cell, clock: Clock, restoration: Restoration
) -> None:
    await lose(cell)
    await asyncio.gather(*(restoration.remake(cell) for _ in range(10)))
    assert await cell.missing_streams() == []
    await lose(cell)
    await restoration.remake(cell)
    assert await cell.missing_streams() == [cell.names.tokens]
    clock.now += REMAKE_S
    await restoration.remake(cell)
    assert await cell.missing_streams() == []


async def test_a_look_restores_and_holds_nobody_up(
    cell: Cell, restoration: Restoration
) -> None:
    await lose(cell)
    restoration.look(cell)
    restoration.look(cell)

    async def restored() -> bool:
        return await cell.missing_streams() == []

    await eventually(restored)
    await restoration.stop()
    await restoration.stop()
