from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from bridge.backends.transport import SlimTransport

if TYPE_CHECKING:
    from tests.backends.conftest import Handler, Peer, Server

    Serve = Callable[..., Awaitable[Server]]
    Answering = Callable[..., Handler]

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[SlimTransport]:
    async with SlimTransport() as transport:
        yield transport


def request(
    server: Server | str, method: str = "POST", **options: Any
) -> httpx.Request:
    url = server if isinstance(server, str) else server.url
    timeout = options.pop("timeout", {})
    if method == "POST":
        options.setdefault("content", b"{}")
    return httpx.Request(method, url, extensions={"timeout": timeout}, **options)


async def fetch(
    transport: SlimTransport, server: Server | str, method: str = "POST", **options: Any
) -> httpx.Response:
    """The response with its body read."""
    asked = request(server, method, **options)
    response = await transport.handle_async_request(asked)
    await response.aread()
    return response


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def counts(transport: SlimTransport) -> str:
    return repr(transport).removeprefix("<SlimTransport ").removesuffix(">")


class TestResponses:
    async def test_what_httpx_makes_of_it(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(
            answering(b"HTTP/1.1 418 Tea\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno")
        )
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.post(server.url, json={"a": 1})
        assert response.status_code == 418
        assert response.reason_phrase == "Tea"
        assert response.http_version == "HTTP/1.1"
        assert response.headers["x-a"] == "1"
        assert response.text == "no"
        head = server.peers[0].requests[0]
        assert head.startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:")

    @pytest.mark.parametrize(
        ("raw", "close"),
        [
            (HELLO, False),
            (CHUNKED + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: 1\r\n\r\n", False),
            (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", True),
            (b"HTTP/1.0 200 OK\r\n\r\nhello", True),
            (OK + b"\r\nhello", True),
            (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + HELLO, False),
        ],
    )
    async def test_byte_by_byte(
        self,
        transport: SlimTransport,
        serve: Serve,
        answering: Answering,
        raw: bytes,
        close: bool,
    ) -> None:
        pieces = [raw[i : i + 1] for i in range(len(raw))]
        server = await serve(answering(*pieces, close=close))
        for _ in range(3):
            assert (await fetch(transport, server)).content == b"hello"
        assert len(server.peers) == (3 if close else 1)

    @pytest.mark.parametrize(
        ("method", "raw"),
        [
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            ("HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        ],
    )
    async def test_no_body(
        self,
        transport: SlimTransport,
        serve: Serve,
        answering: Answering,
        method: str,
        raw: bytes,
    ) -> None:
        server = await serve(answering(raw))
        for _ in range(3):
            assert (await fetch(transport, server, method)).content == b""
        assert len(server.peers) == 1

    async def test_the_head_comes_before_the_body(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        go_on = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            await go_on.wait()
            await peer.send(b"5\r\nhello\r\n0\r\n\r\n")
            await peer.eof()

        server = await serve(handler)
        response = await transport.handle_async_request(request(server))
        assert counts(transport) == "open, 1 active, 0 idle"
        go_on.set()
        assert await response.aread() == b"hello"
        assert counts(transport) == "open, 0 active, 1 idle"

    async def test_an_answer_before_the_request(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n")
            await peer.eof()

        assert (await fetch(transport, await serve(handler))).status_code == 503


class TestRequestBodies:
    async def test_streamed(self, transport: SlimTransport, serve: Serve) -> None:
        received = bytearray()

        async def handler(peer: Peer) -> None:
            await peer.request()
            while not received.endswith(b"0\r\n\r\n"):
                received.extend(await peer.reader.readexactly(1))
            await peer.send(HELLO)
            await peer.eof()

        async def content() -> AsyncIterator[bytes]:
            yield b"a" * 10
            yield b"b"

        server = await serve(handler)
        response = await fetch(transport, server, content=content())
        assert response.content == b"hello"
        assert received == b"a\r\naaaaaaaaaa\r\n1\r\nb\r\n0\r\n\r\n"
        assert counts(transport) == "open, 0 active, 1 idle"

    async def test_a_large_one(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(answering(HELLO))
        for _ in range(2):
            response = await fetch(transport, server, content=b"x" * 5_000_000)
            assert response.content == b"hello"
        assert len(server.peers) == 1

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_answered_before_it_is_sent(
        self, transport: SlimTransport, serve: Serve, streamed: bool
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await peer.closed.wait()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 100_000

        server = await serve(handler)
        content = endless() if streamed else b"x" * 50_000_000
        response = await fetch(transport, server, content=content)
        assert response.status_code == 413
        assert response.content == b"no"
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")
        server.peers[0].closed.set()

    async def test_one_that_fails(self, transport: SlimTransport, serve: Serve) -> None:
        async def handler(peer: Peer) -> None:
            await peer.eof()

        async def content() -> AsyncIterator[bytes]:
            yield b"x"
            raise ValueError("out of x")

        server = await serve(handler)
        with pytest.raises(ValueError, match="out of x"):
            await fetch(transport, server, content=content())
        await until(lambda: server.peers and server.peers[0].closed.is_set())

    async def test_nothing_forbidden_is_sent(self, transport: SlimTransport) -> None:
        with pytest.raises(httpx.LocalProtocolError):
            await fetch(transport, "http://127.0.0.1:1/", headers={"A": "b\r\nC: d"})


class TestKeepAlive:
    async def test_one_connection_for_requests_in_turn(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(answering(HELLO))
        for _ in range(5):
            await fetch(transport, server)
        assert len(server.peers) == 1
        assert counts(transport) == "open, 0 active, 1 idle"

    async def test_last_in_first_out(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(answering(HELLO))
        together = [transport.handle_async_request(request(server)) for _ in range(9)]
        responses = await asyncio.gather(*together)
        last = responses.pop(3)
        for response in [*responses, last]:
            await response.aread()
        assert counts(transport) == "open, 0 active, 9 idle"
        for _ in range(5):
            await fetch(transport, server)
        used = [len(peer.requests) for peer in server.peers]
        assert sorted(used) == [1] * 8 + [6]

    async def test_by_origin(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        servers = [await serve(answering(HELLO)) for _ in range(2)]
        for server in servers * 2:
            await fetch(transport, server)
        assert [len(server.peers) for server in servers] == [1, 1]
        assert counts(transport) == "open, 0 active, 2 idle"

    async def test_idle_ones_expire(self, serve: Serve, answering: Answering) -> None:
        server = await serve(answering(HELLO))
        async with SlimTransport(keepalive_expiry_s=0.05) as transport:
            responses = await asyncio.gather(
                *[transport.handle_async_request(request(server)) for _ in range(3)]
            )
            for response in responses:
                await response.aread()
            await until(lambda: counts(transport) == "open, 0 active, 0 idle")
            await fetch(transport, server)
        assert len(server.peers) == 4

    async def test_none(self, serve: Serve, answering: Answering) -> None:
        server = await serve(answering(HELLO))
        async with SlimTransport(keepalive_expiry_s=0) as transport:
            for _ in range(3):
                await fetch(transport, server)
        assert len(server.peers) == 3

    @pytest.mark.parametrize("in_one_write", [True, False])
    @pytest.mark.parametrize("tail", [b"x", HELLO, b"\r\n\x00"])
    async def test_data_after_the_response_ends_the_connection(
        self, transport: SlimTransport, serve: Serve, in_one_write: bool, tail: bytes
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            if in_one_write:
                await peer.send(HELLO + tail)
            else:
                await peer.send(HELLO)
                await until(lambda: "1 idle" in repr(transport))
                await peer.send(tail)
            await peer.eof()

        server = await serve(handler)
        assert (await fetch(transport, server)).content == b"hello"
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")
        assert (await fetch(transport, server)).content == b"hello"
        assert len(server.peers) == 2

    async def test_a_close_of_the_server_is_noticed(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(answering(HELLO, close=True))
        await fetch(transport, server)
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")


class TestStaleConnections:
    @pytest.fixture
    async def stale(self, transport: SlimTransport, serve: Serve, how: str) -> Server:
        """A server that closes its first connection at the second request."""

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HELLO)
            if peer is server.peers[0]:
                # The client cannot have seen the close: its request comes before.
                await peer.reader.read(1)
                if how == "reset":
                    peer.reset()
                elif how == "a byte":
                    await peer.send(b"H")
                return
            await peer.eof()

        server: Server = await serve(handler)
        await fetch(transport, server)
        return server

    @pytest.mark.parametrize("how", ["closed", "reset"])
    async def test_are_replaced_once(
        self, transport: SlimTransport, stale: Server
    ) -> None:
        assert (await fetch(transport, stale)).content == b"hello"
        assert len(stale.peers) == 2

    @pytest.mark.parametrize("how", ["a byte"])
    async def test_not_after_a_byte_of_the_answer(
        self, transport: SlimTransport, stale: Server
    ) -> None:
        with pytest.raises(httpx.TransportError):
            await fetch(transport, stale)
        assert len(stale.peers) == 1

    @pytest.mark.parametrize("how", ["closed", "reset"])
    async def test_not_for_a_body_that_cannot_be_sent_again(
        self, transport: SlimTransport, stale: Server
    ) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield b"x"

        with pytest.raises(httpx.TransportError):
            await fetch(transport, stale, content=content())
        assert len(stale.peers) == 1

    async def test_a_new_connection_is_not_stale(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()

        server = await serve(handler)
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, server)
        assert len(server.peers) == 1


class TestFailures:
    async def test_refused(self, transport: SlimTransport) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
            with pytest.raises(httpx.ConnectError, match=url.rstrip("/")):
                await fetch(transport, url)

    async def test_no_name_for_dns(self, transport: SlimTransport) -> None:
        with pytest.raises(httpx.ConnectError, match=r"a\.\.b"):
            await fetch(transport, "http://a..b/")

    @pytest.mark.parametrize("url", ["ftp://h/", "/relative", "http:///path"])
    async def test_unsupported(self, transport: SlimTransport, url: str) -> None:
        with pytest.raises(httpx.UnsupportedProtocol):
            await transport.handle_async_request(
                httpx.Request("GET", url, headers={"Host": "h"})
            )

    async def test_connect_timeout(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            clients = [socket.socket() for _ in range(4)]
            try:
                for client in clients:  # until the backlog is full
                    client.setblocking(False)
                    client.connect_ex(address)
                async with SlimTransport(connect_timeout_s=0.05) as transport:
                    with pytest.raises(httpx.ConnectTimeout):
                        await fetch(transport, f"http://127.0.0.1:{address[1]}/")
                    with pytest.raises(httpx.ConnectTimeout):
                        await fetch(
                            transport,
                            f"http://127.0.0.1:{address[1]}/",
                            timeout={"connect": 0.01},
                        )
            finally:
                for client in clients:
                    client.close()

    async def test_read_timeout_is_for_the_head(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
            await peer.eof()

        server = await serve(handler)
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server, timeout={"read": 0.05})
        await until(server.peers[0].closed.is_set)

    async def test_write_timeout(self, transport: SlimTransport, serve: Serve) -> None:
        over = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await over.wait()

        server = await serve(handler)
        with pytest.raises(httpx.WriteTimeout):
            await fetch(
                transport, server, content=b"x" * 50_000_000, timeout={"write": 0.05}
            )
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")
        over.set()

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
            OK + b"X: y\r\n" * 300 + b"\r\n",
        ],
    )
    async def test_no_usable_head(
        self,
        transport: SlimTransport,
        serve: Serve,
        answering: Answering,
        raw: bytes,
    ) -> None:
        server = await serve(answering(raw, close=True))
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, server)
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")

    @pytest.mark.parametrize(
        "raw", [HELLO[:-1], CHUNKED + b"5\r\nhell", CHUNKED + b"5\r\nhello\r\n"]
    )
    async def test_a_body_that_is_cut_off(
        self,
        transport: SlimTransport,
        serve: Serve,
        answering: Answering,
        raw: bytes,
    ) -> None:
        server = await serve(answering(raw, close=True))
        response = await transport.handle_async_request(request(server))
        pieces = response.aiter_raw()
        assert (await anext(pieces)).startswith(b"hell")
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)

    @pytest.mark.parametrize("raw", [b"", CHUNKED, OK + b"\r\nhello"])
    async def test_reset(
        self, transport: SlimTransport, serve: Serve, raw: bytes
    ) -> None:
        answered = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(raw)
            if raw:
                await answered.wait()
            peer.reset()

        server = await serve(handler)
        if raw:
            response = await transport.handle_async_request(request(server))
            answered.set()
            with pytest.raises(httpx.ReadError):
                await response.aread()
        else:
            with pytest.raises(httpx.ReadError):
                await transport.handle_async_request(request(server))
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")


class TestCancelling:
    @pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\n"])
    async def test_a_request(
        self, transport: SlimTransport, serve: Serve, raw: bytes
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(raw)
            await peer.eof()

        server = await serve(handler)
        task = asyncio.create_task(fetch(transport, server))
        await until(lambda: server.peers and server.peers[0].requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(server.peers[0].closed.is_set)
        await until(lambda: counts(transport) == "open, 0 active, 0 idle")

    async def test_at_any_moment(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        """Nothing leaks, and no connection is closed under another request."""
        server = await serve(answering(HELLO))
        await fetch(transport, server)
        for turns in range(40):
            task = asyncio.create_task(fetch(transport, server))
            other = asyncio.create_task(fetch(transport, server))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await other).content == b"hello"
        await until(lambda: "0 active" in counts(transport))

    async def test_closing_an_unfinished_response(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + b"5\r\nhello\r\n")
            await peer.eof()

        server = await serve(handler)
        response = await transport.handle_async_request(request(server))
        await response.aclose()
        await until(server.peers[0].closed.is_set)
        assert counts(transport) == "open, 0 active, 0 idle"


class TestClosingTheTransport:
    async def test_ends_everything(self, serve: Serve, answering: Answering) -> None:
        async def handler(peer: Peer) -> None:
            head = await peer.request()
            if head.startswith(b"GET /idle"):
                await peer.send(HELLO)
            elif head.startswith(b"GET /open"):
                await peer.send(CHUNKED)
            await peer.eof()

        server = await serve(handler)
        transport = SlimTransport()
        opened = [
            await transport.handle_async_request(request(server.url + "open", "GET"))
            for _ in range(2)
        ]
        reading = asyncio.create_task(opened[0].aread())
        waiting = asyncio.create_task(fetch(transport, server))
        idle = await fetch(transport, server.url + "idle", "GET")
        assert idle.content == b"hello"
        await until(lambda: sum(len(peer.requests) for peer in server.peers) == 4)
        await transport.aclose()
        await transport.aclose()
        assert counts(transport) == "closed, 0 active, 0 idle"
        for task in (reading, waiting):
            with pytest.raises(httpx.ReadError, match="closed"):
                await task
        await until(lambda: all(peer.closed.is_set() for peer in server.peers))
        with pytest.raises(RuntimeError, match="closed"):
            await fetch(transport, server)

    async def test_while_connecting(self, serve: Serve, answering: Answering) -> None:
        server = await serve(answering(HELLO))
        for turns in range(8):
            transport = SlimTransport()
            task = asyncio.create_task(fetch(transport, server))
            for _ in range(turns):
                await asyncio.sleep(0)
            await transport.aclose()
            await asyncio.gather(task, return_exceptions=True)
            assert task.exception() is None or isinstance(
                task.exception(), (httpx.TransportError, RuntimeError)
            )
            async with asyncio.timeout(10):
                while counts(transport) != "closed, 0 active, 0 idle":
                    await asyncio.sleep(0.001)


class TestConcurrency:
    async def test_many_at_once(
        self, transport: SlimTransport, serve: Serve, answering: Answering
    ) -> None:
        server = await serve(
            answering(CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"), backlog=1000
        )
        for _ in range(2):
            responses = await asyncio.gather(
                *[fetch(transport, server) for _ in range(200)]
            )
            assert {response.content for response in responses} == {b"hello"}
        assert len(server.peers) <= 200

    async def test_each_gets_its_own(
        self, transport: SlimTransport, serve: Serve
    ) -> None:
        async def handler(peer: Peer) -> None:
            while True:
                path = (await peer.request()).split()[1]
                await peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(path), path)

        server = await serve(handler)

        async def client(number: int) -> None:
            for turn in range(10):
                path = f"client/{number}/{turn}"
                response = await fetch(transport, server.url + path)
                assert response.text == f"/{path}"

        await asyncio.gather(*[client(number) for number in range(20)])
        assert len(server.peers) <= 20


async def test_timed_out_in_any_turn_no_connection_is_waited_for(
    serve: Serve, answering: Answering
) -> None:
    server = await serve(answering(HELLO))
    for step in range(60):
        transport = SlimTransport(connect_timeout_s=step * 20e-6)
        request = httpx.Request("GET", server.url)
        with contextlib.suppress(httpx.ConnectTimeout):
            await transport.handle_async_request(request)
        async with asyncio.timeout(20):
            await transport.aclose()


async def test_cancelled_in_any_turn_no_connection_is_waited_for(
    serve: Serve, answering: Answering
) -> None:
    server = await serve(answering(HELLO))
    for turns in range(60):
        transport = SlimTransport()
        request = httpx.Request("GET", server.url)
        asking = asyncio.create_task(transport.handle_async_request(request))
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(20):
            await transport.aclose()
