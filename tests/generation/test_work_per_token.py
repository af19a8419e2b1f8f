"""What the bridge does for one token, from the backend's bytes to NATS' socket.

Instructions and calls of the interpreter, counted over the real chain: decoder,
dialect, numbering, log and outbox. The ceilings leave room for another version of
Python, not for another way of doing it; a task, a timer, a log line or a labelled
metric per token goes through them at once.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from bridge.backends.http import Backends
from bridge.backends.pulled import PulledBody
from bridge.backends.upstream import Upstream
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.leases import Lease
from bridge.bus.streams import Lane
from bridge.bus.writer import LogWriter
from bridge.config import Settings
from bridge.decoders.sse import SSEDecoder
from bridge.dialects.openai import OpenAIResponse
from bridge.events import Job, JobIdentity
from bridge.generation.exchange import Around, Exchange
from bridge.generation.interrupt import Interrupt
from bridge.metrics import Meters
from bridge.sequence import Numbering
from bridge.transcript import Transcript
from tests.dialects.test_work_per_token import EVENT
from tests.servers import NatsServer
from tests.work import Work

#: Fewer than the events after which a ping goes out, which is not counted here.
TOKENS = 60


async def test_a_token_costs_no_more_than_it_did(
    nats_server: NatsServer, prefix: str
) -> None:
    settings = Settings(nats_url=nats_server.url)
    connection = Connection(settings, name="work")
    await connection.connect()
    cell = Cell(connection, settings, prefix)
    await cell.ensure([Lane("default", 10.0)], "create")
    await cell.open()
    writer = LogWriter(
        cell,
        tenant="default",
        id="one",
        job=JobIdentity(1, 0),
        attempt=1,
        stored=0,
        stored_speech=0,
        last_seq=0,
        owned=lambda: True,
    )
    body = PulledBody(httpx.Response(200))
    upstream = Upstream("test", body, SSEDecoder(), OpenAIResponse())
    # Not started: what the transport calls is called here.
    upstream._sink = _exchange(connection, writer, settings)
    upstream.body_received(b": the first read may hold a byte order mark\n\n")
    upstream.body_received(EVENT)

    def read_tokens() -> None:
        for _ in range(TOKENS):
            upstream.body_received(EVENT)

    work = Work().count(read_tokens)
    async with asyncio.timeout(20):
        while await _stored(cell) < 2 * TOKENS + 1:
            await asyncio.sleep(0.01)
    writer.close()
    await connection.close()
    assert work.instructions / TOKENS < 460
    assert work.calls / TOKENS < 30


async def _stored(cell: Cell) -> int:
    last = await cell.last_event("default", "one")
    return last.seq if last is not None else 0


def _exchange(
    connection: Connection, writer: LogWriter, settings: Settings
) -> Exchange:
    transcript = Transcript(
        Numbering("one", 1),
        writer.append,
        max_payload=connection.max_payload,
        max_text_bytes=settings.max_text_bytes,
    )
    around = Around(
        backends=Backends([], []),
        settings=settings,
        meters=Meters(),
        now=time.monotonic,
        lease=Lease(time.monotonic(), 60.0),
        writer=writer,
        voice=None,
        outbox=connection.outbox,
        interrupt=_unexpected,
    )
    job = Job("one", {"model": "m", "messages": [{}]})
    return Exchange(around, job, transcript, time.monotonic() + 60, None)


def _unexpected(stop: Interrupt) -> None:
    raise AssertionError(stop)
