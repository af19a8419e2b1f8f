"""A server that says exactly what it is told to, and both event loops."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop

Handler = Callable[["Peer"], Awaitable[None]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    stock: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith(("test_transport", "test_connection")):
        return stock | {"uvloop": uvloop.new_event_loop}
    return stock


class Peer:
    """The server's end of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()

    async def request(self) -> bytes:
        """Read one request whole; return its head."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is not None:
            await self.reader.readexactly(int(length[1]))
        self.requests.append(head)
        return head

    async def send(self, *pieces: bytes) -> None:
        """Send every piece on its own, as far as TCP lets us."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def eof(self) -> None:
        """Wait until the client has closed."""
        while await self.reader.read(65536):
            pass
        self.closed.set()

    def reset(self) -> None:
        """Close by RST."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.transport.abort()


class Server:
    """A listening socket; ``peers`` are its connections, the oldest first."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.peers: list[Peer] = []
        self.failures: list[Exception] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.scheme = "http"
        self.port = 0

    async def start(self, **options: Any) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, **options
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.scheme = "https" if options.get("ssl") else "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self.handler(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            peer.closed.set()  # by the client, in the middle of something
        except asyncio.CancelledError:
            pass  # by `stop`
        except Exception as error:
            self.failures.append(error)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
        await self._server.wait_closed()
        assert not self.failures


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    servers = []

    async def start(handler: Handler, **options: Any) -> Server:
        server = Server(handler)
        await server.start(**options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def answering() -> Callable[..., Handler]:
    """Handlers that answer every request with the same pieces, or close after one."""

    def handler(*pieces: bytes, close: bool = False) -> Handler:
        async def answer(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(*pieces)
                if close:
                    return

        return answer

    return handler
