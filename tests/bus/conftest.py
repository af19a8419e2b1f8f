"""A connection to the real server, and the streams of one prefix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.config import BusSettings
from tests.bus.written import MakeWriter, writer_on
from tests.plain_client import quiet_port
from tests.servers import NatsServer


@pytest.fixture
def bus_settings(nats_server: NatsServer) -> BusSettings:
    return BusSettings(nats_url=nats_server.url)


@pytest_asyncio.fixture
async def connection(bus_settings: BusSettings) -> AsyncIterator[Connection]:
    connection = Connection(bus_settings, name="test")
    async with asyncio.timeout(20):
        await connection.connect()
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def cell(
    connection: Connection, bus_settings: BusSettings, prefix: str
) -> AsyncIterator[Cell]:
    """A prefix with its streams, ready to write logs, swept like a worker's."""
    cell = Cell(connection, bus_settings, prefix)
    await cell.ensure([Lane("default", 2.0)], "create")
    await cell.open()

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.05)
            cell.sweep(cell.now())

    sweeping = asyncio.create_task(sweep())
    yield cell
    sweeping.cancel()
    await asyncio.wait([sweeping])
    for writer in list(cell.writers):
        writer.close()


@pytest.fixture
def writer_of(cell: Cell) -> MakeWriter:
    """Make a writer for request ``one`` of tenant ``t``; owned for good."""
    return partial(writer_on, cell)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.port = quiet_port()
    server.start()
    yield server
    server.stop()
