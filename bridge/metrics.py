"""Counters of a worker.

Counting is an addition to a plain integer, done once per request or rarer; labels and
formats only come in when somebody asks: `bridge.exposition`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

#: Upper bounds in seconds, from a fast model's first token to a long answer.
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Distribution:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.total_s += seconds
        for index, bound in enumerate(BUCKETS_S):
            if seconds <= bound:
                self.counts[index] += 1
                return
        self.counts[-1] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus wants them."""
        result: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*BUCKETS_S, float("inf")), self.counts, strict=True):
            running += count
            result.append(("+Inf" if bound == float("inf") else str(bound), running))
        return result


class Meters:
    """What a worker counts."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()  # (type, error code)
        self.claims: Counter[str] = Counter()
        self.resumed: Counter[tuple[str, str]] = Counter()  # (mode, reason)
        self.failures: Counter[tuple[str, str]] = Counter()  # (backend, code)
        self.deltas = 0
        self.left = 0
        self.pauses = 0
        self.malformed = 0
        self.dead_letters = 0
        self.queue = Distribution()
        self.first_token = Distribution()
        self.total = Distribution()


#: Reads the gauges: name -> (help, value).
Gauges = Callable[[], dict[str, tuple[str, float]]]
