"""Many streams at a steady pace: CPU per token and latency, and what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.backend import TICK_US
from benchmarks.contenders import Contender
from benchmarks.load import Token, Wrong
from benchmarks.processes import machine_cpu_ns
from benchmarks.rig import Rig, running

Figures = dict[str, float]

#: More deltas than any window has time for: the rig's end ends the stream.
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How long a measurement takes: the whole, or a quick look."""

    window_s: float = 6.0
    step_s: float = 3.0
    requests: int = 300
    quick: bool = False


QUICK = Effort(window_s=3.0, step_s=1.5, requests=100, quick=True)


def percentile(values: Sequence[float], q: float) -> float:
    """The value below which a share ``q`` of ``values`` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * q), len(ordered) - 1)]


def latencies(tokens: Sequence[Token]) -> Figures:
    """Milliseconds from the backend's write to the callback."""
    values = [token.latency_ms for token in tokens]
    return {
        "latency_p50_ms": percentile(values, 0.5),
        "latency_p99_ms": percentile(values, 0.99),
    }


@dataclass
class Mark:
    """CPU clocks at one moment: contender, server, the whole rig, the machine."""

    at: int
    own: int
    server: int
    rig: int
    machine: int

    @classmethod
    def of(cls, rig: Rig) -> Mark:
        own, server = rig.process.cpu_ns(), rig.nats.cpu_ns()
        total = own + server + rig.backend_process.cpu_ns() + time.process_time_ns()
        return cls(time.monotonic_ns(), own, server, total, machine_cpu_ns())


def spent(start: Mark, end: Mark, tokens: int) -> Figures:
    """What the rig took between two marks, and what else ran on the machine."""
    if not tokens:
        raise Wrong("no token arrived")
    elapsed = end.at - start.at
    foreign = end.machine - start.machine - (end.rig - start.rig)
    return {
        "cpu_us_per_token": (end.own - start.own) / 1e3 / tokens,
        "server_us_per_token": (end.server - start.server) / 1e3 / tokens,
        "tokens_per_s": tokens / (elapsed / 1e9),
        "foreign_cpus": max(0.0, foreign / elapsed),
    }


async def steady(
    contender: Contender,
    effort: Effort,
    *,
    streams: int,
    rate: float,
    tick_us: int = TICK_US,
) -> Figures:
    """``streams`` at ``rate`` tokens a second each, none starting or ending."""
    async with running(contender, tick_us=tick_us) as rig:
        await warm_up(rig)
        await rig.load.submit_many(
            streams, tokens=ENDLESS, rate=rate, over_s=max(1.0, streams / 400)
        )
        await rig.wait_open(streams, 60.0)
        await asyncio.sleep(1.0)
        before = await rig.backend("stats")
        start = Mark.of(rig)
        await asyncio.sleep(effort.window_s)
        end = Mark.of(rig)
        after = await rig.backend("stats")
        rig.load.check()
    window = rig.load.tokens(since=start.at, until=end.at)
    if after["open"] < streams:
        raise Wrong(f"only {after['open']} of {streams} streams were still open")
    return {
        **spent(start, end, len(window)),
        "late_writes": (after["late"] - before["late"]) / len(window),
        **latencies(window),
    }


async def whole(contender: Contender, effort: Effort) -> Figures:
    """300 requests from first to last, so that what a request costs is in it."""
    streams, rate, tokens = 300, 20.0, 100 if effort.quick else 200
    async with running(contender) as rig:
        await warm_up(rig)
        start = Mark.of(rig)
        ids = await rig.load.submit_many(streams, tokens=tokens, rate=rate, over_s=2.0)
        await rig.load.wait_ended(ids, 2.0 + tokens / rate + 20.0)
        end = Mark.of(rig)
        rig.load.check()
    return spent(start, end, streams * tokens)


async def warm_up(rig: Rig) -> None:
    """A few requests before the first that counts: imports, pools, first pages."""
    ids = await rig.load.submit_many(10, tokens=5, rate=100.0)
    await rig.load.wait_ended(ids, 20.0)
