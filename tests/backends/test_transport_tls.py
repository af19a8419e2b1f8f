from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
import trustme

from bridge.backends.body import READ_HIGH_WATER, BodyStream
from bridge.backends.pool import READ_BYTES
from bridge.backends.transport import SlimTransport

if TYPE_CHECKING:
    from tests.backends.conftest import Handler, Peer, Server

    Serve = Callable[..., Awaitable[Server]]
    Answering = Callable[..., Handler]

#: What the kernel's buffers may hold on top of ours: tcp_rmem grows to 32 MiB.
KERNEL_BYTES = 64 * 1024 * 1024

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = HEAD + b"5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def serving(ca: trustme.CA) -> ssl.SSLContext:
    return server_context(ca, "127.0.0.1", "localhost")


@pytest_asyncio.fixture
async def transport(trusting: ssl.SSLContext) -> AsyncIterator[SlimTransport]:
    async with SlimTransport(ssl_context=trusting) as transport:
        yield transport


async def opened(transport: SlimTransport, url: str) -> httpx.Response:
    timeout = {"connect": 20.0}
    return await transport.handle_async_request(
        httpx.Request("POST", url, content=b"{}", extensions={"timeout": timeout})
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_requests_share_a_connection(
    transport: SlimTransport,
    serve: Serve,
    answering: Answering,
    serving: ssl.SSLContext,
    host: str,
) -> None:
    server = await serve(answering(HELLO), ssl=serving)
    for _ in range(3):
        response = await opened(transport, f"https://{host}:{server.port}/")
        assert await response.aread() == b"hello"
    assert len(server.peers) == 1


async def test_a_large_body_both_ways(
    transport: SlimTransport, serve: Serve, serving: ssl.SSLContext
) -> None:
    size = 3_000_000

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            await peer.send(head % size + b"y" * size)

    server = await serve(handler, ssl=serving)
    for _ in range(2):
        request = httpx.Request("POST", server.url, content=b"x" * size)
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"y" * size
    assert len(server.peers) == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_bad_certificate(
    trusting: ssl.SSLContext,
    serve: Serve,
    answering: Answering,
    ca: trustme.CA,
    trusted: bool,
) -> None:
    """A wrong name under a CA that is trusted, the right one under one that is not."""
    if trusted:
        transport = SlimTransport(ssl_context=trusting)
        serving = server_context(ca, "other.example")
        reason = "certificate is not valid for '127.0.0.1'"
    else:
        transport = SlimTransport()
        serving = server_context(ca, "127.0.0.1")
        reason = "unable to get local issuer certificate"
    server = await serve(answering(HELLO), ssl=serving)
    async with transport:
        with pytest.raises(httpx.ConnectError, match=reason):
            await opened(transport, server.url)
        assert repr(transport) == "<SlimTransport open, 0 active, 0 idle>"
    assert server.peers == []


async def test_no_tls_there(transport: SlimTransport, serve: Serve) -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(HELLO)

    server = await serve(handler)
    with pytest.raises(httpx.ConnectError):
        await opened(transport, f"https://127.0.0.1:{server.port}/")


async def test_a_handshake_that_hangs(transport: SlimTransport, serve: Serve) -> None:
    async def handler(peer: Peer) -> None:
        await peer.eof()

    server = await serve(handler)
    url = f"https://127.0.0.1:{server.port}/"
    request = httpx.Request("GET", url, extensions={"timeout": {"connect": 0.05}})
    with pytest.raises(httpx.ConnectTimeout):
        await transport.handle_async_request(request)
    await until(lambda: server.peers and server.peers[0].closed.is_set())


@pytest.mark.parametrize("how", ["abort", "aclose", "transport"])
async def test_closing_reaches_the_server(
    transport: SlimTransport, serve: Serve, serving: ssl.SSLContext, how: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        await peer.eof()

    server = await serve(handler, ssl=serving)
    response = await opened(transport, server.url)
    stream = response.stream
    assert isinstance(stream, BodyStream)
    if how == "abort":
        stream.abort()
    elif how == "aclose":
        await response.aclose()
    else:
        await transport.aclose()
    await until(server.peers[0].closed.is_set)
    await until(lambda: "0 active, 0 idle" in repr(transport))


async def test_a_body_that_ends_with_the_connection(
    transport: SlimTransport,
    serve: Serve,
    answering: Answering,
    serving: ssl.SSLContext,
) -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nhello"
    server = await serve(answering(raw, close=True), ssl=serving)
    for _ in range(2):
        response = await opened(transport, server.url)
        assert await response.aread() == b"hello"
    assert len(server.peers) == 2


async def test_backpressure(
    transport: SlimTransport, serve: Serve, serving: ssl.SSLContext
) -> None:
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(HEAD)
        while True:
            peer.writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await peer.writer.drain()
            sent += 0x4000

    server = await serve(handler, ssl=serving)
    response = await opened(transport, server.url)
    async with asyncio.timeout(20):
        before, quiet = -1, 0
        while quiet < 20:
            await asyncio.sleep(0.01)
            quiet = quiet + 1 if sent == before else 0
            before = sent
    assert 0 < sent < KERNEL_BYTES
    stream = response.stream
    assert isinstance(stream, BodyStream)
    assert int(repr(stream).split()[2]) <= READ_HIGH_WATER + READ_BYTES
    await response.aclose()
