"""One attempt's log on the real server: started, proven, ended, never with a hole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridge.bus.batch import batch_id
from bridge.bus.cell import Cell
from bridge.bus.refusals import Fenced, StartRefused, TooManyBatches
from bridge.bus.tail import PING_EVERY_EVENTS
from bridge.bus.writer import WriterState
from bridge.events import Resumed, encode
from tests.bus.written import (
    MakeWriter,
    end,
    numbered,
    numbered_job,
    stored,
    swept_cell,
    token,
    writer_on,
)
from tests.servers import NatsServer

# Proving


@pytest.mark.parametrize("events", [1, 2, 3, PING_EVERY_EVENTS + 1, 1000])
async def test_what_was_appended_is_stored_in_order(
    cell: Cell, writer_of: MakeWriter, events: int
) -> None:
    log = numbered(events)
    writer = writer_of()
    for payload in log[:-1]:
        writer.append(payload)
    await writer.commit(log[-1])
    assert writer.state is WriterState.COMMITTED
    assert writer.unproven_bytes == 0
    assert writer.repairs == 0
    assert await stored(cell) == log


async def test_the_start_is_proven_before_the_rest(
    cell: Cell, writer_of: MakeWriter
) -> None:
    log = numbered(20)
    writer = writer_of()
    writer.append(log[0])
    async with asyncio.timeout(20):
        await writer.prove_start()
    assert await stored(cell) == log[:1]
    for payload in log[1:-1]:
        writer.append(payload)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await writer.commit(log[-1])
    assert await stored(cell) == log


async def test_a_log_that_is_not_empty_refuses_the_start(
    cell: Cell, writer_of: MakeWriter
) -> None:
    first = writer_of()
    await first.commit(end(1))
    told: list[Exception] = []
    late = writer_of(job=numbered_job(2))
    late.on_failed = told.append
    late.append(token(1))
    with pytest.raises(StartRefused):
        await late.prove_start()
    assert len(told) == 1
    lone = writer_of(job=numbered_job(3))
    with pytest.raises(StartRefused):
        await lone.commit(end(1))
    assert late.state is lone.state is WriterState.FAILED
    assert await stored(cell) == [end(1)]


async def test_the_next_attempt_goes_on_behind_the_last_event(
    cell: Cell, writer_of: MakeWriter
) -> None:
    first = writer_of()
    first.append(token(1))
    first.append(token(2))
    await first.prove_start()
    first.close()
    await cell.batches.close([batch_id(numbered_job(1), 1, 0)])
    last = await cell.last_stored("t", "one")
    assert last is not None
    wrong = writer_of(attempt=2, stored=2, last_seq=last.seq - 1)
    wrong.append(token(3, 2))
    with pytest.raises(StartRefused):
        await wrong.prove_start()
    second = writer_of(attempt=3, stored=2, last_seq=last.seq)
    resumed = Resumed("one", 3, 3, after=2, mode="restart", reason="takeover")
    second.append(encode(resumed))
    await second.prove_start()
    await second.commit(end(4, 3))
    assert await stored(cell) == [token(1), token(2), encode(resumed), end(4, 3)]


async def test_many_logs_at_once(cell: Cell, writer_of: MakeWriter) -> None:
    async def write(n: int) -> None:
        writer = writer_of(id=f"r{n}", job=numbered_job(n))
        for seq in range(1, 50):
            writer.append(token(seq))
            if seq % 7 == 0:
                await asyncio.sleep(0)
        await writer.commit(end(50))
        writer.close()

    async with asyncio.timeout(30):
        await asyncio.gather(*(write(n) for n in range(1, 101)))
    for n in range(1, 101):
        assert await stored(cell, f"r{n}") == numbered(50)
    assert not cell.writers
    assert cell.repairs == 0


# Limits


async def test_over_the_servers_limit_of_batches(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path / "nats", batches=1)
    server.start()
    try:
        async with swept_cell(server.url, prefix) as cell:
            first = writer_on(cell)
            first.append(token(1))
            await first.prove_start()
            late = writer_on(cell, id="late", job=numbered_job(2))
            late.append(token(1))
            with pytest.raises(TooManyBatches):
                await late.prove_start()
            late.close()
            await first.commit(end(2))
            again = writer_on(cell, id="late", job=numbered_job(2))
            again.append(token(1))
            await again.prove_start()
            await again.commit(end(2))
            assert await stored(cell, "late") == [token(1), end(2)]
    finally:
        server.stop()


# Ends


async def test_closing_ends_those_who_wait(own_server: NatsServer, prefix: str) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        writer = writer_on(cell)
        writer.append(token(1))
        await writer.prove_start()
        own_server.freeze()
        committing = asyncio.create_task(writer.commit(end(2)))
        await asyncio.sleep(0)
        writer.close()
        writer.close()
        with pytest.raises(Fenced):
            await committing
        with pytest.raises(Fenced):
            await writer.prove_start()
        assert not cell.writers
        own_server.thaw()


async def test_a_commit_may_be_cancelled(own_server: NatsServer, prefix: str) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        writer = writer_on(cell)
        own_server.freeze()
        committing = asyncio.create_task(writer.commit(end(1)))
        await asyncio.sleep(0)
        committing.cancel()
        await asyncio.wait([committing])
        assert committing.cancelled()
        writer.close()
        own_server.thaw()


async def test_a_writer_shows_its_state(writer_of: MakeWriter) -> None:
    writer = writer_of()
    assert "idle" in repr(writer)
    writer.append(token(1))
    assert "open sent=1 unproven=1" in repr(writer)
