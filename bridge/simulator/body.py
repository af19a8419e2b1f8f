"""A response's body: frames out, one write each, with the client's backpressure."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import cycle

from aiohttp.abc import AbstractStreamWriter

from bridge.simulator.pace import Pace

#: Frames written in one turn of the loop by an answer without a pace, before others
#: have theirs.
_BURST = 32

#: A frame due within half a millisecond is sent now: the loop's timers round to one.
_EARLY_S = 0.0005

#: A large record goes to the socket in parts of this size, each awaited, so that a
#: client that does not read costs no more memory than the record itself.
_PART_BYTES = 65_536


def reset(transport: asyncio.WriteTransport) -> None:
    """Close the connection with a TCP reset (``SO_LINGER`` of 0), at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Body:
    """The body of one prepared response.

    `write` does not wait; `drain` waits until the kernel has taken everything over.
    ``pieces``: cut the bytes anew into these sizes, over and over.

    The frames go to the transport directly, chunked as RFC 9112 7.1 has it: aiohttp's
    own writer costs a task's wake-up per token, since it may have to wait.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        writer: AbstractStreamWriter,
        *,
        chunked: bool,
        pieces: tuple[int, ...],
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._chunked = chunked
        self._sizes: Iterator[int] | None = cycle(pieces) if pieces else None
        self._size = next(self._sizes) if self._sizes else 0
        self._held = b""
        # Above nothing at all a writer has to wait: so `drain` means delivered to the
        # kernel, and what is unread is held by the socket's buffers alone.
        transport.set_write_buffer_limits(high=0)

    @property
    def closed(self) -> bool:
        """The connection is gone, or about to be."""
        return self._transport.is_closing()

    @property
    def blocked(self) -> bool:
        """The kernel takes no more for now: the client reads too slowly."""
        return self._transport.get_write_buffer_size() > 0

    def write(self, data: bytes) -> None:
        """Send ``data`` in one write, or in the pieces asked for."""
        if self._sizes is None:
            self._send(data)
            return
        data = self._held + data
        at = 0
        while len(data) - at >= self._size:
            self._send(data[at : at + self._size])
            at += self._size
            self._size = next(self._sizes)
        self._held = data[at:]

    def flush(self) -> None:
        """Send what waits for the rest of its piece."""
        if self._held:
            self._send(self._held)
            self._held = b""

    async def write_large(self, data: bytes) -> None:
        """Send much data without a large buffer."""
        for at in range(0, len(data), _PART_BYTES):
            self.write(data[at : at + _PART_BYTES])
            await self.drain()

    async def drain(self) -> None:
        """Wait until everything is in the kernel.

        Raises `ConnectionError` where the connection is gone.
        """
        await self._writer.drain()

    async def close(self) -> None:
        """End the body regularly."""
        self.flush()
        await self._writer.write_eof()

    def reset(self) -> None:
        """End it with a TCP reset."""
        reset(self._transport)

    def _send(self, data: bytes) -> None:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._transport.write(data)


class Pacer:
    """Writes an answer's frames, each at its time, from the loop's timers.

    Nothing is awaited per token: with thousands of streams a task's wake-up each
    would cost more than all the rest.
    """

    def __init__(
        self,
        body: Body,
        frames: Iterator[bytes],
        pace: Pace,
        on_sent: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = body
        self._frames = frames
        self._pace = pace
        self._on_sent = on_sent
        self._due = pace.due(0)
        self._until = 0
        self._turn: asyncio.Handle | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: Frames sent so far.
        self.sent = 0

    def __repr__(self) -> str:
        return f"<Pacer {self.sent} sent, on to {self._until}>"

    def shift(self, seconds: float) -> None:
        """Delay everything that is still to come."""
        self._pace.shift(seconds)
        self._due += seconds

    async def send_until(self, count: int) -> None:
        """Send frames until ``count`` are sent in all. May be cancelled.

        Raises `ConnectionError` where the connection is gone.
        """
        self._until = count
        while self.sent < count:
            self._waiter = self._loop.create_future()
            self._take_turn()
            try:
                await self._waiter
            finally:
                self._waiter = None
                if self._turn is not None:
                    self._turn.cancel()
                    self._turn = None
            if self._body.closed:
                raise ConnectionResetError("the client has closed the connection")
            await self._body.drain()

    def _take_turn(self) -> None:
        self._turn = None
        for _ in range(_BURST):
            if self.sent >= self._until or self._body.blocked or self._body.closed:
                self._wake()
                return
            if self._due > self._loop.time() + _EARLY_S:
                self._turn = self._loop.call_at(self._due, self._take_turn)
                return
            self._body.write(next(self._frames))
            self.sent += 1
            self._due = self._pace.due(self.sent)
            self._on_sent()
        self._turn = self._loop.call_soon(self._take_turn)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
