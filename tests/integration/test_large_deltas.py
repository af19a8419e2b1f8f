"""Large deltas of a fast backend reach the log as fast as the bus takes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.plain_client import assert_whole, plain_client, request
from tests.servers import NatsServer, running_service

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)


@contextlib.asynccontextmanager
async def fast_backend(deltas: list[str]) -> AsyncIterator[str]:
    """Sends all of its answer at once; how fast it is read is the bridge's affair."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for text in deltas:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            writer.write(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        writer.write(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        writer.write(b"data: [DONE]\n\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"


SIZES = {"200 of 17 kB": (200, 17_000), "50 of 60 kB": (50, 60_000)}
SIZES |= {"120 of 30 kB": (120, 30_000), "15 of 250 kB": (15, 250_000)}


@pytest.mark.parametrize(("count", "size"), SIZES.values(), ids=SIZES.keys())
async def test_they_flow_at_the_speed_of_the_bus(
    nats_server: NatsServer, prefix: str, count: int, size: int
) -> None:
    deltas = [f"{n:06} ".ljust(size, "y") for n in range(count)]
    async with (
        fast_backend(deltas) as backend,
        running_service(nats_server.url, backend, prefix=prefix),
        plain_client(nats_server.url, prefix) as bus,
    ):
        began = time.monotonic()
        await bus.submit("one", request(), deadline_ms=20_000)
        end = await bus.ended("one")
        took = time.monotonic() - began
        assert end["type"] == "completed"
        # Of 3 to 4 MB; the pings that keep a batch alive are 4 s apart.
        assert took < 4
        await bus.settled()
        log = await bus.log("one")
    assert_whole(log)
    assert [e["text"] for e in log if e["type"] == "token"] == deltas
    assert [e["type"] for e in log if e["type"] != "token"] == ["started", "completed"]
