"""The targets: which figure, what it must be and what it aims at, and the verdict.

Results are ``{scenario: {contender: [figures of each round]}}``. A ratio is taken
round by round, since the rounds are interleaved and a machine's mood drifts, and
then the median of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.contenders import BRIDGE, GO, GO_ONE, OBVIOUS

Results = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]
Verdict = Literal["aim", "must", "missed", "at least", "not measured"]


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


def values(results: Results, scenario: str, contender: str, figure: str) -> list[float]:
    """One figure, round by round; empty where it was not measured."""
    rounds = results.get(scenario, {}).get(contender, [])
    return [figures[figure] for figures in rounds if figure in figures]


@dataclass(frozen=True)
class Measured:
    """Where a figure of a target comes from."""

    scenario: str
    figure: str
    contender: str = BRIDGE

    def values(self, results: Results) -> list[float]:
        return values(results, self.scenario, self.contender, self.figure)


@dataclass(frozen=True)
class Target:
    """A figure of the bridge, or its ratio to ``over``."""

    title: str
    of: Measured
    must: float
    aim: float
    over: Measured | None = None
    unit: str = "×"
    higher_is_better: bool = False

    def values(self, results: Results) -> list[float]:
        """The figure of every round."""
        own = self.of.values(results)
        if self.over is None:
            return own
        pairs = zip(own, self.over.values(results), strict=False)
        return [a / b for a, b in pairs if b]

    def verdict(self, results: Results) -> Verdict:
        """What the median reaches."""
        spread = Spread.of(self.values(results))
        if spread is None:
            return "not measured"
        better: Callable[[float, float], bool] = (
            float.__ge__ if self.higher_is_better else float.__le__
        )
        if better(spread.median, self.aim):
            return "aim"
        if any(values(results, self.of.scenario, self.of.contender, "rig_limited")):
            return "at least"
        return "must" if better(spread.median, self.must) else "missed"


def _against(
    title: str,
    scenario: str,
    figure: str,
    peer: str,
    must: float,
    aim: float,
    *,
    higher_is_better: bool = False,
) -> Target:
    return Target(
        title,
        Measured(scenario, figure),
        must,
        aim,
        Measured(scenario, figure, peer),
        higher_is_better=higher_is_better,
    )


_CPU = "cpu_us_per_token"

TARGETS = (
    _against("CPU per token / Go", "cpu", _CPU, GO, 1.0, 0.7),
    _against("  every delta on its own", "cpu_scattered", _CPU, GO, 1.0, 0.7),
    _against("  whole requests", "whole", _CPU, GO, 1.0, 0.7),
    _against("CPU per token / Go on one processor", "cpu", _CPU, GO_ONE, 1.0, 0.7),
    _against("  every delta on its own", "cpu_scattered", _CPU, GO_ONE, 1.0, 0.7),
    _against("  whole requests", "whole", _CPU, GO_ONE, 1.0, 0.7),
    _against("CPU per token / obvious Python", "cpu", _CPU, OBVIOUS, 1 / 3, 1 / 5),
    _against("  every delta on its own", "cpu_scattered", _CPU, OBVIOUS, 1 / 3, 1 / 5),
    _against("  whole requests", "whole", _CPU, OBVIOUS, 1 / 3, 1 / 5),
    Target(
        "CPU per token, 2,000 streams / 100",
        Measured("streams_2000", _CPU),
        1.2,
        1.05,
        Measured("streams_100", _CPU),
    ),
    Target(
        "CPU of a request itself, 20 at a time",
        Measured("request_burst", "cpu_us_per_request"),
        600,
        300,
        unit="µs",
    ),
    Target(
        "  one every 10 ms",
        Measured("request", "cpu_us_per_request"),
        600,
        300,
        unit="µs",
    ),
    _against(
        "tokens/s at added p99 50 ms / obvious Python",
        "saturation",
        "saturated_tokens_per_s",
        OBVIOUS,
        3,
        5,
        higher_is_better=True,
    ),
    Target(
        "128 × 64 at 20 ms: deltas/s / pacing",
        Measured("pacing", "pace_ratio"),
        0.98,
        0.995,
        higher_is_better=True,
    ),
    Target(
        "  longest gap", Measured("pacing", "gap_max_ms"), must=40, aim=40, unit="ms"
    ),
    _against("latency p50 / Go", "latency", "latency_p50_ms", GO, 1.3, 1.0),
    _against("latency p99 / Go", "latency", "latency_p99_ms", GO, 1.5, 1.0),
    Target(
        "submit to first token, p50",
        Measured("first_token", "first_token_p50_ms"),
        5,
        2,
        unit="ms",
    ),
    Target(
        "cancel to closed upstream, p99, 200 streams",
        Measured("cancel", "cancel_p99_ms"),
        must=10,
        aim=5,
        unit="ms",
    ),
    Target(
        "resident memory per idle stream",
        Measured("memory", "rss_kib_per_stream"),
        60,
        30,
        unit="KiB",
    ),
    Target("start to ready", Measured("start", "ready_s"), 1, 0.5, unit="s"),
)
