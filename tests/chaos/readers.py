"""Live readers of a chaos run: the SDK, and the times at which they had each delta."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from bridge.client import Client
from bridge.events import Reasoning, Resumed, Token, ToolCallDelta
from tests.chaos.load import Order


class Gap(NamedTuple):
    """A silence between two deltas of one reader; times are monotonic seconds."""

    id: str
    begin: float
    end: float
    backend_failed: bool

    @property
    def seconds(self) -> float:
        return self.end - self.begin


DELTAS = (Token, Reasoning, ToolCallDelta)

#: Shorter silences are nothing but the pace of the backend.
SHORTEST_GAP_S = 0.06


class Reader:
    """Reads one request to its end and keeps what came."""

    def __init__(self, client: Client, order: Order, *, late_s: float = 0.0) -> None:
        self.order = order
        self.late_s = late_s
        self.text: str | None = None
        self.end: str | None = None
        self.gaps: list[Gap] = []
        self.truncated = 0
        self._client = client
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __repr__(self) -> str:
        return f"<Reader {self.order.id} late={self.late_s:.1f} end={self.end}>"

    async def _run(self) -> None:
        if self.late_s:
            # Comes, goes, and comes again from the beginning, as a browser would.
            await asyncio.sleep(self.late_s)
            await self._read(until=time.monotonic() + self.late_s)
        await self._read()

    async def _read(self, until: float | None = None) -> None:
        last: float | None = None
        failed = False
        async with self._client.join(self.order.id, wait_s=None) as stream:
            async for event in stream:
                now = time.monotonic()
                self.truncated += stream.truncated_to is not None
                if isinstance(event, Resumed):
                    failed = event.reason == "backend_failure"
                if isinstance(event, DELTAS):
                    if last is not None and now - last > SHORTEST_GAP_S:
                        self.gaps.append(Gap(self.order.id, last, now, failed))
                    last, failed = now, False
                if until is not None and now > until:
                    return
            self.text = stream.text
            self.end = stream.end.type if stream.end is not None else None

    @property
    def done(self) -> bool:
        return self._task.done()

    async def finish(self, within_s: float) -> None:
        """Wait for the end. Raises what reading raised, and `TimeoutError`."""
        await asyncio.wait_for(self._task, within_s)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
