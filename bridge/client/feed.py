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
    something had to be dropped. ``renewed`` says that the connection is a new one, and
    ``closed`` why nothing will come any more. ``refusal`` has the server's words when
    it refused the question that was asked last, ``deaf`` when it refused to let the
    subject be heard.
    """

    def __init__(self) -> None:
        self.queue: deque[bytes] = deque()
        self.bytes = 0
        self.received = 0
        self.dropped = 0
        self.due = False
        self.renewed = False
        self.closed: str | None = None
        self.refusal: str | None = None
        self.deaf: str | None = None
        self._away_s = 0.0
        self._away_since: float | None = None
        self._asked = ""
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
    async def asking(self, subject: str) -> AsyncIterator[None]:
        """A question to NATS on ``subject`` whose answer a reconnect would lose.

        Raises `TimeoutError` inside when the connection is new, and when the server
        refuses the subject.
        """
        async with asyncio.timeout(None) as asking:
            self._asking, self._asked = asking, subject
            try:
                yield
            finally:
                self._asking, self._asked = None, ""

    @property
    def away_s(self) -> float:
        """For how many seconds, in all, the connection was away."""
        if self._away_since is None:
            return self._away_s
        return self._away_s + asyncio.get_running_loop().time() - self._away_since

    def disconnected(self) -> None:
        """The connection is away, until `reconnected`. Safe to call twice."""
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    def reconnected(self) -> None:
        """The connection is new: something may have been missed."""
        self._away_s, self._away_since = self.away_s, None
        self._interrupt()
        self.due = self.renewed = True
        self.wake()

    def refused(self, subject: str, words: str) -> None:
        """The server refused ``subject``, in lower case: what was asked there is lost.

        So is what was asked anywhere, if it is where the answer was to come.
        """
        asked = self._asked.lower()
        if asked and (subject == asked or subject.startswith("_inbox.")):
            self.refusal = words
            self._interrupt()

    def deafened(self, words: str) -> None:
        """The server refused the subscription: only the log tells."""
        self.deaf = words
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
