"""The load: jobs out, events in, each with the time at which its callback ran.

The callback keeps the bytes and the clock, and everything else waits until a
scenario asks, so that reading costs the same for every contender and does not
disturb what it measures.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

JOBS = "llm.jobs.default.default"
TOKENS = "llm.tokens.default.*"
CONTROL = "llm.control.default.request."

#: Multiples of the golden ratio, modulo 1, fill an interval evenly for any count.
_GOLDEN = 0.6180339887498949


class Token(NamedTuple):
    """One delta: when the backend wrote it, when the callback had it (ns)."""

    id: str
    seq: int
    sent: int
    arrived: int
    #: When the backend had read the request; on a request's first delta only.
    received: int

    @property
    def latency_ms(self) -> float:
        return (self.arrived - self.sent) / 1e6


class _Event(msgspec.Struct):
    type: str
    id: str
    seq: int
    text: str | None = None


_decoder = msgspec.json.Decoder(_Event)
_TERMINAL = {"completed", "failed", "cancelled"}


class Wrong(Exception):
    """A contender lost, repeated, reordered or failed something."""


class Load:
    """Submits jobs and takes in their events. For one event loop."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._arrived: list[int] = []
        self._data: list[bytes] = []
        self._submitted: dict[str, int] = {}
        self._submitted_at: dict[str, int] = {}
        #: How each ended request ended.
        self.ended: dict[str, str] = {}
        self._failures: list[str] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Load]:
        """A load on a connection of its own; garbage is not collected meanwhile."""
        nc = await nats.connect(url, allow_reconnect=False)
        load = cls(nc)
        collecting = gc.isenabled()
        try:
            await nc.subscribe(
                TOKENS,
                cb=load._on_message,
                pending_msgs_limit=-1,
                pending_bytes_limit=-1,
            )
            await nc.flush()
            gc.collect()
            gc.disable()
            yield load
        finally:
            if collecting:
                gc.enable()
            await nc.close()

    async def _on_message(self, msg: Msg) -> None:
        now = time.monotonic_ns()
        data = msg.data
        self._arrived.append(now)
        self._data.append(data)
        if b'"token"' not in data:
            self._on_rare(data)

    def _on_rare(self, data: bytes) -> None:
        event = _decoder.decode(data)
        if event.type in _TERMINAL:
            self.ended[event.id] = event.type
            if event.type == "failed":
                self._failures.append(data.decode(errors="replace")[:300])

    @property
    def events(self) -> int:
        """How many events have arrived."""
        return len(self._data)

    def _job(self, tokens: int, rate: float, phase: float | None) -> tuple[str, bytes]:
        number = len(self._submitted)
        id = f"bench-{number:06d}"
        self._submitted[id] = tokens
        bench = {
            "id": id,
            "rate": rate,
            "phase": number * _GOLDEN % 1 if phase is None else phase,
        }
        job: dict[str, Any] = {
            "id": id,
            "request": {
                "model": "bench",
                "messages": [{"role": "user", "content": "Say what time it is."}],
                "max_tokens": tokens,
                "bench": bench,
            },
        }
        return id, msgspec.json.encode(job)

    async def submit(
        self, *, tokens: int, rate: float = 20.0, phase: float | None = None
    ) -> str:
        """Submit one job and wait until it is stored; return its id.

        ``rate`` deltas a second, the first after ``phase`` of an interval; without
        one, the requests' phases fill the interval evenly.
        """
        id, data = self._job(tokens, rate, phase)
        self._submitted_at[id] = time.monotonic_ns()
        await self._js.publish(JOBS, data)
        return id

    async def submit_many(
        self,
        count: int,
        *,
        tokens: int,
        rate: float,
        over_s: float = 0.0,
        phase: float | None = None,
    ) -> list[str]:
        """Submit ``count`` jobs, evenly over ``over_s`` seconds; return their ids."""
        start = time.monotonic()
        ids = []
        for number in range(count):
            wait = start + over_s * number / count - time.monotonic()
            if wait > 0.001:
                await asyncio.sleep(wait)
            id, data = self._job(tokens, rate, phase)
            self._submitted_at[id] = time.monotonic_ns()
            await self._nc.publish(JOBS, data)
            ids.append(id)
        await self._nc.flush()
        return ids

    async def cancel(self, id: str) -> int:
        """Cancel a request; return the clock (ns) just before the publish."""
        now = time.monotonic_ns()
        await self._nc.publish(CONTROL + id, b'{"action":"cancel","reason":"bench"}')
        # Without this the message would wait for the loop's next turn.
        await self._nc.flush()
        return now

    async def wait_ended(self, ids: list[str], timeout_s: float) -> None:
        """Wait for the requests' ends; raises `Wrong` when one does not come."""
        deadline = time.monotonic() + timeout_s
        missing = set(ids)
        while missing := {id for id in missing if id not in self.ended}:
            if time.monotonic() > deadline:
                raise Wrong(
                    f"{len(missing)} of {len(ids)} requests have not ended"
                    f" {timeout_s:.0f} s after they should have"
                )
            await asyncio.sleep(0.02)

    def tokens(self, *, since: int = 0, until: int | None = None) -> list[Token]:
        """The deltas whose callbacks ran from ``since`` until before ``until``."""
        first = bisect.bisect_left(self._arrived, since)
        last = None if until is None else bisect.bisect_left(self._arrived, until)
        found = []
        for arrived, data in zip(
            self._arrived[first:last], self._data[first:last], strict=True
        ):
            event = _decoder.decode(data)
            if event.type == "token" and event.text is not None:
                sent, _, received = event.text.partition(",")
                times = int(sent), arrived, int(received or 0)
                found.append(Token(event.id, event.seq, *times))
        return found

    def submitted_at(self, id: str) -> int:
        """The clock (ns) just before the job was published."""
        return self._submitted_at[id]

    def check(self) -> None:
        """Raise `Wrong` where a request failed, or lost or reordered a delta."""
        if self._failures:
            raise Wrong(f"{len(self._failures)} failed: {self._failures[0]}")
        last: dict[str, int] = {}
        count: dict[str, int] = dict.fromkeys(self._submitted, 0)
        for token in self.tokens():
            before = last.get(token.id)
            if before is not None and token.seq != before + 1:
                raise Wrong(f"{token.id}: seq {token.seq} after {before}")
            last[token.id] = token.seq
            count[token.id] += 1
        for id, end in self.ended.items():
            if end == "completed" and count[id] != self._submitted[id]:
                raise Wrong(f"{id}: {count[id]} of {self._submitted[id]} deltas")
