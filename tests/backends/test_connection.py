from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from bridge.backends.body import BodyStream
from bridge.backends.connection import Connection, Limits, Origin
from bridge.backends.pool import READ_BYTES, ConnectionPool
from bridge.backends.transport import Outgoing, SlimTransport

if TYPE_CHECKING:
    from tests.backends.conftest import Peer, Server

    Serve = Callable[..., Awaitable[Server]]

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
PIECE = b"x" * 16_384
ENDLESS_CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)

#: What the kernel's buffers may hold on top of ours (Linux lets tcp_rmem grow to
#: 32 MiB); with no backpressure the servers here would write on for ever.
KERNEL_BYTES = 64 * 1024 * 1024


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[SlimTransport]:
    async with SlimTransport() as transport:
        yield transport


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class Collector:
    """A receiver that counts, keeps the pieces on demand, and waits for the end."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.pieces: list[bytes] = []
        self.received = 0
        self.failure = failure
        self.ended: asyncio.Future[Exception | None]
        self.ended = asyncio.get_running_loop().create_future()

    def body_received(self, data: bytes) -> None:
        self.received += len(data)
        if len(self.pieces) < 100:
            self.pieces.append(data)
        if self.failure is not None:
            raise self.failure

    def body_ended(self, error: Exception | None) -> None:
        self.ended.set_result(error)


class Flood:
    """A handler that writes without end, and counts."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            peer.writer.write(ENDLESS_CHUNK)
            await peer.writer.drain()
            self.sent += len(PIECE)

    async def blocked(self) -> int:
        """Wait until nothing has gone out for a while; return how much had."""
        async with asyncio.timeout(20):
            before, quiet = -1, 0
            while quiet < 20:
                await asyncio.sleep(0.01)
                quiet = quiet + 1 if self.sent == before else 0
                before = self.sent
        return self.sent


async def opened(transport: SlimTransport, server: Server) -> BodyStream:
    request = httpx.Request("POST", server.url, content=b"{}")
    reply = await transport.exchange(Outgoing.of(request))
    return reply.body


def unread(stream: BodyStream) -> int:
    return int(repr(stream).split()[2])


