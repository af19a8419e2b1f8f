"""A bridge's side of the bus, by hand: streams, and logs that a test writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from bridge.bus.api import raise_for_error
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.config import BusSettings
from bridge.events import (
    Cancelled,
    Completed,
    ErrorInfo,
    Failed,
    Handover,
    KnownEvent,
    Resumed,
    ResumeMode,
    ResumeReason,
    Started,
    Timings,
    Token,
    encode,
)
from tests.servers import NatsServer

#: Far above what anything here takes, for a machine that is busy.
PATIENCE_S = 20.0

T = TypeVar("T")


class Author:
    """The events of one request, numbered as one attempt after the other."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.seq = 0
        self.attempt = 1

    def _next(self) -> tuple[str, int, int]:
        self.seq += 1
        return self.id, self.seq, self.attempt

    def started(self, job: int = 1) -> KnownEvent:
        return Started(
            *self._next(), v=1, model="m", created=0, queue_ms=0, job=job, metadata={}
        )

    def token(self, text: str | None = None) -> KnownEvent:
        id, seq, attempt = self._next()
        return Token(id, seq, attempt, f"{attempt}.{seq} " if text is None else text)

    def tokens(self, count: int) -> list[KnownEvent]:
        return [self.token() for _ in range(count)]

    def handover(self) -> KnownEvent:
        return Handover(*self._next())

    def resumed(
        self,
        mode: ResumeMode = "continue",
        reason: ResumeReason = "takeover",
        *,
        after: int | None = None,
    ) -> KnownEvent:
        """Of the next attempt, behind ``after`` where the log ends below the last."""
        if after is not None:
            self.seq = after
        if reason != "backend_failure":
            self.attempt += 1
        after = self.seq
        return Resumed(*self._next(), after=after, mode=mode, reason=reason)

    def completed(
        self, text: str | None = None, *, omitted: bool = False
    ) -> KnownEvent:
        return Completed(
            *self._next(),
            finish_reason="stop",
            text=text,
            text_omitted=omitted,
            timings=Timings(),
            backend="b",
            metadata={},
        )

    def failed(self, code: str = "internal", text: str | None = None) -> KnownEvent:
        error = ErrorInfo(code, "it broke", retryable=True)
        return Failed(
            *self._next(), error=error, text=text, timings=Timings(), metadata={}
        )

    def cancelled(self, reason: str, text: str | None = None) -> KnownEvent:
        return Cancelled(
            *self._next(), reason=reason, text=text, timings=Timings(), metadata={}
        )


class Bus:
    """What a bridge does on one prefix, one message at a time."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.prefix = cell.subjects.prefix
        self._tenant = "default"

    @property
    def connection(self) -> Connection:
        return self.cell.connection

    async def log(self, *events: KnownEvent, tenant: str = "default") -> None:
        """Store events, which live readers see too."""
        for event in events:
            subject = self.cell.subjects.tokens(tenant, event.id)
            answer = await self.connection.request(subject, encode(event))
            raise_for_error(answer.data, subject)

    async def live(self, *events: KnownEvent, tenant: str = "default") -> None:
        """Show events to live readers, and let the log refuse them."""
        for event in events:
            # Appended to a batch that was never begun.
            reply = f"{self.cell.batches.reply_head('none')}2.1.$FI"
            subject = self.cell.subjects.tokens(tenant, event.id)
            self.connection.publish(subject, encode(event), reply)
        await self.connection.flush()

    async def purge(self, id: str | None = None, *, keep: int = 0) -> None:
        """Let a log expire, up to its last ``keep`` events."""
        body: dict[str, object] = {"keep": keep} if keep else {}
        if id is not None:
            body["filter"] = self.cell.subjects.tokens("default", id)
        name = self.cell.names.tokens
        await self.cell.jetstream.call(f"STREAM.PURGE.{name}", body)

    async def jobs(self) -> int:
        """How many jobs are stored."""
        name = self.cell.names.jobs
        info = await self.cell.jetstream.call(f"STREAM.INFO.{name}")
        return int(info["state"]["messages"])

    async def cancel_reason(self, kind: str, name: str) -> str | None:
        """The reason of the cancel that is kept, if there is one."""
        kept = await self.cell.kept_control("default", kind, name)
        return kept[0].reason if kept is not None else None

    async def cancelled(self, id: str) -> str:
        """Wait until a request is cancelled; the reason."""
        return await eventually(lambda: self.cancel_reason("request", id))


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What ``look`` returns once it is not None."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running_bus(
    server: NatsServer, prefix: str, lanes: tuple[str, ...] = ("default",), **more: Any
) -> AsyncIterator[Bus]:
    settings = BusSettings(nats_url=server.url, **more)
    connection = Connection(settings, name="test")
    await connection.connect()
    cell = Cell(connection, settings, prefix)
    await cell.ensure([Lane(lane, 2.0) for lane in lanes], "create")
    await cell.open()
    try:
        yield Bus(cell)
    finally:
        await connection.close()
