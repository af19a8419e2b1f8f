"""What is not proven yet: kept, forgotten, and how much of it there may be."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.bus.cell import Cell
from bridge.bus.tail import MAX_UNPROVEN_BYTES, PING_EVERY_EVENTS
from tests.bus.written import (
    MakeWriter,
    end,
    numbered,
    stored,
    swept_cell,
    token,
    writer_on,
)
from tests.plain_client import eventually
from tests.servers import NatsServer


async def test_what_is_proven_is_forgotten(cell: Cell, writer_of: MakeWriter) -> None:
    writer = writer_of()
    for n in range(1, 5 * PING_EVERY_EVENTS):
        writer.append(token(n))

    async def forgotten() -> bool:
        return writer.unproven_bytes < 2 * PING_EVERY_EVENTS * len(token(100))

    await eventually(forgotten)
    await writer.commit(end(5 * PING_EVERY_EVENTS))
    assert await stored(cell) == numbered(5 * PING_EVERY_EVENTS)


async def test_a_slow_server_holds_the_reader_back(
    own_server: NatsServer, prefix: str
) -> None:
    async with swept_cell(own_server.url, prefix) as cell:
        room: list[int] = []
        writer = writer_on(cell)
        writer.on_room = lambda: room.append(1)
        writer.append(token(1))
        await writer.prove_start()
        own_server.freeze()
        seq = 1
        while not writer.full:
            seq += 1
            writer.append(token(seq, text="y" * 4000))
        assert MAX_UNPROVEN_BYTES < writer.unproven_bytes < MAX_UNPROVEN_BYTES + 5000
        assert not room
        own_server.thaw()

        async def relieved() -> bool:
            return not writer.full

        await eventually(relieved)
        assert room == [1]
        async with asyncio.timeout(20):
            await writer.commit(end(seq + 1))
        assert len(await stored(cell)) == seq + 1


LARGE = {"60 kB": (60_000, 50), "30 kB": (30_000, 120), "17 kB": (17_000, 200)}


@pytest.mark.parametrize(("size", "count"), LARGE.values(), ids=LARGE.keys())
async def test_large_events_flow_as_fast_as_they_are_stored(
    cell: Cell, writer_of: MakeWriter, size: int, count: int
) -> None:
    """Whoever waits for room gets it from the bus, not from the next ping."""
    writer = writer_of()
    room = asyncio.Event()
    writer.on_room = room.set
    writer.append(token(1))
    await writer.prove_start()
    began = time.monotonic()
    waited = 0
    for seq in range(2, count):
        writer.append(token(seq, text="y" * size))
        if writer.full:
            waited += 1
            room.clear()
            async with asyncio.timeout(20):
                await room.wait()
    await writer.commit(end(count))
    # Some 3 MB; the pings that keep a batch alive are 4 s apart.
    assert waited
    assert time.monotonic() - began < 4
    assert writer.repairs == 0
    assert len(await stored(cell)) == count


async def test_room_is_made_by_what_is_stored_of_this_batch(
    cell: Cell, writer_of: MakeWriter
) -> None:
    """Speech in between is counted too, and an event that is not ours proves none."""
    writer = writer_of()
    for seq in (1, 2, 3):
        writer.append(token(seq))
        writer.append_speech(b'{"seq":%d,"attempt":1}' % seq)
    writer.tail.prove_up_to(token(2, attempt=2))
    assert len(writer.tail.unproven) == 6
    writer.tail.prove_up_to(token(2))
    assert list(writer.tail.unproven) == [
        (writer.tail.speech, b'{"seq":2,"attempt":1}'),
        (writer.tail.subject, token(3)),
        (writer.tail.speech, b'{"seq":3,"attempt":1}'),
    ]
    await writer.prove_start()
    await writer.commit(end(4))
    assert await stored(cell) == numbered(4)


async def test_speech_rides_in_the_same_batch(
    cell: Cell, writer_of: MakeWriter
) -> None:
    writer = writer_of()
    writer.append(token(1))
    writer.append_speech(b'{"seq":1,"attempt":1}')
    await writer.prove_start()
    writer.append(token(2))
    writer.append_speech(b'{"seq":2,"attempt":1}')
    async with asyncio.timeout(20):
        await writer.commit(end(3))
    assert await stored(cell) == [token(1), token(2), end(3)]
    spoken = [message.data async for message in cell.read_speech("t", "one")]
    assert spoken == [b'{"seq":1,"attempt":1}', b'{"seq":2,"attempt":1}']
