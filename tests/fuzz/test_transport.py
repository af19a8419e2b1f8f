"""Invariants: the slim transport makes of a response what httpx's own makes of it.

For a well-formed response, cut off anywhere and sent in any pieces, status, headers
and body are equal, or the class of the exception is. For any bytes at all it gives a
response or an `httpx.TransportError`, the parser gives the same however the bytes are
cut, and no more is kept than the limits allow.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import httpx
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.backends.http1 import ResponseParser
from bridge.backends.transport import SlimTransport

#: Making one takes longer than everything else that a test does.
NO_TLS = ssl.create_default_context()


class Script(NamedTuple):
    """What a server sends before it closes, and to which method."""

    method: str
    raw: bytes
    pieces: tuple[int, ...] = ()

    def split(self) -> Iterator[bytes]:
        cuts = sorted({cut % (len(self.raw) + 1) for cut in self.pieces})
        for start, end in zip([0, *cuts], [*cuts, len(self.raw)], strict=True):
            if start < end:
                yield self.raw[start:end]


class Server:
    """Answers each connection's one request by the script of the moment, and closes.

    In a thread of its own, with blocking sockets: nothing of the loops under test.
    """

    def __init__(self) -> None:
        self.script = Script("GET", b"")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/"

    def _run(self) -> None:
        while True:
            client, _ = self._listening.accept()
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not self._answer(client):
                    return

    def _answer(self, client: socket.socket) -> bool:
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            data = client.recv(65536)
            if not data:
                return False
            received += data
        try:
            for piece in self.script.split():
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except OSError:
            pass  # the client had enough of it
        return True

    def stop(self) -> None:
        with socket.create_connection(self._listening.getsockname()):
            pass
        self._thread.join()
        self._listening.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


class Seen(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    reason: object
    version: object
    body: bytes


async def fetch(
    transport: httpx.AsyncBaseTransport, url: str, method: str
) -> Seen | type[Exception]:
    timeout = {"connect": 20, "read": 20, "write": 20, "pool": 20}
    async with asyncio.timeout(60), transport:
        request = httpx.Request(method, url, extensions={"timeout": timeout})
        try:
            response = await transport.handle_async_request(request)
            body = b"".join([piece async for piece in response.aiter_raw()])
        except httpx.TransportError as error:
            return type(error)
        return Seen(
            response.status_code,
            response.headers.raw,
            response.extensions["reason_phrase"],
            response.extensions["http_version"],
            body,
        )


names = st.text("abcXYZ-019!", min_size=1, max_size=8).map("x-{}".format)
values = st.text("azAZ09 \t\"'(),;:=/", max_size=20).map(str.strip)
fields = st.lists(st.tuples(names, values), max_size=5).map(
    lambda pairs: "".join(f"{name}: {value}\r\n" for name, value in pairs).encode()
)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Header fields that frame a body, and the body so framed."""
    pieces = draw(bodies)
    kind = draw(st.sampled_from(["sized", "chunked", "close"]))
    if kind == "sized":
        body = b"".join(pieces)
        return b"Content-Length: %d\r\n" % len(body), body
    if kind == "close":
        return b"", b"".join(pieces)
    chunks = [
        b"%x%b\r\n%b\r\n" % (len(piece), draw(extensions), piece) for piece in pieces
    ]
    last = b"0" + draw(extensions) + b"\r\n" + draw(fields) + b"\r\n"
    return b"Transfer-Encoding: chunked\r\n", b"".join([*chunks, last])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A well-formed response, possibly after informational ones."""
    early = b"".join(
        b"HTTP/1.1 %d Wait\r\n%b\r\n" % (draw(st.sampled_from([100, 102, 103])), extra)
        for extra in draw(st.lists(fields, max_size=2))
    )
    status = draw(st.one_of(st.sampled_from([200, 204, 304]), st.integers(200, 599)))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    reason = draw(st.sampled_from([b" OK", b" Not At All", b" ", b""]))
    connection = draw(
        st.sampled_from([b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
    )
    framing, body = draw(framed())
    if version == b"1.0" and framing.startswith(b"Transfer"):
        version = b"1.1"  # there are no chunks in HTTP/1.0
    if status in (204, 304):
        framing, body = b"", b""
    head = b"HTTP/%b %d%b\r\n" % (version, status, reason)
    before, after = draw(fields), draw(fields)
    return early + head + before + framing + connection + after + b"\r\n" + body


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    raw = draw(responses())
    if draw(st.booleans()):
        raw = raw[: draw(st.integers(0, len(raw)))]
    pieces = draw(st.lists(st.integers(0, 4000), max_size=6))
    method = draw(st.sampled_from(["GET", "GET", "POST", "HEAD"]))
    if method == "HEAD":
        raw = raw[: raw.rfind(b"\r\n\r\n") + 4] if b"\r\n\r\n" in raw else raw
    return Script(method, raw, tuple(pieces))


slow = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)


@slow
@given(script=scripts())
def test_parity_with_httpx(
    runner: asyncio.Runner, server: Server, script: Script
) -> None:
    server.script = script
    ours = runner.run(fetch(SlimTransport(), server.url, script.method))
    theirs = runner.run(
        fetch(httpx.AsyncHTTPTransport(verify=NO_TLS), server.url, script.method)
    )
    assert ours == theirs


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A response with some bytes changed, added or removed."""
    raw = bytearray(draw(responses()))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(raw)))
        new = draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b":"])))
        raw[place : place + draw(st.integers(0, 3))] = new
    return bytes(raw)


