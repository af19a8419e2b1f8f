from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from bridge.backends.body import BodyStream


class Socket:
    """Records what the stream asks of its connection."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def abort(self) -> None:
        self.calls.append("abort")


class Collector:
    """A receiver that keeps what it gets, and may do something on the first piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.stream: BodyStream | None = None
        self.failure: Exception | None = None

    def body_received(self, data: bytes) -> None:
        assert not self.ends
        self.pieces.append(data)
        if self.stream is not None:
            self.stream.abort()
        if self.failure is not None:
            raise self.failure

    def body_ended(self, error: Exception | None) -> None:
        self.ends.append(error)


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest.fixture
def stream(socket: Socket) -> BodyStream:
    return BodyStream(socket, high_water=10)


class TestPush:
    def test_piece_by_piece(self, stream: BodyStream, socket: Socket) -> None:
        receiver = Collector()
        stream.attach(receiver)
        stream.feed_data(b"a")
        stream.feed_data(b"b" * 100)
        stream.feed_eof(None)
        assert receiver.pieces == [b"a", b"b" * 100]
        assert receiver.ends == [None]
        assert socket.calls == []

    def test_what_came_before_comes_at_once(
        self, stream: BodyStream, socket: Socket
    ) -> None:
        stream.feed_data(b"a" * 6)
        stream.feed_data(b"b" * 6)
        assert socket.calls == ["pause"]
        receiver = Collector()
        stream.attach(receiver)
        assert receiver.pieces == [b"a" * 6 + b"b" * 6]
        assert receiver.ends == []
        assert socket.calls == ["pause", "resume"]

    @pytest.mark.parametrize("error", [None, httpx.ReadError("broken")])
    def test_a_body_that_has_ended_before(
        self, stream: BodyStream, error: Exception | None
    ) -> None:
        stream.feed_data(b"a")
        stream.feed_eof(error)
        receiver = Collector()
        stream.attach(receiver)
        assert receiver.pieces == [b"a"]
        assert receiver.ends == [error]

    def test_backpressure_goes_to_the_socket(
        self, stream: BodyStream, socket: Socket
    ) -> None:
        stream.attach(Collector())
        stream.pause()
        stream.resume()
        assert socket.calls == ["pause", "resume"]
        stream.feed_eof(None)
        stream.pause()
        assert socket.calls == ["pause", "resume"]

    def test_abort_is_the_end(self, stream: BodyStream, socket: Socket) -> None:
        receiver = Collector()
        stream.attach(receiver)
        stream.abort()
        stream.abort()
        stream.feed_data(b"late")
        stream.feed_eof(httpx.ReadError("late"))
        assert socket.calls == ["abort"]
        assert receiver.pieces == []
        assert receiver.ends == []

    @pytest.mark.parametrize("ended", [False, True])
    def test_abort_from_within(
        self, stream: BodyStream, socket: Socket, ended: bool
    ) -> None:
        receiver = Collector()
        receiver.stream = stream
        stream.feed_data(b"a")
        if ended:
            stream.feed_eof(None)
        stream.attach(receiver)
        stream.feed_data(b"b")
        stream.feed_eof(None)
        assert receiver.pieces == [b"a"]
        assert receiver.ends == []
        assert socket.calls == ([] if ended else ["abort"])

    @pytest.mark.parametrize("attached_first", [True, False])
    def test_a_receiver_that_fails_is_told_once(
        self, stream: BodyStream, socket: Socket, attached_first: bool
    ) -> None:
        receiver = Collector()
        receiver.failure = ValueError("no JSON")
        if attached_first:
            stream.attach(receiver)
            stream.feed_data(b"a")
        else:
            stream.feed_data(b"a")
            stream.attach(receiver)
        stream.feed_data(b"b")
        stream.feed_eof(None)
        assert receiver.pieces == [b"a"]
        assert receiver.ends == [receiver.failure]
        assert socket.calls == ["abort"]

    async def test_a_receiver_that_fails_at_the_end_is_reported(
        self, stream: BodyStream
    ) -> None:
        class Broken(Collector):
            def body_ended(self, error: Exception | None) -> None:
                raise ValueError("at the end")

        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reports.append(context)
        )
        stream.attach(Broken())
        stream.feed_eof(None)
        assert [str(report["exception"]) for report in reports] == ["at the end"]


class TestPull:
    async def test_everything_unread_at_a_time(self, stream: BodyStream) -> None:
        reader = aiter(stream)
        stream.feed_data(b"a")
        stream.feed_data(b"b")
        assert await anext(reader) == b"ab"
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        stream.feed_data(b"c")
        assert await waiting == b"c"
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        stream.feed_eof(None)
        with pytest.raises(StopAsyncIteration):
            await waiting

    async def test_an_error_comes_after_the_data(self, stream: BodyStream) -> None:
        stream.feed_data(b"a")
        stream.feed_eof(httpx.ReadError("broken"))
        reader = aiter(stream)
        assert await anext(reader) == b"a"
        with pytest.raises(httpx.ReadError, match="broken"):
            await anext(reader)

    async def test_watermark(self, stream: BodyStream, socket: Socket) -> None:
        stream.feed_data(b"a" * 10)
        assert socket.calls == []
        stream.feed_data(b"b")
        assert socket.calls == ["pause"]
        reader = aiter(stream)
        await anext(reader)
        assert socket.calls == ["pause", "resume"]
        stream.feed_data(b"c")
        await anext(reader)
        assert socket.calls == ["pause", "resume"]
        stream.feed_eof(None)
        assert [piece async for piece in reader] == []

    async def test_leaving_early_closes(
        self, stream: BodyStream, socket: Socket
    ) -> None:
        stream.feed_data(b"a")
        async with contextlib.aclosing(stream.__aiter__()) as reader:  # type: ignore[type-var]
            async for _ in reader:
                break
        assert socket.calls == ["abort"]

    async def test_cancelled(self, stream: BodyStream, socket: Socket) -> None:
        waiting = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert socket.calls == ["abort"]

    async def test_closed_by_another_task(
        self, stream: BodyStream, socket: Socket
    ) -> None:
        waiting = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(httpx.StreamClosed):
            await waiting
        assert socket.calls == ["abort"]

    async def test_an_ended_body_needs_no_closing(
        self, stream: BodyStream, socket: Socket
    ) -> None:
        stream.feed_data(b"a")
        stream.feed_eof(None)
        await stream.aclose()
        assert socket.calls == []


async def test_read_once(stream: BodyStream) -> None:
    stream.feed_eof(None)
    assert [piece async for piece in stream] == []
    with pytest.raises(httpx.StreamConsumed):
        await anext(aiter(stream))
    with pytest.raises(httpx.StreamConsumed):
        stream.attach(Collector())


async def test_not_after_closing(stream: BodyStream) -> None:
    stream.abort()
    with pytest.raises(httpx.StreamClosed):
        await anext(aiter(stream))
    with pytest.raises(httpx.StreamClosed):
        stream.attach(Collector())


def test_repr_shows_the_state(stream: BodyStream) -> None:
    stream.feed_data(b"abc")
    assert repr(stream) == "<BodyStream open, 3 bytes unread>"
    stream.attach(Collector())
    assert repr(stream) == "<BodyStream pushed, 0 bytes unread>"
    stream.abort()
    assert repr(stream) == "<BodyStream ended, 0 bytes unread>"
