"""The metrics in Prometheus' text format; ``docs/operations.md`` explains each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bridge.metrics import Gauges, Meters


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


def exposition(meters: Meters, gauges: Gauges) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(MetersCollector(meters, gauges))
    return generate_latest(registry)
