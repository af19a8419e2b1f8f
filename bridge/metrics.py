"""Counters of a worker, and their exposition for Prometheus.

Counting is an addition to a plain integer, done once per request or rarer; labels and
formats only come in when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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


Gauges = Callable[[], dict[str, tuple[str, float]]]


class MetersCollector(Collector):
    """Shows `Meters` and gauges that are read when asked."""

    def __init__(self, meters: Meters, gauges: Gauges) -> None:
        self._meters = meters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """The metric families; see ``docs/operations.md``."""
        meters = self._meters
        yield _labelled(
            "tokenbridge_requests_ended",
            "Requests with a proven terminal event, by type and error code.",
            ("type", "code"),
            meters.ended,
        )
        yield _labelled(
            "tokenbridge_resumed",
            "Requests that went on after an interruption, by mode and reason.",
            ("mode", "reason"),
            meters.resumed,
        )
        yield _labelled(
            "tokenbridge_backend_failures",
            "Failures of backends, retried ones included, by backend and code.",
            ("backend", "code"),
            meters.failures,
        )
        claims = {(key,): count for key, count in meters.claims.items()}
        yield _labelled(
            "tokenbridge_claims",
            "Deliveries of jobs by what their log said.",
            ("found",),
            claims,
        )
        for name, text, value in (
            ("deltas", "Deltas published.", meters.deltas),
            ("left", "Jobs left to another worker.", meters.left),
            ("backend_pauses", "Times a backend was held back.", meters.pauses),
            ("malformed_records", "Records of backends skipped.", meters.malformed),
            ("dead_letters", "Jobs kept as dead letters.", meters.dead_letters),
        ):
            family = CounterMetricFamily(f"tokenbridge_{name}", text)
            family.add_metric((), value)
            yield family
        for name, text, distribution in (
            ("queue_seconds", "From storing a job to its claim.", meters.queue),
            ("first_token_seconds", "To the first delta.", meters.first_token),
            ("request_seconds", "From claim to end.", meters.total),
        ):
            histogram = HistogramMetricFamily(f"tokenbridge_{name}", text)
            histogram.add_metric((), distribution.buckets(), distribution.total_s)
            yield histogram
        for name, (text, gauge) in self._gauges().items():
            yield GaugeMetricFamily(f"tokenbridge_{name}", text, gauge)


def _labelled(
    name: str,
    text: str,
    labels: tuple[str, ...],
    counts: Counter[tuple[str, str]] | dict[tuple[str], int],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family


def registry(meters: Meters, gauges: Gauges) -> CollectorRegistry:
    """A registry that shows ``meters``."""
    result = CollectorRegistry()
    result.register(MetersCollector(meters, gauges))
    return result


def exposition(source: CollectorRegistry) -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(source)
