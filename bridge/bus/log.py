"""Reading a request's log without a consumer: batches of direct gets.

A direct get may be answered by a replica, and before queued ingest is stored: what
comes back is in order, but may end early. Callers that need the end compare it with
the last message, asked of the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from nats.aio.msg import Msg

from bridge.bus.api import JetStream, StoredMessage
from bridge.errors import ConnectionLost, StreamUnavailable

#: Messages and bytes of one direct get. Without a limit in bytes the server refuses
#: large answers; 1 MiB is some thousands of events.
GET_MESSAGES = 4096
GET_BYTES = 1024 * 1024

#: A page that made no progress for so long is asked for again by the caller, in s.
PAGE_TIMEOUT_S = 3.0


class _Page:
    """One direct get under way; the queue is bounded by the limits of the get."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Msg] = asyncio.Queue()

    def received(self, message: Msg) -> None:
        self.queue.put_nowait(message)


async def read_subject(
    jetstream: JetStream, stream: str, subject: str, from_seq: int = 1
) -> AsyncIterator[StoredMessage]:
    """The stored messages of ``subject`` from stream sequence ``from_seq`` on.

    Ends where the answering server knew of no more. Raises `ConnectionLost` when an
    answer stays away and `StreamUnavailable` when nobody answers. Close the iterator
    (or exhaust it) to end its subscription.
    """
    connection = jetstream.connection
    page = _Page()
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, page.received)
    try:
        next_seq: int | None = max(from_seq, 1)
        while next_seq is not None:
            request = {
                "seq": next_seq,
                "next_by_subj": subject,
                "batch": GET_MESSAGES,
                "max_bytes": GET_BYTES,
            }
            connection.publish(
                f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), inbox
            )
            last = next_seq - 1
            while True:
                message = await _next(page, stream)
                headers = message.headers or {}
                status = headers.get("Status", "")
                if status:
                    next_seq = _after(status, headers, last, stream)
                    break
                last = int(headers["Nats-Sequence"])
                yield StoredMessage(last, headers["Nats-Subject"], message.data)
    finally:
        await connection.unsubscribe(subscription)


async def _next(page: _Page, stream: str) -> Msg:
    try:
        async with asyncio.timeout(PAGE_TIMEOUT_S):
            return await page.queue.get()
    except TimeoutError as error:
        raise ConnectionLost(f"no answer from stream {stream}") from error


def _after(status: str, headers: dict[str, str], last: int, stream: str) -> int | None:
    """Where the next page starts after a status message, or ``None`` at the end."""
    if status == "204":
        return last + 1 if int(headers.get("Nats-Num-Pending", "0")) else None
    if status == "404":
        return None
    if status == "503":
        raise StreamUnavailable(f"nobody serves stream {stream}")
    raise ConnectionLost(
        f"stream {stream} answered {status} {headers.get('Description', '')}".rstrip()
    )
