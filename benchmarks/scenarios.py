"""What is measured: one function per scenario, from a contender to its figures.

Figures are a flat ``{name: number}``; units are in the names. Every scenario starts
its own rig, checks that nothing was lost or reordered, and is bounded in time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.contenders import BRIDGE, GO, OBVIOUS, Contender
from benchmarks.load import Load, Token, Wrong
from benchmarks.rig import Rig, running
from benchmarks.steady import (
    ENDLESS,
    Effort,
    Figures,
    Mark,
    latencies,
    percentile,
    steady,
    warm_up,
    whole,
)


async def cpu(contender: Contender, effort: Effort) -> Figures:
    return await steady(contender, effort, streams=300, rate=20.0)


async def cpu_scattered(contender: Contender, effort: Effort) -> Figures:
    """As `cpu`, but with every delta written at its own time."""
    return await steady(contender, effort, streams=300, rate=20.0, tick_us=0)


async def latency(contender: Contender, effort: Effort) -> Figures:
    return await steady(contender, effort, streams=100, rate=20.0)


async def request(contender: Contender, effort: Effort) -> Figures:
    """CPU of a request without tokens, one every 10 ms: each wakes an idle worker."""

    async def submit(rig: Rig) -> list[str]:
        return await _submit_empty(rig, effort.requests, over_s=effort.requests / 100)

    return await _requests(contender, submit)


#: How many requests come at once in `request_burst`.
BURST = 20


async def request_burst(contender: Contender, effort: Effort) -> Figures:
    """The same for requests that come 20 at a time, as they do under load."""

    async def submit(rig: Rig) -> list[str]:
        ids = []
        for _ in range(2 * effort.requests // BURST):
            ids += await _submit_empty(rig, BURST)
            await rig.load.wait_ended(ids[-BURST:], 20.0)
            await asyncio.sleep(0.05)
        return ids

    return await _requests(contender, submit)


async def _submit_empty(rig: Rig, count: int, over_s: float = 0.0) -> list[str]:
    return await rig.load.submit_many(
        count, tokens=0, rate=100.0, phase=0.0, over_s=over_s
    )


async def _requests(
    contender: Contender, submit: Callable[[Rig], Awaitable[list[str]]]
) -> Figures:
    """CPU of a request without tokens, less what the contender takes when idle."""
    async with running(contender) as rig:
        await warm_up(rig)
        await asyncio.sleep(0.5)
        idle = Mark.of(rig)
        await asyncio.sleep(1.5)
        start = Mark.of(rig)
        ids = await submit(rig)
        await rig.load.wait_ended(ids, 20.0)
        # What follows the terminal event (the settlement) is the request's too.
        await asyncio.sleep(0.3)
        end = Mark.of(rig)
        rig.load.check()
    idle_share = (start.own - idle.own) / (start.at - idle.at)
    own = end.own - start.own - idle_share * (end.at - start.at)
    return {
        "cpu_us_per_request": own / 1e3 / len(ids),
        "idle_cpu_percent": 100 * idle_share,
        "server_us_per_request": (end.server - start.server) / 1e3 / len(ids),
    }


async def pacing(contender: Contender, effort: Effort) -> Figures:
    """128 streams of 64 deltas, one every 20 ms, all submitted at once."""
    interval_ms, count = 20.0, 64
    async with running(contender) as rig:
        await warm_up(rig)
        since = time.monotonic_ns()
        ids = await rig.load.submit_many(128, tokens=count, rate=1000 / interval_ms)
        await rig.load.wait_ended(ids, 20.0)
        rig.load.check()
    streams: dict[str, list[Token]] = {id: [] for id in ids}
    for token in rig.load.tokens(since=since):
        streams[token.id].append(token)
    due_ms = interval_ms * (count - 1)
    ratios = [due_ms / _span_ms([t.arrived for t in s]) for s in streams.values()]
    sent = [due_ms / _span_ms([t.sent for t in s]) for s in streams.values()]
    return {
        "pace_ratio": percentile(ratios, 0.5),
        "pace_ratio_worst": min(ratios),
        "gap_max_ms": max(_gap_ms([t.arrived for t in s]) for s in streams.values()),
        "backend_pace_ratio": percentile(sent, 0.5),
        "backend_gap_max_ms": max(
            _gap_ms([t.sent for t in s]) for s in streams.values()
        ),
    }


def _span_ms(times: list[int]) -> float:
    return (times[-1] - times[0]) / 1e6


def _gap_ms(times: list[int]) -> float:
    return max(b - a for a, b in itertools.pairwise(times)) / 1e6


async def first_token(contender: Contender, effort: Effort) -> Figures:
    """From just before the submission to the first delta's callback, one at a time.

    The backend's own time, from having read the request to writing that delta, is
    taken off.
    """
    count = effort.requests // 3
    async with running(contender) as rig:
        await warm_up(rig)
        since = time.monotonic_ns()
        for _ in range(count):
            id = await rig.load.submit(tokens=2, rate=100.0, phase=0.0)
            await rig.load.wait_ended([id], 10.0)
        rig.load.check()
    values = [
        (token.arrived - rig.load.submitted_at(token.id) - token.sent + token.received)
        / 1e6
        for token in rig.load.tokens(since=since)
        if token.received
    ]
    return {
        "first_token_p50_ms": percentile(values, 0.5),
        "first_token_p99_ms": percentile(values, 0.99),
    }


async def cancel(contender: Contender, effort: Effort) -> Figures:
    """From the publish of a cancel to the backend's seeing the close, 200 running."""
    streams = 200
    async with running(contender) as rig:
        await warm_up(rig)
        ids = await rig.load.submit_many(streams, tokens=600, rate=20.0, over_s=1.0)
        await rig.wait_open(streams, 20.0)
        sent = {}
        for id in ids:
            sent[id] = await rig.load.cancel(id)
            await asyncio.sleep(0.02)
        await rig.load.wait_ended(ids, 10.0)
        closes = await rig.backend("closes")
    if missing := [id for id in ids if id not in closes]:
        raise Wrong(f"{len(missing)} of {streams} cancelled streams were not closed")
    values = [(closes[id] - sent[id]) / 1e6 for id in ids]
    return {
        "cancel_p50_ms": percentile(values, 0.5),
        "cancel_p99_ms": percentile(values, 0.99),
    }


