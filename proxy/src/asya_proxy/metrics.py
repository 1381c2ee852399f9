"""Figures for Prometheus. Plain integers on the way of a request; made into metrics when somebody asks.

Labels are mount, operation and outcome. A key never becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the latency histogram, in seconds."""


class OpMetrics:
    """One operation: how often with which outcome, and how long."""

    __slots__ = ("counts", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class MountMetrics:
    """What happened on one mount."""

    def __init__(self, mount: str, backend: str = "", consistency: str = "") -> None:
        self.mount = mount
        self.info = (mount, backend, consistency)
        self.ops: dict[str, OpMetrics] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.conflicts = 0
        self.retries = 0
        self.unknown_outcomes = 0
        self.defects = 0
        self.cut_answers = 0
        self.in_flight = 0
        self.buffered = 0
        self.ready = 0

    def observe(self, op: str, outcome: str, seconds: float) -> None:
        """One request answered; `outcome` is `ok` or the wire's error code."""
        figures = self.ops.get(op)
        if figures is None:
            figures = self.ops[op] = OpMetrics()
        outcomes = figures.outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        figures.counts[bisect_left(BUCKETS, seconds)] += 1
        figures.seconds += seconds


class Metrics(Collector):
    """All mounts of a process, in Prometheus' text format."""

    def __init__(self) -> None:
        self.mounts: list[MountMetrics] = []
        self.draining = False
        self.max_in_flight = 0
        self.max_buffered = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def mount(self, name: str, backend: str = "", consistency: str = "") -> MountMetrics:
        figures = MountMetrics(name, backend, consistency)
        self.mounts.append(figures)
        return figures

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[CounterMetricFamily]:
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        requests = CounterMetricFamily("asya_proxy_requests", "Requests answered.", labels=["mount", "op", "outcome"])
        latency = HistogramMetricFamily(
            "asya_proxy_request_seconds", "Time from request to answer.", labels=["mount", "op"]
        )
        for m in self.mounts:
            for op, figures in m.ops.items():
                for outcome, count in figures.outcomes.items():
                    requests.add_metric([m.mount, op, outcome], count)
                latency.add_metric([m.mount, op], _cumulated(figures.counts), figures.seconds)
        yield requests
        yield latency
        for attribute, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"asya_proxy_{name}", text, labels=["mount"])
            for m in self.mounts:
                counter.add_metric([m.mount], getattr(m, attribute))
            yield counter
        for attribute, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"asya_proxy_{name}", text, labels=["mount"])
            for m in self.mounts:
                gauge.add_metric([m.mount], getattr(m, attribute))
            yield gauge
        info = GaugeMetricFamily(
            "asya_proxy_mount_info", "1; its labels say what the mount is.", labels=["mount", "backend", "consistency"]
        )
        for m in self.mounts:
            info.add_metric(list(m.info), 1)
        yield info
        for attribute, (name, text) in _PROCESS.items():
            yield GaugeMetricFamily(f"asya_proxy_{name}", text, value=float(getattr(self, attribute)))


# Attribute -> name and meaning. A counter is there from the start, at 0: the first step of one that appears with it
# is no increase to Prometheus.
_COUNTERS = {
    "bytes_in": ("request_bytes", "Bytes of request bodies."),
    "bytes_out": ("response_bytes", "Bytes of file content sent."),
    "conflicts": ("conflicts", "Changes refused because the file was at another version."),
    "retries": ("retries", "Attempts at the store beyond the first of a request."),
    "unknown_outcomes": ("unknown_outcomes", "Changes whose answer was lost and could not be settled."),
    "defects": ("defects", "Requests that failed by a defect of the proxy."),
    "cut_answers": ("cut_answers", "Answers that broke off because the store failed in the middle of a file."),
}
_GAUGES = {
    "in_flight": ("in_flight_requests", "Requests in work."),
    "buffered": ("buffered_bytes", "Bytes of request bodies in memory."),
    "ready": ("ready", "1 where the backend answers and its promises were verified."),
}
_PROCESS = {
    "max_in_flight": ("in_flight_requests_limit", "Requests in work, over all mounts, beyond which more are busy."),
    "max_buffered": ("buffered_bytes_limit", "Bytes in memory, over all mounts, beyond which more are busy."),
    "draining": ("draining", "1 from SIGTERM on, while requests in work are answered."),
}


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    out: list[tuple[str, float]] = []
    for bound, count in zip([*BUCKETS, float("inf")], counts, strict=True):
        total += count
        out.append(("+Inf" if bound == float("inf") else f"{bound:g}", total))
    return out
