"""A watched stream: when it may be another, and what time its server has."""

from __future__ import annotations

import time

from bridge.bus.cell import Cell
from bridge.bus.stream_watch import LOOK_EVERY_S
from bridge.bus.streams import Lane
from bridge.config import BusSettings
from tests.bus.written import swept_cell
from tests.plain_client import eventually
from tests.servers import NatsServer


async def test_the_servers_time_is_known_when_the_streams_are(cell: Cell) -> None:
    known = cell.watch.time
    assert known.known
    off_ns = known.at(time.monotonic()) - time.time_ns()
    # One machine: one clock, and what the ways there and back have cost.
    assert abs(off_ns) <= known.bound_ns + 5_000_000
    assert known.bound_ns < 1_000_000_000


async def test_deleted_and_made_again(cell: Cell) -> None:
    before = cell.watch.epoch
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.jobs}")

    async def doubted() -> bool:
        return cell.watch.epoch > before

    await eventually(doubted)
    before = cell.watch.epoch
    await cell.ensure([Lane("default", 2.0)], "create")
    await eventually(doubted)


async def test_other_streams_are_none_of_its_business(cell: Cell) -> None:
    before = cell.watch.epoch
    for stream in (cell.names.tokens, cell.names.control):
        await cell.jetstream.call(f"STREAM.DELETE.{stream}")
    await cell.ensure([Lane("default", 2.0)], "create")
    await cell.connection.flush()
    assert cell.watch.epoch == before


async def test_without_advisories_its_creation_tells(
    cell: Cell, nats_server: NatsServer, bus_settings: BusSettings
) -> None:
    """As for a user who may not hear them: this one has not subscribed."""
    deaf = Cell(cell.connection, bus_settings, cell.subjects.prefix)
    await deaf.ensure([Lane("default", 2.0)], "verify")
    assert deaf.watch.epoch == 0
    await deaf.watch.look()
    assert deaf.watch.epoch == 0
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.jobs}")
    await deaf.ensure([Lane("default", 2.0)], "create")
    assert deaf.watch.epoch == 1


async def test_a_stream_that_is_gone_is_another_once(
    cell: Cell, bus_settings: BusSettings
) -> None:
    deaf = Cell(cell.connection, bus_settings, cell.subjects.prefix)
    await deaf.watch.look()
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.jobs}")
    now = time.monotonic()

    async def seen() -> bool:
        nonlocal now
        now += LOOK_EVERY_S
        deaf.watch.sweep(now)
        return deaf.watch.epoch > 0

    await eventually(seen)
    await deaf.watch.stop()
    for _ in range(2):
        now += LOOK_EVERY_S
        deaf.watch.sweep(now)
        await cell.connection.flush()
    await deaf.watch.stop()
    assert deaf.watch.epoch == 1
    await deaf.watch.stop()


async def test_a_reconnect_is_reason_to_doubt(
    own_server: NatsServer, prefix: str
) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        before = cell.watch.epoch
        own_server.stop()
        own_server.start()

        async def doubted() -> bool:
            return cell.watch.epoch > before

        await eventually(doubted)
        assert cell.watch.time.known