async def memory(contender: Contender, effort: Effort) -> Figures:
    """Resident memory per stream that is open and silent.

    The slope between 100 and 1,000, so that what the first ones cost the process
    (code, pools) is not counted as theirs.
    """
    few, many = 100, 500 if effort.quick else 1000
    async with running(contender) as rig:
        await warm_up(rig)
        at_rest = rig.process.rss_bytes()
        sizes = []
        for more, total in ((few, few), (many - few, many)):
            # One delta at once, the next after ten seconds: open, and idle.
            await rig.load.submit_many(
                more, tokens=3, rate=0.1, phase=0.0, over_s=more / 500
            )
            await rig.wait_open(total, 20.0)
            await asyncio.sleep(1.0)
            sizes.append(rig.process.rss_bytes())
        closed = await rig.backend("closes")
    if closed:
        raise Wrong(f"{len(closed)} idle streams were closed")
    return {
        "rss_kib_per_stream": (sizes[1] - sizes[0]) / 1024 / (many - few),
        "rss_mib_at_rest": at_rest / 2**20,
    }


async def start(contender: Contender, effort: Effort) -> Figures:
    """From the start of the process to its first 200 on ``/readyz``."""
    async with running(contender) as rig:
        return {"ready_s": rig.ready_s}


#: The processor time that a contender gets: an eighth of what two processors have, so
#: that server, backend and subscriber have enough for what the fastest one delivers.
SATURATION_CPUS = 0.25
#: Past this latency, at the 99th percentile, a contender counts as saturated.
SATURATED_MS = 50.0
#: Less than this share of what was offered, though on time, is the rig's own limit.
DELIVERED = 0.95


async def saturation(contender: Contender, effort: Effort) -> Figures:
    """Tokens a second at which the p99 passes 50 ms, of a quarter of a processor.

    Streams of 50 tokens a second are added in steps until it does. Where the rig
    cannot send more, ``rig_limited`` is 1 and the figure is a lower bound.
    """
    rate, step = 50.0, 1.25 if effort.quick else 1.2
    offered = 800.0
    good = limited = 0.0
    async with running(contender, cpus=SATURATION_CPUS) as rig:
        await warm_up(rig)
        streams = 0
        until = time.monotonic() + 40 * effort.step_s
        while time.monotonic() < until:
            more = round(offered / rate) - streams
            # Slowly: a request costs a contender as much as many tokens.
            await rig.load.submit_many(
                more, tokens=ENDLESS, rate=rate, over_s=more / 20
            )
            streams += more
            await asyncio.sleep(effort.step_s / 3)
            delivered = await _delivered_in_time(rig.load, effort.step_s)
            if not delivered:
                break
            good = max(good, delivered)
            if delivered < DELIVERED * offered:
                limited = 1.0
                break
            offered *= step
        else:
            limited = 1.0
    return {"saturated_tokens_per_s": good, "rig_limited": limited}


async def _delivered_in_time(load: Load, length_s: float) -> float:
    """Deltas a second in a window whose p99 is low enough, or 0.

    Looks three times: something else on the machine can take a processor for a
    while, but who is saturated falls further behind.
    """
    for _ in range(3):
        since = time.monotonic_ns()
        await asyncio.sleep(length_s)
        tokens = load.tokens(since=since, until=since + int(length_s * 1e9))
        if tokens and latencies(tokens)["latency_p99_ms"] <= SATURATED_MS:
            return len(tokens) / length_s
    return 0.0


#: Streams over which 6,000 tokens a second are spread, for the plot and for scaling.
SWEEP = (100, 300, 1000, 2000)


def _spread(streams: int) -> Callable[[Contender, Effort], Awaitable[Figures]]:
    async def spread(contender: Contender, effort: Effort) -> Figures:
        return await steady(contender, effort, streams=streams, rate=6000 / streams)

    return spread


@dataclass(frozen=True)
class Scenario:
    """One scenario, and who takes part in it."""

    name: str
    run: Callable[[Contender, Effort], Awaitable[Figures]]
    #: Empty: everybody.
    contenders: tuple[str, ...] = ()
    needs_cancel: bool = False
    #: Measured once, however many rounds there are.
    once: bool = False

    def takes(self, contender: Contender) -> bool:
        if self.needs_cancel and not contender.cancels:
            return False
        return not self.contenders or contender.name in self.contenders


_THREE = (BRIDGE, GO, OBVIOUS)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("start", start, _THREE),
        Scenario("cpu", cpu),
        Scenario("cpu_scattered", cpu_scattered),
        Scenario("whole", whole),
        Scenario("latency", latency, (BRIDGE, GO)),
        Scenario("request", request, _THREE),
        Scenario("request_burst", request_burst, _THREE),
        Scenario("first_token", first_token, _THREE),
        Scenario("pacing", pacing, _THREE),
        Scenario("cancel", cancel, needs_cancel=True),
        Scenario("memory", memory, (BRIDGE, GO)),
        *(
            Scenario(f"streams_{n}", _spread(n), _THREE, once=n == 1000)
            for n in SWEEP
            if n != 300  # that one is the scenario `cpu`
        ),
        Scenario("saturation", saturation, _THREE, once=True),
    )
}
