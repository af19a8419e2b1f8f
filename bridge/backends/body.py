"""A response's body: pulled by ``async for``, or pushed into a receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import httpx

#: What may wait unread before the socket is paused; one read more (64 KiB at most) can
#: come on top. A token is about 250 bytes: 64 KiB is seconds of a fast model.
READ_HIGH_WATER = 64 * 1024


class Receiver(Protocol):
    """What a body is pushed into, from the socket's own callback.

    Called in the loop's thread, in order, never re-entered by the stream. An exception
    out of `body_received` closes the connection and comes back in `body_ended`.
    """

    def body_received(self, data: bytes) -> None:
        """Take the next bytes, never empty: one call per read of the socket."""

    def body_ended(self, error: Exception | None) -> None:
        """The last call: ``None`` for a whole body, else what cut it off.

        `httpx.RemoteProtocolError`, `httpx.ReadError`, or what `body_received` raised.
        May come while paused.
        """


class Body(Protocol):
    """A response's body, whichever transport brings it: see `BodyStream`."""

    def attach(self, receiver: Receiver) -> None:
        """Push the body into ``receiver`` from now on."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Drop the rest and close the connection; nobody hears anything more."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over what comes, instead of `attach`."""

    async def aclose(self) -> None:
        """Give the body back, read or not."""


class Source(Protocol):
    """Where a body comes from: what the stream may ask of its connection."""

    def pause_reading(self) -> None:
        """Let the server wait."""

    def resume_reading(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Close at once, without a word to the stream."""


class BodyStream(httpx.AsyncByteStream):
    """The body of one response, as it came: transfer coding undone, content coding not.

    Either iterated, once, by one task (cancellable; leaving the loop early closes the
    connection); or given a receiver by `attach`, which costs no task, no future and no
    wake-up per read. No timeout in either: sweep for what has been silent too long
    and `abort` it. Closing an unfinished body closes its connection.
    """

    __slots__ = (
        "_buffer",
        "_buffered",
        "_ended",
        "_error",
        "_high_water",
        "_receiver",
        "_source",
        "_taken",
        "_waiter",
    )

    def __init__(self, source: Source, high_water: int = READ_HIGH_WATER) -> None:
        self._source: Source | None = source
        self._high_water = high_water
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._receiver: Receiver | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._taken = False
        self._ended = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "pushed" if self._receiver else "open"
        return f"<BodyStream {state}, {self._buffered} bytes unread>"

    # The reader's side.

    def attach(self, receiver: Receiver) -> None:
        """Push the body into ``receiver`` from now on, what is here already at once.

        Raises `httpx.StreamConsumed` or `httpx.StreamClosed` when it is too late.
        """
        self._claim()
        self._receiver = receiver
        if self._buffer:
            self.feed_data(self._take())
        if self._ended:
            self._tell_end()

    def pause(self) -> None:
        """Stop reading from the socket; what was read already may still be pushed."""
        if self._source is not None:
            self._source.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        if self._source is not None:
            self._source.resume_reading()

    def abort(self) -> None:
        """Drop the rest, and close the connection at once if the body is unfinished.

        A receiver hears nothing more; a waiting iteration raises `httpx.StreamClosed`.
        """
        source, self._source = self._source, None
        self._receiver = None
        self._taken = self._ended = True
        self._error = httpx.StreamClosed()
        self._buffer.clear()
        self._buffered = 0
        if source is not None:
            source.abort()
        self._wake()

    async def aclose(self) -> None:
        """The same as `abort`; never waits."""
        self.abort()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body, everything that is unread at a time."""
        self._claim()
        try:
            while True:
                if self._buffer:
                    yield self._take()
                elif not self._ended:
                    await self._arrival()
                elif self._error is not None:
                    raise self._error
                else:
                    return
        finally:
            if not self._ended:
                self.abort()

    def _claim(self) -> None:
        if isinstance(self._error, httpx.StreamClosed):
            raise self._error
        if self._taken:
            raise httpx.StreamConsumed
        self._taken = True

    def _take(self) -> bytes:
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        was_full = self._buffered > self._high_water
        self._buffered = 0
        if was_full:
            self.resume()
        return data

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The connection's side.

    def feed_data(self, data: bytes) -> None:
        """Take the next bytes of the body. Never raises."""
        if self._receiver is None:
            self._store(data)
            return
        try:
            self._receiver.body_received(data)
        except Exception as error:
            source, self._source = self._source, None
            self._ended, self._error = True, error
            if source is not None:
                source.abort()
            self._tell_end()

    def feed_eof(self, error: Exception | None) -> None:
        """The body has ended, regularly or by ``error``. Never raises."""
        if self._ended:
            return
        self._source = None
        self._ended, self._error = True, error
        self._tell_end()
        self._wake()

    def _store(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered > self._high_water:
            self.pause()
        self._wake()

    def _tell_end(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        try:
            receiver.body_ended(self._error)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{receiver!r} failed in body_ended", "exception": error}
            )
