"""What the subscription of one request has brought and nobody has read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

#: Messages that wait for a reader who is slow. What comes above is dropped here and
#: read from the log later, so a slow reader costs memory for so many and no more.
MAX_MESSAGES = 4096

#: The same in bytes: 4,096 tokens have about 1 MiB; large events get so far.
MAX_BYTES = 8 * 1024 * 1024

#: A subject that was silent for so long is compared with the log, in seconds; then
#: after twice as long, up to the last.
QUIET_FIRST_S = 2.0
QUIET_LAST_S = 8.0


class Message(Protocol):
    """The part of a NATS message that counts here."""

    @property
    def data(self) -> bytes:
        """The payload."""


class Feed:
    """A bounded queue between a subscription's callback and one reader.

    ``due`` says that the log is to be looked at: after silence, a reconnect, or when
    something had to be dropped. ``closed`` says why nothing will come any more.
    """

    def __init__(self) -> None:
        self.queue: deque[bytes] = deque()
        self.bytes = 0
        self.received = 0
        self.dropped = 0
        self.due = False
        self.closed: str | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._asking: asyncio.Timeout | None = None
        self._seen = -1
        self._quiet_since = 0.0
        self._quiet_s = QUIET_FIRST_S

    def __repr__(self) -> str:
        return (
            f"<Feed waiting={len(self.queue)} received={self.received} "
            f"dropped={self.dropped}>"
        )

    def receive(self, message: Message) -> None:
        """The subscription's callback."""
        data = message.data
        self.received += 1
        if len(self.queue) >= MAX_MESSAGES or self.bytes >= MAX_BYTES:
            self.dropped += 1
            self.due = True
            return
        self.queue.append(data)
        self.bytes += len(data)
        if self._waiter is not None:
            self.wake()

    def pop(self) -> bytes:
        """The oldest message. Raises `IndexError`."""
        data = self.queue.popleft()
        self.bytes -= len(data)
        return data

    def wake(self) -> None:
        """Let the reader go on."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, until: float | None) -> None:
        """Wait for a message, a `wake`, or the loop's time ``until``.

        One reader at a time: a second one raises `RuntimeError`. May be cancelled.
        """
        if self._waiter is not None:
            raise RuntimeError("a stream has one reader at a time")
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_at(until, self.wake) if until is not None else None
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """A question to NATS whose answer a reconnect would lose.

        Raises `TimeoutError` inside when the connection is new.
        """
        async with asyncio.timeout(None) as asking:
            self._asking = asking
            try:
                yield
            finally:
                self._asking = None

    def reconnected(self) -> None:
        """The connection is new: something may have been missed."""
        self._interrupt()
        self.due = True
        self.wake()

    def close(self, reason: str) -> None:
        """Nothing will come any more."""
        self.closed = reason
        self._interrupt()
        self.wake()

    def _interrupt(self) -> None:
        if self._asking is not None and not self._asking.expired():
            self._asking.reschedule(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """Called a few times a second: notices silence."""
        if self.received != self._seen:
            self._seen = self.received
            self._quiet_since = now
            self._quiet_s = QUIET_FIRST_S
        elif now - self._quiet_since >= self._quiet_s:
            self._quiet_since = now
            self._quiet_s = min(2 * self._quiet_s, QUIET_LAST_S)
            self.due = True
            self.wake()
