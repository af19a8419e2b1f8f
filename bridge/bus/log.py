"""Reading a request's log without a consumer: batches of direct gets.

A direct get may be answered by a replica, and before queued ingest is stored: what
comes back is in order, but may end early. Callers that need the end compare it with
the last message, asked of the leader.

A page is proven: each message of it names the one before (``Nats-Last-Sequence``, 0 in
the first), and so does its end. What a reconnect has swallowed is missed by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec
from nats.aio.msg import Msg

from bridge.bus.api import JetStream, StoredMessage
from bridge.errors import ConnectionLost, StreamUnavailable

#: Messages and bytes of one direct get. Without a limit in bytes the server refuses
#: large answers; 1 MiB is some thousands of events.
GET_MESSAGES = 4096
GET_BYTES = 1024 * 1024

#: How many messages are handed on in one turn of the loop: some milliseconds of a
#: reader's work. Other readers work in between.
TURN_MESSAGES = 256

#: A page that made no progress for so long is asked for again by the caller, in s.
PAGE_TIMEOUT_S = 3.0


T = TypeVar("T")


class _Page:
    """One direct get under way; the queue is bounded by the limits of the get."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()

    def received(self, message: Msg) -> None:
        self._queue.put_nowait(message)

    def disconnected(self) -> None:
        """What is still to come may never come, or only in part."""
        self._queue.put_nowait(None)

    def begin(self) -> None:
        """Forget what came behind the end of the page before."""
        while not self._queue.empty():
            self._queue.get_nowait()

    async def next(self, stream: str) -> Msg:
        """The next message. Raises `ConnectionLost`."""
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S):
                message = await self._queue.get()
        except TimeoutError as error:
            raise ConnectionLost(f"no answer from stream {stream}") from error
        if message is None:
            raise ConnectionLost(f"the connection was lost while {stream} was read")
        return message


class _Chain:
    """The stream sequences of one page, each message naming the one before."""

    def __init__(self, stream: str, next_seq: int) -> None:
        self._stream = stream
        self._named = 0
        #: The last one that was read; below ``next_seq`` before the first.
        self.last = next_seq - 1

    def check(self, headers: dict[str, str]) -> None:
        """Raises `ConnectionLost` where a message of the page is missing."""
        named = headers.get("Nats-Last-Sequence", "")
        if named != str(self._named):
            raise ConnectionLost(
                f"stream {self._stream}: the messages between sequences "
                f"{self._named} and {named or '?'} were lost on the way"
            )

    def take(self, headers: dict[str, str]) -> int:
        """The sequence of the next message. Raises as `check`."""
        self.check(headers)
        self.last = self._named = int(headers["Nats-Sequence"])
        return self.last


async def read_subject(
    jetstream: JetStream, stream: str, subject: str, from_seq: int = 1
) -> AsyncIterator[StoredMessage]:
    """The stored messages of ``subject`` from stream sequence ``from_seq`` on.

    Ends where the answering server knew of no more; nothing is missing up to there.
    Raises `ConnectionLost` when an answer stays away, or is cut by a reconnect, and
    `StreamUnavailable` when no server serves the stream. Close the iterator (or
    exhaust it) to end its subscription.
    """
    connection = jetstream.connection
    page = _Page()
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, page.received)
    connection.on_disconnected.append(page.disconnected)
    read = 0
    try:
        next_seq: int | None = max(from_seq, 1)
        while next_seq is not None:
            request = {
                "seq": next_seq,
                "next_by_subj": subject,
                "batch": GET_MESSAGES,
                "max_bytes": GET_BYTES,
            }
            page.begin()
            connection.publish(
                f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), inbox
            )
            chain = _Chain(stream, next_seq)
            while True:
                message = await page.next(stream)
                headers = message.headers or {}
                status = headers.get("Status", "")
                if status:
                    next_seq = _after(status, headers, chain, stream)
                    break
                seq = chain.take(headers)
                yield StoredMessage(seq, headers["Nats-Subject"], message.data)
                read += 1
                if read % TURN_MESSAGES == 0:
                    await asyncio.sleep(0)
    finally:
        connection.on_disconnected.remove(page.disconnected)
        await connection.unsubscribe(subscription)


async def find_last(
    jetstream: JetStream,
    stream: str,
    subject: str,
    read: Callable[[bytes], T | None],
) -> tuple[int, T | None]:
    """The leader's last message of ``subject``, and the last one that ``read`` knows.

    The stream sequence of the first (0: there is none) and what ``read`` made of the
    second. Nearly always one message is both; else the whole subject is read. Raises
    as `read_subject`.
    """
    last = await jetstream.last_message(stream, subject)
    if last is None:
        return 0, None
    found = read(last.data)
    if found is not None:
        return last.seq, found
    seq = 0
    async for message in read_subject(jetstream, stream, subject):
        seq = message.seq
        known = read(message.data)
        found = known if known is not None else found
    if seq < last.seq:
        raise ConnectionLost(f"{subject} cannot be read up to its last message yet")
    return seq, found


async def find_next(
    jetstream: JetStream,
    stream: str,
    subject: str,
    seq: int,
    read: Callable[[bytes], T | None],
) -> T | None:
    """The first message of ``subject`` from ``seq`` on that ``read`` knows.

    Asked of the leader. Raises as `JetStream`.
    """
    while True:
        stored = await jetstream.next_message(stream, subject, seq)
        if stored is None:
            return None
        found = read(stored.data)
        if found is not None:
            return found
        seq = stored.seq + 1


def _after(
    status: str, headers: dict[str, str], chain: _Chain, stream: str
) -> int | None:
    """Where the next page starts after a status message, or ``None`` at the end."""
    if status == "204":
        chain.check(headers)
        return chain.last + 1 if int(headers.get("Nats-Num-Pending", "0")) else None
    if status == "404":
        return None
    if status == "503":
        raise StreamUnavailable(f"nobody serves stream {stream}")
    raise ConnectionLost(
        f"stream {stream} answered {status} {headers.get('Description', '')}".rstrip()
    )
