"""A request whose job or log is gone ends for its readers, with words.

The faults are caused on a real server: its store wiped, its streams deleted. How long a
reader waits is shortened, so that no test waits for minutes.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bridge import Client, Failed, LogExpired, RequestLost, Stream
from bridge.bus.streams import Lane
from bridge.client import reader as readers
from bridge.simulator import Behaviour, Simulator
from tests.client.bridge_side import PATIENCE_S, Author, Bus, eventually, running_bus
from tests.servers import NatsServer, running_service

READERS = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server for the test alone, which may wipe it."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with asyncio.timeout(3 * PATIENCE_S), running_bus(server, "llm") as bus:
        yield bus


def wipe(server: NatsServer) -> None:
    """NATS comes back empty."""
    server.kill()
    shutil.rmtree(server.folder / "store")
    server.start()


async def ending(stream: Stream) -> str:
    """How a reader ends: the terminal event's type and code, or the error's."""
    try:
        async for _ in stream:
            pass
    except RequestLost as error:
        return type(error).__name__
    end = stream.end
    return end.error.code if isinstance(end, Failed) else type(end).__name__


async def test_readers_of_a_wiped_server_all_end(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "EMPTY_S", 3.0)
    pace = Behaviour(first_token_ms=5, tokens_per_second=100)
    async with (
        asyncio.timeout(3 * PATIENCE_S),
        Simulator(behaviour=pace) as simulator,
        running_service(server.url, simulator.url, slots=READERS),
        Client(server.url, model="simulator") as client,
        Client(server.url, model="simulator") as late,
    ):
        streams = [
            client.stream(f"Hi {n}", max_tokens=3000, deadline_ms=60_000)
            for n in range(READERS)
        ]
        for stream in streams:
            while stream.seq < 20:
                await anext(stream)
        # Some have read their log already, and know its places in the stream.
        streams += [late.join(stream.id) for stream in streams]
        for stream in streams[READERS:]:
            await anext(stream)
        wipe(server)
        ends = await asyncio.gather(*(ending(stream) for stream in streams))
    assert set(ends) <= {"log_lost", "RequestLost"}
    assert "log_lost" in ends


async def test_a_wiped_server_that_nobody_fills_again(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "EMPTY_S", 0.5)
    async with Client(server.url, model="m") as client:
        streams = [client.stream("Hi", id=f"wiped-{n}") for n in range(READERS)]
        for stream in streams:
            await begin(bus, stream)
        wipe(server)
        ends = await asyncio.gather(*(ending(stream) for stream in streams))
    assert ends == ["RequestLost"] * READERS


async def begin(bus: Bus, stream: Stream) -> None:
    """Read the first events of a stream, which are there."""
    await stream.__aenter__()
    author = Author(stream.id)
    await bus.log(author.started(), *author.tokens(3))
    for _ in range(4):
        await anext(stream)


async def reconnected(bus: Bus, before: int) -> bool | None:
    return bus.connection.reconnects > before or None


@pytest.mark.parametrize("traffic", [0, 500])
@pytest.mark.parametrize("joined", [True, False])
async def test_an_end_with_another_numbering_after_a_wipe(
    server: NatsServer, bus: Bus, traffic: int, joined: bool
) -> None:
    """The stream's sequences begin anew, below or above what the reader has read."""
    author = Author("one")
    await bus.log(*Author("other").tokens(50))
    async with Client(server.url, model="m") as client:
        stream = client.join("one") if joined else client.stream("Hi", id="one")
        async with stream:
            await bus.log(author.started(), *author.tokens(8))
            assert [(await anext(stream)).seq for _ in range(9)] == [*range(1, 10)]
            reading = asyncio.ensure_future(ending(stream))
            before = bus.connection.reconnects
            wipe(server)
            await eventually(lambda: reconnected(bus, before))
            await bus.cell.ensure([Lane("default", 2.0)], "create")
            await bus.log(*Author("other").tokens(traffic))
            author.tokens(5)  # which nobody heard
            end = author.failed("log_lost")
            await bus.log(end)
            assert await reading == "log_lost"
            assert stream.end == end


async def test_a_queued_job_that_is_gone(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LOST_AFTER_S", 0.5)
    async with Client(server.url, model="m") as client:
        streams = [
            client.stream("Hi", id=f"gone-{n}", deadline_ms=1000)
            for n in range(READERS)
        ]
        for stream in streams:
            await stream.__aenter__()
        assert await bus.jobs() == READERS
        await bus.cell.jetstream.call(f"STREAM.DELETE.{bus.cell.names.jobs}")
        begun = asyncio.get_running_loop().time()
        ends = await asyncio.gather(*(ending(stream) for stream in streams))
        assert ends == ["RequestLost"] * READERS
        assert 1 < asyncio.get_running_loop().time() - begun < PATIENCE_S
        await bus.cell.ensure([Lane("default", 2.0)], "create")
        with pytest.raises(RequestLost, match=r"stream LLM_JOBS.*tokenbridge check"):
            await client.generate("Hi", deadline_ms=1)


async def test_a_log_whose_head_was_discarded(server: NatsServer) -> None:
    """A running log outgrows its stream: live goes on, and a late reader is told."""
    async with (
        asyncio.timeout(3 * PATIENCE_S),
        running_bus(server, "llm", tokens_max_bytes=20_000) as bus,
        Client(server.url, model="m") as client,
        client.stream("Hi", id="long") as stream,
    ):
        author = Author("long")
        events = [author.started(), *author.tokens(300)]
        reading = asyncio.ensure_future(read_all(stream))
        for event in events:
            await bus.log(event)
        late = client.join("long")
        with pytest.raises(LogExpired, match="begins at seq"):
            await anext(late)
        end = author.completed()
        await bus.log(end)
        assert await reading == [event.seq for event in [*events, end]]
        assert stream.confirmed
        with pytest.raises(LogExpired):
            await anext(client.join("long", from_seq=2))
        tail = client.join("long", from_seq=298)
        assert [event.seq async for event in tail] == [298, 299, 300, 301, 302]


async def read_all(stream: Stream) -> list[int]:
    return [event.seq async for event in stream]
