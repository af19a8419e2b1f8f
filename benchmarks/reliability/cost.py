"""What the log costs: CPU per token over a plain publish, memory per request."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from pathlib import Path

from bridge.bus.cell import Cell
from bridge.bus.streams import Lane
from bridge.bus.writer import LogWriter
from bridge.events import JobIdentity
from bridge.sequence import Numbering
from tests.chaos import logs
from tests.chaos.scene import job, scene
from tests.servers import NatsServer

#: Streams that write at once, and the tokens of each.
STREAMS = 300
TOKENS = 400

#: Requests whose memory is measured, and the tokens of each.
REQUESTS = 200
LONG = 2000


async def price(rounds: int) -> tuple[float, float]:
    """CPU of this process per token in µs: a plain publish, and the proven log.

    The least of some rounds, each with `STREAMS` writers in turn; the log's figure has
    its start, its pings, their answers, and the commit of each request.
    """
    plain, logged = [], []
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        server.start()
        try:
            async with logs.connected(server.url, "llm") as cell:
                await cell.ensure([Lane("default", 2.0)], "create")
                await cell.open()
                for number in range(rounds):
                    plain.append(await _plain(cell, number))
                    logged.append(await _logged(cell, number))
        finally:
            server.kill()
    return min(plain) * 1e6, min(logged) * 1e6


async def _plain(cell: Cell, number: int) -> float:
    numberings = [Numbering(f"plain-{number}-{i}", 1) for i in range(STREAMS)]
    # A subject that no stream keeps, so that the server is not what is measured.
    subjects = [f"nowhere.tokens.default.{number}-{i}" for i in range(STREAMS)]
    gc.collect()
    begun = time.process_time()
    for _ in range(TOKENS):
        for subject, numbering in zip(subjects, numberings, strict=True):
            cell.connection.publish(subject, numbering.token(" token"))
        await asyncio.sleep(0.001)
    await cell.connection.flush(10)
    return (time.process_time() - begun) / (STREAMS * TOKENS)


async def _logged(cell: Cell, number: int) -> float:
    numberings = [Numbering(f"logged-{number}-{i}", 1) for i in range(STREAMS)]
    gc.collect()
    begun = time.process_time()
    writers = [
        LogWriter(
            cell,
            tenant="default",
            id=f"logged-{number}-{index}",
            job=JobIdentity(number * STREAMS + index, 0),
            attempt=1,
            stored=0,
            stored_speech=0,
            last_seq=0,
            owned=lambda: True,
        )
        for index in range(STREAMS)
    ]
    for _ in range(TOKENS - 1):
        for writer, numbering in zip(writers, numberings, strict=True):
            writer.append(numbering.token(" token"))
        await asyncio.sleep(0.001)
    await asyncio.gather(
        *(
            writer.commit(numbering.token(" end"))
            for writer, numbering in zip(writers, numberings, strict=True)
        )
    )
    spent = time.process_time() - begun
    for writer in writers:
        writer.close()
    return spent / (STREAMS * TOKENS)


async def memory() -> float:
    """KiB of a bridge per running request that has published `LONG` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            async with scene(
                Path(folder),
                server.url,
                "llm",
                ack_wait_s=10,
                slots=2 * REQUESTS,
                idle_timeout_s=300,
            ) as s:
                await s.start(s.first)
                # What the first requests cost once is no request's own.
                for one in [job(LONG, 0) for _ in range(REQUESTS // 4)]:
                    await s.submit(one)
                    await s.ended(one["id"])
                before = _resident_kib(s.first.pid)
                stall = {"stall_after": LONG}
                wanted = [job(LONG + 10, 2000, simulate=stall) for _ in range(REQUESTS)]
                for one in wanted:
                    await s.submit(one)
                for one in wanted:
                    await s.tokens(one["id"], LONG)
                await asyncio.sleep(2)
                return (_resident_kib(s.first.pid) - before) / REQUESTS
        finally:
            server.kill()


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])
