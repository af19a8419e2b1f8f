"""An answer under way, over both transports: deltas, ends, pauses, aborts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from bridge.backends.http import Backends, make_backends
from bridge.backends.upstream import Upstream
from bridge.config import Settings
from bridge.dialects import Delta, TextDelta
from bridge.errors import BackendProtocolError, GenerationError, InternalError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

Serve = Callable[..., Awaitable[Any]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (
        text.encode()
    )


STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Taking:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ends: list[GenerationError | None] = []
        self.over = asyncio.Event()
        self.grown = asyncio.Event()
        self.fail: Exception | None = None
        self.unread = 0

    def deltas(self, deltas: Sequence[Delta]) -> None:
        if self.fail is not None:
            raise self.fail
        assert deltas
        self.texts += [d.text for d in deltas if isinstance(d, TextDelta)]
        self.grown.set()

    def skipped(self, count: int) -> None:
        self.unread += count

    def ended(self, error: GenerationError | None) -> None:
        self.ends.append(error)
        self.over.set()

    async def end(self) -> GenerationError | None:
        async with asyncio.timeout(20):
            await self.over.wait()
        await asyncio.sleep(0)
        assert len(self.ends) == 1
        return self.ends[0]

    async def count(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.texts) < count:
                self.grown.clear()
                await self.grown.wait()


@pytest_asyncio.fixture(params=["slim", "httpx"])
async def open_at(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[[str], Awaitable[Upstream]]]:
    made: list[Backends] = []

    async def make(url: str) -> Upstream:
        backends = make_backends(
            Settings(backend_url=f"{url}v1", backend_transport=request.param)
        )
        made.append(backends)
        return await backends.routes[0].open(b"{}")

    yield make
    for backends in made:
        await backends.aclose()


OpenAt = Callable[[str], Awaitable[Upstream]]


@pytest.mark.parametrize("last", [STOP + DONE, STOP, DONE])
async def test_a_whole_answer(
    serve: Serve, answering: Callable[..., Any], open_at: OpenAt, last: bytes
) -> None:
    body = event("Hel") + event("lo") + last
    server = await serve(answering(CHUNKED, chunk(body), b"0\r\n\r\n"))
    sink = Taking()
    (await open_at(server.url)).start(sink)
    assert await sink.end() is None
    assert sink.texts == ["Hel", "lo"]


async def test_done_ends_it_although_the_body_stays_open(
    serve: Serve, open_at: OpenAt
) -> None:
    async def lingering(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED, chunk(event("x") + STOP + DONE))
        await peer.eof()

    server = await serve(lingering)
    sink = Taking()
    (await open_at(server.url)).start(sink)
    assert await sink.end() is None
    async with asyncio.timeout(20):  # not for ever: the connection is given up
        await server.peers[0].closed.wait()


BROKEN: dict[str, tuple[bytes, str]] = {
    "no reason": (CHUNKED + chunk(event("x")) + b"0\r\n\r\n", "backend_protocol"),
    "cut off": (CHUNKED + chunk(event("x")), "backend_protocol"),
    "cut off in a chunk": (CHUNKED + b"ff\r\n" + event("x"), "backend_protocol"),
    "no chunk": (CHUNKED + chunk(event("x")) + b"zz\r\n", "backend_protocol"),
    "nothing": (CHUNKED + b"0\r\n\r\n", "backend_protocol"),
    "an error": (
        CHUNKED
        + chunk(event("x") + b'data: {"error":{"message":"full"}}\n\n')
        + b"0\r\n\r\n",
        "backend_error",
    ),
}


@pytest.mark.parametrize(("answer", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer(
    serve: Serve,
    answering: Callable[..., Any],
    open_at: OpenAt,
    answer: bytes,
    code: str,
) -> None:
    server = await serve(answering(answer, close=True))
    sink = Taking()
    (await open_at(server.url)).start(sink)
    error = await sink.end()
    assert error is not None
    assert error.code == code


async def test_a_reset(serve: Serve, open_at: OpenAt) -> None:
    async def resetting(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED, chunk(event("x")))
        await ready.wait()
        peer.reset()

    ready = asyncio.Event()
    server = await serve(resetting)
    sink = Taking()
    (await open_at(server.url)).start(sink)
    await sink.count(1)
    ready.set()
    error = await sink.end()
    assert error is not None
    assert error.code == "backend_unavailable"


async def test_what_the_sink_raises_ends_it(
    serve: Serve, answering: Callable[..., Any], open_at: OpenAt
) -> None:
    server = await serve(answering(CHUNKED, chunk(event("x")), close=True))
    sink = Taking()
    sink.fail = BackendProtocolError("the answer is too long")
    (await open_at(server.url)).start(sink)
    assert await sink.end() is sink.fail


async def test_a_defect_of_the_sink_ends_it_too(serve: Serve, open_at: OpenAt) -> None:
    async def endless(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(chunk(event("x")))
            await asyncio.sleep(0.001)

    server = await serve(endless)
    sink = Taking()
    sink.fail = RuntimeError("a defect")
    (await open_at(server.url)).start(sink)
    error = await sink.end()
    assert error is not None
    assert error.code == "internal"
    async with asyncio.timeout(20):
        await server.peers[0].closed.wait()


async def test_an_abort_closes_at_once_and_is_silent(
    serve: Serve, open_at: OpenAt
) -> None:
    async def endless(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(chunk(event("x")))
            await asyncio.sleep(0.001)

    server = await serve(endless)
    sink = Taking()
    upstream = await open_at(server.url)
    upstream.start(sink)
    await sink.count(3)
    upstream.abort()
    upstream.abort()
    seen = len(sink.texts)
    async with asyncio.timeout(20):
        await server.peers[0].closed.wait()
    assert len(sink.texts) == seen
    assert not sink.ends


async def test_an_abort_before_the_start(serve: Serve, open_at: OpenAt) -> None:
    async def waiting(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED, chunk(event("x")))
        await peer.eof()

    server = await serve(waiting)
    upstream = await open_at(server.url)
    upstream.abort()
    async with asyncio.timeout(20):
        await server.peers[0].closed.wait()


async def test_a_pause_lets_the_backend_wait(serve: Serve, open_at: OpenAt) -> None:
    sent = 0
    text = "y" * 10_000

    async def flooding(peer: Any) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(2000):
            await peer.send(chunk(event(text)))
            sent += 1
        await peer.send(chunk(STOP + DONE), b"0\r\n\r\n")

    server = await serve(flooding)
    sink = Taking()
    upstream = await open_at(server.url)
    upstream.start(sink)
    await sink.count(1)
    upstream.pause()
    assert upstream.paused
    before = -1
    async with asyncio.timeout(20):
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
    assert sent < 2000
    upstream.resume()
    assert await sink.end() is None
    assert len(sink.texts) == 2000
    assert "flowing" not in repr(upstream)


async def test_a_read_of_many_records_keeps_the_connection(
    serve: Serve, answering: Callable[..., Any]
) -> None:
    body = event("a") * 1000 + STOP + DONE + b": more\n\n" * 200
    server = await serve(answering(CHUNKED, chunk(body), b"0\r\n\r\n"))
    backends = make_backends(Settings(backend_url=f"{server.url}v1"))
    for _ in range(2):
        sink = Taking()
        (await backends.routes[0].open(b"{}")).start(sink)
        assert await sink.end() is None
        assert "".join(sink.texts) == "a" * 1000
        await asyncio.sleep(0)
    assert len(server.peers) == 1
    await backends.aclose()


@pytest.mark.parametrize("last", [STOP, STOP + DONE, event("x")])
async def test_a_defect_at_the_end_is_told(
    serve: Serve,
    answering: Callable[..., Any],
    open_at: OpenAt,
    monkeypatch: pytest.MonkeyPatch,
    last: bytes,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("bridge.dialects.openai.OpenAIResponse.receive_eof", fail)
    server = await serve(answering(CHUNKED, chunk(event("a") + last), b"0\r\n\r\n"))
    sink = Taking()
    (await open_at(server.url)).start(sink)
    error = await sink.end()
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, ValueError)
