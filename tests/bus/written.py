"""A log to write in a test: its events, what is stored of it, and who else writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.bus.writer import LogWriter
from bridge.config import BusSettings
from bridge.events import Cancelled, Event, JobIdentity, Timings, Token, encode

#: When the jobs of these tests were stored, in ns.
STORED_NS = 1_700_000_000_123_456_789


def numbered_job(seq: int) -> JobIdentity:
    """The job with a sequence."""
    return JobIdentity(seq, STORED_NS)


MakeWriter = Callable[..., LogWriter]


def token(seq: int, attempt: int = 1, text: str = "x") -> bytes:
    return encode(Token("one", seq, attempt, text))


def end(seq: int, attempt: int = 1) -> bytes:
    event: Event = Cancelled(
        "one", seq, attempt, reason="r", text="", timings=Timings(), metadata={}
    )
    return encode(event)


async def stored(cell: Cell, id: str = "one") -> list[bytes]:
    """The log, by direct get until it reaches the leader's last message."""
    async with asyncio.timeout(20):
        while True:
            last = await cell.last_stored("t", id)
            found = [message async for message in cell.read_log("t", id)]
            if last is None or (found and found[-1].seq >= last.seq):
                return [message.data for message in found]
            await asyncio.sleep(0.01)


def numbered(count: int, attempt: int = 1) -> list[bytes]:
    """A whole log: tokens, and an end as the last."""
    return [*(token(n, attempt) for n in range(1, count)), end(count, attempt)]


@contextlib.asynccontextmanager
async def swept_cell(url: str, prefix: str) -> AsyncIterator[Cell]:
    """A cell on a connection of its own: another worker, or another server."""
    settings = BusSettings(nats_url=url)
    connection = Connection(settings, name="other")
    await connection.connect()
    cell = Cell(connection, settings, prefix)
    await cell.ensure([Lane("default", 2.0)], "create")
    await cell.open()

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.05)
            cell.sweep(cell.now())

    sweeping = asyncio.create_task(sweep())
    try:
        yield cell
    finally:
        sweeping.cancel()
        await asyncio.wait([sweeping])
        for writer in list(cell.writers):
            writer.close()
        await connection.close()


def writer_on(cell: Cell, **options: Any) -> LogWriter:
    """A writer of request ``one`` of tenant ``t`` on a cell; owned for good."""
    values: dict[str, Any] = {
        "tenant": "t",
        "id": "one",
        "job": numbered_job(1),
        "attempt": 1,
        "stored": 0,
        "stored_speech": 0,
        "last_seq": 0,
        "owned": lambda: True,
        **options,
    }
    return LogWriter(cell, **values)
