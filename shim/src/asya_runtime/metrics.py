"""Figures for Prometheus: counted on the server's event loop, made into text when somebody asks.

Labels have few values, all of them ours: nothing of a message ever becomes one.
"""

from bisect import bisect_left
from typing import Dict, Iterator, List, Mapping, NamedTuple, Tuple

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram, in seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = (
    "ok",
    "bad_request",
    "busy",
    "client_left",
    "draining",
    "msg_parsing_error",
    "processing_error",
    "starting",
    "timeout",
)
UNSTORED = ("collected", "background")
"""What the shim counts of changes that no call could report, in this process: see `asya_shim.endings.failures`."""


class Metric(NamedTuple):
    """A metric as Prometheus sees it; `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: Tuple[str, ...]
    meaning: str


REQUESTS = Metric("asya_runtime_requests_total", "counter", ("outcome",), "Messages answered, or refused.")
SECONDS = Metric("asya_runtime_request_seconds", "histogram", (), "Time from a message to the end of its answer.")
UNSTORED_CHANGES = Metric(
    "asya_runtime_unstored_changes_total",
    "counter",
    ("cause",),
    "Changes of files that could not be stored when no call could say so any more.",
)
PLAIN = {
    "conflicts": Metric("asya_runtime_conflicts_total", "counter", (), "Turns that met a conflict."),
    "reruns": Metric("asya_runtime_reruns_total", "counter", (), "Turns run anew after a conflict."),
    "running": Metric("asya_runtime_running_turns", "gauge", (), "Turns that run."),
    "waiting": Metric("asya_runtime_waiting_requests", "gauge", (), "Messages that wait for their turn."),
    "concurrency": Metric("asya_runtime_running_turns_limit", "gauge", (), "Turns that may run at a time."),
    "ready": Metric("asya_runtime_ready", "gauge", (), "1 while messages become turns."),
    "draining": Metric("asya_runtime_draining", "gauge", (), "1 from SIGTERM on, while turns end."),
}
METRICS = (REQUESTS, SECONDS, UNSTORED_CHANGES, *PLAIN.values())


class Figures:
    """What happened to messages. Used by the server's event loop alone."""

    def __init__(self) -> None:
        # There from the start: the first step of a counter that appears with it is no increase to Prometheus.
        self.outcomes: Dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.conflicts = 0
        self.reruns = 0
        self._counts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, outcome: str, seconds: float) -> None:
        """A message was answered; `outcome` is `ok`, `client_left` or the error's code."""
        self.outcomes[outcome] += 1
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def text(self, plain: Mapping[str, float], unstored: Mapping[str, int]) -> bytes:
        """Everything in Prometheus' text format; `plain` has what is known elsewhere, by the names in PLAIN."""
        values = {**plain, "conflicts": self.conflicts, "reruns": self.reruns}
        lines = [*_head(REQUESTS)]
        lines += [f'{REQUESTS.name}{{outcome="{name}"}} {count}' for name, count in self.outcomes.items()]
        lines += [*_head(SECONDS), *self._histogram(), *_head(UNSTORED_CHANGES)]
        lines += [f'{UNSTORED_CHANGES.name}{{cause="{name}"}} {unstored.get(name, 0)}' for name in UNSTORED]
        for key, metric in PLAIN.items():
            lines += [*_head(metric), f"{metric.name} {values[key]}"]
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self) -> Iterator[str]:
        total = 0
        bounds: List[str] = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        for bound, count in zip(bounds, self._counts):
            total += count
            yield f'{SECONDS.name}_bucket{{le="{bound}"}} {total}'
        yield f"{SECONDS.name}_sum {self._seconds}"
        yield f"{SECONDS.name}_count {total}"


def _head(metric: Metric) -> Tuple[str, str]:
    return f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"