class TestPush:
    async def test_a_piece_per_read(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        receiver: Collector

        async def handler(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(HEAD)
                for number in range(20):
                    await until(lambda n=number: len(receiver.pieces) == n)  # type: ignore[misc]
                    await peer.send(b"2\r\n%02d\r\n1\r\n!\r\n" % number)
                await peer.send(LAST)

        server = await serve(handler)
        for _ in range(2):
            receiver = Collector()
            (await opened(transport, server)).attach(receiver)
            assert await receiver.ended is None
            assert receiver.pieces == [b"%02d!" % number for number in range(20)]
        assert len(server.peers) == 1

    async def test_the_next_request_may_start_at_the_end(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(HEAD, b"1\r\na\r\n", LAST)

        class Again(Collector):
            def body_ended(self, error: Exception | None) -> None:
                self.idle = repr(transport)
                super().body_ended(error)

        receiver = Again()
        (await opened(transport, await serve(handler))).attach(receiver)
        assert await receiver.ended is None
        assert receiver.idle == "<SlimTransport open, 0 active, 1 idle>"

    async def test_abort_reaches_the_server(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD)
            await peer.eof()

        server = await serve(handler)
        receiver = Collector()
        stream = await opened(transport, server)
        stream.attach(receiver)
        stream.abort()
        await until(server.peers[0].closed.is_set)
        assert not receiver.ended.done()
        assert repr(transport) == "<SlimTransport open, 0 active, 0 idle>"

    @pytest.mark.parametrize("cut", [b"", b"4\r\nab", b"4\r\nabcd\r\n"])
    async def test_what_cuts_it_off_is_told(
        self, transport: SlimTransport, serve: Serve, cut: bytes
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD + cut)

        receiver = Collector()
        (await opened(transport, await serve(handler))).attach(receiver)
        assert isinstance(await receiver.ended, httpx.RemoteProtocolError)
        assert b"".join(receiver.pieces) == cut[3:7]

    async def test_a_receiver_that_fails_closes_its_connection(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD, b"1\r\na\r\n")
            await peer.eof()

        server = await serve(handler)
        failure = ValueError("no JSON")
        receiver = Collector(failure)
        (await opened(transport, server)).attach(receiver)
        assert await receiver.ended is failure
        await until(server.peers[0].closed.is_set)

    async def test_closing_the_transport_is_told(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        receiver = Collector()
        (await opened(transport, await serve(Flood()))).attach(receiver)
        await transport.aclose()
        assert isinstance(receiver.ended.result(), httpx.ReadError)


class TestBackpressure:
    async def test_of_a_paused_receiver(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        flood, receiver = Flood(), Collector()
        stream = await opened(transport, await serve(flood))
        stream.attach(receiver)
        await until(lambda: receiver.received > 1_000_000)
        stream.pause()
        stream.pause()
        sent = await flood.blocked()
        assert sent - receiver.received < KERNEL_BYTES
        held = receiver.received
        await asyncio.sleep(0.05)
        assert receiver.received == held
        stream.resume()
        await until(lambda: receiver.received > sent)
        stream.abort()

    async def test_of_a_slow_reader(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        flood = Flood()
        stream = await opened(transport, await serve(flood))
        sent = await flood.blocked()
        assert 0 < sent < KERNEL_BYTES
        assert unread(stream) <= Limits().read_high_water + READ_BYTES
        received = 0
        async for piece in stream:
            assert len(piece) <= Limits().read_high_water + READ_BYTES
            received += len(piece)
            if received > sent + 1_000_000:
                break
        await stream.aclose()

    async def test_a_connection_reads_again_after_a_paused_response(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(HEAD + b"20000\r\n" + b"x" * 0x20000 + b"\r\n" + LAST)

        server = await serve(handler)
        for _ in range(3):
            stream = await opened(transport, server)
            assert sum([len(piece) async for piece in stream]) == 0x20000
        assert len(server.peers) == 1


class TestOrigin:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("http://h", "http://h:80"),
            ("https://h/a?b", "https://h:443"),
            ("http://h:8080/", "http://h:8080"),
            ("http://[::1]:1/", "http://[::1]:1"),
            ("http://b\u00fccher.example/", "http://xn--bcher-kva.example:80"),
        ],
    )
    def test_of_a_url(self, url: str, origin: str) -> None:
        assert str(Origin.of(httpx.URL(url))) == origin


@pytest_asyncio.fixture
async def connected(serve: Serve) -> AsyncIterator[tuple[Connection, Server]]:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        await peer.eof()

    server = await serve(handler)
    pool = ConnectionPool(1.0)
    connection = Connection(Origin("http", "127.0.0.1", server.port), pool, Limits())
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", server.port)
    yield connection, server
    await pool.aclose()


async def test_repr_shows_the_state(connected: tuple[Connection, Server]) -> None:
    connection, server = connected
    name = f"<Connection http://127.0.0.1:{server.port} "
    assert repr(connection) == f"{name}idle>"
    answer = connection.begin("GET")
    assert repr(connection) == f"{name}waiting>"
    connection.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    await answer
    assert repr(connection) == f"{name}streaming>"
    connection.abort()
    assert repr(connection) == f"{name}closed>"


async def test_small_writes_are_not_held_back(
    connected: tuple[Connection, Server],
) -> None:
    connection, _ = connected
    transport: Any = connection._transport
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_closed_connection_ignores_what_is_asked_of_it(
    connected: tuple[Connection, Server],
) -> None:
    connection, server = connected
    connection.abort()
    connection.abort()
    connection.write(b"x")
    connection.pause_reading()
    connection.resume_reading()
    connection.fail(httpx.ReadError("late"))
    await until(lambda: not server.peers or server.peers[0].closed.is_set())
