"""Several bridges of one deployment, on one NATS, and what they say to a listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.msg import Msg

from bridge.config import LaneSettings
from bridge.service import Service
from tests.plain_client import TERMINAL, Json, PlainClient
from tests.servers import running_service

SPEECH_TERMINAL = ("end", "cancelled", "failed")


@contextlib.asynccontextmanager
async def replicas(
    nats_url: str, backend_url: str, prefix: str, count: int = 3, **settings: Any
) -> AsyncIterator[list[Service]]:
    """So many bridges that serve the same lanes, ready; stopped in the end."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_service(nats_url, backend_url, prefix=prefix, **settings)
            )
            for _ in range(count)
        ]


def lanes(*names: str, **reserved: int) -> dict[str, LaneSettings]:
    """Settings of so many lanes; ``reserved`` are slots by lane."""
    return {name: LaneSettings(reserved_slots=reserved.get(name, 0)) for name in names}


def owner(services: list[Service]) -> Service:
    """The one bridge that runs something."""
    busy = [s for s in services if s.worker is not None and s.worker.running]
    assert len(busy) == 1, busy
    return busy[0]


async def cancel_session(
    bus: PlainClient, session: str, tenant: str = "default", **fields: Any
) -> None:
    """Cancel what a session has; returns when the control message is stored."""
    await bus.jetstream.publish(
        f"{bus.prefix}.control.{tenant}.session.{session}",
        json.dumps({"action": "cancel", "reason": "barge-in", **fields}).encode(),
    )


async def pause(bus: PlainClient, lane: str) -> None:
    """Keep a lane's jobs in the queue (ADR-5: pausing a consumer)."""
    await _pause_until(bus, lane, datetime.now(UTC) + timedelta(hours=1))


async def resume(bus: PlainClient, lane: str) -> None:
    """Let a lane's jobs out again."""
    await _pause_until(bus, lane, None)


async def _pause_until(bus: PlainClient, lane: str, until: datetime | None) -> None:
    body = {"pause_until": until.isoformat()} if until is not None else {}
    answer = await bus.nats.request(
        f"$JS.API.CONSUMER.PAUSE.{bus.prefix.upper()}_JOBS.{lane}",
        json.dumps(body).encode(),
        timeout=5,
    )
    said = json.loads(answer.data)
    assert said.get("paused", False) is (until is not None), said


class Listener:
    """Everything that reaches plain subscribers of tokens and speech, in one order."""

    def __init__(self, bus: PlainClient) -> None:
        self._bus = bus
        self.heard: dict[str, list[tuple[str, Json]]] = defaultdict(list)
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        # One subscription: between two of them nats-py keeps no order.
        await self._bus.nats.subscribe(f"{self._bus.prefix}.*.*.*", cb=self._received)
        await self._bus.nats.flush()

    async def _received(self, message: Msg) -> None:
        kind = message.subject.split(".")[1]
        if message.data and kind in ("tokens", "speech"):
            event = json.loads(message.data)
            self.heard[event["id"]].append((kind, event))
            self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def speech(self, id: str) -> list[Json]:
        return [event for kind, event in self.heard[id] if kind == "speech"]

    async def segments(self, id: str, count: int) -> list[Json]:
        """Wait until so many segments of a request were heard."""

        def found() -> list[Json]:
            return [e for e in self.speech(id) if e["type"] == "segment"]

        await self._until(lambda: len(found()) >= count)
        return found()

    async def order(self, id: str) -> list[tuple[str, str]]:
        """Subject and type of all that was heard, once the tokens have ended."""

        def ended() -> bool:
            return any(
                kind == "tokens" and event["type"] in TERMINAL
                for kind, event in self.heard[id]
            )

        await self._until(ended)
        return [(kind, event["type"]) for kind, event in self.heard[id]]


async def speech_log(bus: PlainClient, id: str, tenant: str = "default") -> list[Json]:
    """The stored speech events of a request."""
    subject = f"{bus.prefix}.speech.{tenant}.{id}"
    return [json.loads(m.data) for m in await bus.stored("TOKENS", subject)]
