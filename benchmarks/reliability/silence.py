"""How long a live reader hears nothing: after a kill, a handover, a NATS restart."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.logs import Event
from tests.chaos.scene import Scene, job, scene, stalling
from tests.servers import NatsServer

ACK_WAIT_S = 2.0

#: Requests that one fault hits at once.
REQUESTS = 20

#: How long a NATS server is away, in seconds.
AWAY_S = 0.5


def percentile(values: list[float], share: float) -> float:
    """The value that this share of ``values`` does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def takeover(rounds: int) -> list[float]:
    """From a kill -9 to the next token, in seconds; the backend answers at once."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            for number in range(rounds):
                place = Path(folder) / str(number)
                async with scene(
                    place, server.url, f"r{number}", ack_wait_s=ACK_WAIT_S
                ) as s:
                    wanted = await _running(s)
                    # Anywhere between two renewals.
                    await asyncio.sleep(number / rounds)
                    s.first.kill()
                    killed = time.monotonic()
                    await _ended(s, wanted)
                    found += [_next_token(s, one, killed) - killed for one in wanted]
        finally:
            server.kill()
    return found


async def handover(rounds: int) -> list[float]:
    """From ``handover`` to the next token, in seconds."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            for number in range(rounds):
                async with scene(
                    Path(folder) / str(number),
                    server.url,
                    f"h{number}",
                    ack_wait_s=30,
                    drain_timeout_s=0,
                ) as s:
                    wanted = await _running(s)
                    s.first.terminate()
                    await _ended(s, wanted)
                    for one in wanted:
                        at = _first(s, one, lambda event: event["type"] == "handover")
                        found.append(_next_token(s, one, at) - at)
        finally:
            server.kill()
    return found


async def restart(rounds: int) -> list[float]:
    """From the return of a NATS server that was killed to the next token, in s."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            server = NatsServer(Path(folder) / f"nats-{number}")
            server.start()
            try:
                place = Path(folder) / str(number)
                async with scene(place, server.url, "llm", ack_wait_s=10) as s:
                    await s.start(s.first)
                    wanted = [job(150, 50) for _ in range(REQUESTS)]
                    for one in wanted:
                        await s.submit(one)
                    for one in wanted:
                        await s.tokens(one["id"], 10)
                    server.stop(signal.SIGKILL)
                    await asyncio.sleep(AWAY_S)
                    server.start()
                    back = time.monotonic()
                    await _ended(s, wanted)
                    found += [_next_token(s, one, back) - back for one in wanted]
            finally:
                server.kill()
    return found


async def _running(s: Scene) -> list[Event]:
    """Requests that the first bridge has, each silent after 20 tokens."""
    await s.start(s.first)
    wanted = [job(40, 0, simulate=stalling()) for _ in range(REQUESTS)]
    for one in wanted:
        await s.submit(one)
    for one in wanted:
        await s.tokens(one["id"], 20)
    await s.start(s.second)
    # The leases are renewed by now, as those of requests that run for a while are.
    await asyncio.sleep(ACK_WAIT_S / 2)
    return wanted


async def _ended(s: Scene, wanted: list[Event]) -> None:
    for one in wanted:
        await s.ended(one["id"])


def _first(s: Scene, one: Event, condition: Callable[[Event], bool]) -> float:
    return next(at for at, event in s.live[one["id"]] if condition(event))


def _next_token(s: Scene, one: Event, after: float) -> float:
    return next(
        at for at, event in s.live[one["id"]] if event["type"] == "token" and at > after
    )
