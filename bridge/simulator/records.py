"""What the simulator saw: one record per request, and waiting for what it sees."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

#: How many requests are remembered: some rounds of the largest test (2,000 streams).
MAX_RECORDS = 10_000

#: A body is remembered up to this size: any that a test writes by hand, so that the
#: records of a long run stay below some ten megabytes.
MAX_BODY_BYTES = 4096

Outcome = Literal[
    "completed",
    "client_closed",  # the client went away first
    "rejected",  # the request was wrong: 4xx
    "status",  # the faults: `Behaviour.status` and so on
    "refused",
    "reset",
    "ended",
    "errored",
    "stopped",  # the simulator was stopped
]


class RequestRecord(msgspec.Struct, eq=False, kw_only=True):
    """One request to ``/v1/chat/completions``.

    Times are the event loop's, in seconds (``loop.time()``, a monotonic clock).
    ``outcome`` is ``None`` while the answer is under way. ``closed_at`` is when the
    simulator saw that the client had closed the connection under an answer.
    ``tokens_sent`` counts what the kernel took over. ``body`` is the request's object
    where it was small. Headers, the API key among them, are never recorded.
    """

    id: str
    received_at: float
    key: str = ""
    model: str = ""
    user: str | None = None
    stream: bool = False
    continued: bool = False
    max_tokens: int | None = None
    body: dict[str, Any] | None = None
    status: int | None = None
    first_token_at: float | None = None
    tokens_sent: int = 0
    outcome: Outcome | None = None
    ended_at: float | None = None
    closed_at: float | None = None

    def to_dict(self, unix_offset: float) -> dict[str, Any]:
        """The record for JSON: without the body, times in Unix milliseconds.

        ``unix_offset`` is what makes a loop's time a Unix time, in seconds.
        """
        fields = msgspec.structs.asdict(self)
        del fields["body"]
        for name in ("received_at", "first_token_at", "ended_at", "closed_at"):
            value = fields.pop(name)
            fields[f"{name}_ms"] = (
                None if value is None else round((value + unix_offset) * 1000, 3)
            )
        return fields


class RequestLog:
    """The last `MAX_RECORDS` requests, and those who wait for something of them."""

    def __init__(self) -> None:
        self.records: deque[RequestRecord] = deque(maxlen=MAX_RECORDS)
        self.active = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<RequestLog {len(self.records)} records, {self.active} active>"

    def open(self, record: RequestRecord) -> None:
        """A request has come."""
        self.records.append(record)
        self.active += 1
        self.notify()

    def end(self, record: RequestRecord, outcome: Outcome) -> None:
        """The answer has ended; only the first outcome of a request counts."""
        if record.outcome is not None:
            return
        record.outcome = outcome
        record.ended_at = asyncio.get_running_loop().time()
        if outcome == "client_closed":
            record.closed_at = record.ended_at
        self.active -= 1
        self.notify()

    @property
    def watched(self) -> bool:
        """Whether somebody waits: what changes per token is worth a call only then."""
        return bool(self._waiters)

    def notify(self) -> None:
        """A record has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until ``condition`` holds; it is asked again whenever a record changes.

        Raises `TimeoutError` after ``timeout`` seconds. May be cancelled.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            while not condition():
                waiter = loop.create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

    def to_dict(self, user: str | None) -> dict[str, Any]:
        """All records, or those of one ``user``, for JSON."""
        offset = time.time() - asyncio.get_running_loop().time()
        chosen = (r for r in self.records if user is None or r.user == user)
        return {
            "active": self.active,
            "requests": [record.to_dict(offset) for record in chosen],
        }


class FaultCount:
    """How often faults have hit each conversation."""

    #: More conversations than any run has; the oldest are forgotten over it.
    MAX_KEYS = 100_000

    def __init__(self) -> None:
        self._dealt: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<FaultCount {len(self._dealt)} conversations>"

    def take(self, key: str, limit: int | None) -> bool:
        """Whether one more fault may hit ``key``; if so, it is counted."""
        if limit is None:
            return True
        dealt = self._dealt.pop(key, 0)
        if dealt < limit:
            dealt += 1
            hit = True
        else:
            hit = False
        self._dealt[key] = dealt
        if len(self._dealt) > self.MAX_KEYS:
            del self._dealt[next(iter(self._dealt))]
        return hit