anything = st.one_of(spoiled(), st.binary(max_size=200), responses())


@slow
@given(raw=anything, pieces=st.lists(st.integers(0, 4000), max_size=4))
def test_a_response_or_a_transport_error(
    runner: asyncio.Runner, server: Server, raw: bytes, pieces: list[int]
) -> None:
    server.script = Script("GET", raw, tuple(pieces))
    seen = runner.run(fetch(SlimTransport(), server.url, "GET"))
    assert isinstance(seen, Seen) or seen in (
        httpx.RemoteProtocolError,
        httpx.ReadError,
    )


def parse(method: str, pieces: list[bytes]) -> tuple[object, ...]:
    parser = ResponseParser(method, max_head_bytes=300, max_headers=6)
    body = b""
    for piece in pieces:
        body += parser.receive_data(piece)
        if parser.done:
            break
    parser.receive_eof()
    outcome = (parser.head, body, parser.error is None)
    parser.close()
    return outcome


@settings(max_examples=300, deadline=None)
@given(raw=anything, cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_cuts_make_no_difference(raw: bytes, cuts: list[int]) -> None:
    whole = parse("GET", [raw])
    cut = parse("GET", list(Script("GET", raw, tuple(cuts)).split()))
    if len(raw) <= 300:  # beyond, where a read ends decides when a limit is seen
        assert cut == whole


unbounded: list[Callable[[bytes], bytes]] = [
    lambda junk: b"HTTP/1.1 200 " + junk,
    lambda junk: b"HTTP/1.1 200 OK\r\nX: " + junk,
    lambda junk: b"HTTP/1.1 200 OK\r\n" + junk,
    lambda junk: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + junk,
    lambda junk: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + junk,
]


@settings(max_examples=200, deadline=None)
@given(
    endless=st.sampled_from(unbounded),
    junk=st.text("abc :;=", min_size=1, max_size=20),
    size=st.integers(1, 400),
)
def test_nothing_goes_on_for_ever(
    endless: Callable[[bytes], bytes], junk: str, size: int
) -> None:
    raw = endless(junk.encode() * 1000)[:1200]
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    parser = ResponseParser("GET", max_head_bytes=300, max_headers=6)
    fed = 0
    for piece in pieces:
        if parser.done:
            break
        parser.receive_data(piece)
        fed += len(piece)
    parser.close()
    assert fed <= 300 + 2 * size + 100
