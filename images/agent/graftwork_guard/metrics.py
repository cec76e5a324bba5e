"""The guard's own metrics, in Prometheus' text format. vLLM's have no adapter in them, so these are the only ones per alias."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from time import time

from graftwork_guard.bodies import Usage
from graftwork_guard.routing import Routing, Target

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# From a small model with an empty queue to a long prompt behind others; close together where answers usually begin, so that versions can be compared.
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_BOUNDS = (*map(str, TTFT_BUCKETS), "+Inf")
MADE_ONCE = 1024  # label sets whose text is kept: a scrape writes thousands of lines, between two requests
RETIRED_KEPT = 50  # label sets of versions that are no longer routed: long enough for a scrape, short enough for a process that lives a year

# How a request ended: with an answer, be it a 4xx; with a 5xx or an error inside its stream; or its client went away before either.
ANSWERED, FAILED, ABANDONED = "answered", "failed", "abandoned"

REFUSED = Target("")  # what never reached the engine: names that clients made up must not become labels


@dataclass(slots=True)
class Series:
    """The numbers of one alias and version."""

    requests: int = 0
    in_flight: int = 0
    errors: Counter[str] = field(default_factory=lambda: Counter({"4xx": 0, "5xx": 0, "stream": 0}))
    tokens: Counter[str] = field(default_factory=lambda: Counter({"prompt": 0, "completion": 0}))
    ttft_counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BUCKETS) + 1))
    ttft_sum_seconds: float = 0.0
    ended: Counter[str] = field(default_factory=lambda: Counter({ANSWERED: 0, FAILED: 0, ABANDONED: 0}))
    began: float = field(default_factory=time)  # Unix seconds: since when a zero means that nothing came

    def failed(self, status: int) -> None:
        """Count an answer with an error status; how its request ended is counted apart."""
        self.errors[f"{status // 100}xx"] += 1

    def stream_failed(self) -> None:
        """Count an error inside a stream whose status had already said 200."""
        self.errors["stream"] += 1

    def used(self, usage: Usage) -> None:
        """Count an answer's tokens."""
        self.tokens["prompt"] += usage.prompt
        self.tokens["completion"] += usage.completion

    def first_token(self, seconds: float) -> None:
        """Count the time from a request's arrival to its first content."""
        self.ttft_counts[bisect_left(TTFT_BUCKETS, seconds)] += 1
        self.ttft_sum_seconds += seconds


class Metrics:
    """All series. Labels are bounded: the base, what is routed, the latest that were, and one for everything refused.

    What is routed has its series from the start, with zeros: a counter that appears with its first request hides that request from `increase`. The
    latest that were are kept because a counter that vanishes takes with it what it counted since the last scrape; should a version that was forgotten
    come back, it begins at zero, as after a restart, which `rate` and `increase` know.
    """

    def __init__(self) -> None:
        self._series: dict[Target, Series] = {}
        self._retired: dict[Target, None] = {}  # in the order in which they left the map

    def of(self, target: Target) -> Series:
        """Return the numbers of one target."""
        series = self._series.get(target)
        if series is None:
            series = self._series[target] = Series()
        return series

    def routed(self, routing: Routing) -> None:
        """Begin the series of what a new map has; forget those that left it first, but for the latest."""
        current = {REFUSED: None, **dict.fromkeys(routing.targets())}
        for target in current:
            self.of(target)
            self._retired.pop(target, None)
        for target in self._series:
            if target not in current:
                self._retired.setdefault(target)
        idle = [target for target in self._retired if not self._series[target].in_flight]
        for target in idle[: max(0, len(self._retired) - RETIRED_KEPT)]:
            del self._series[target], self._retired[target]

    def render(self) -> bytes:
        """Return the exposition."""
        items = [(_labels(target), series) for target, series in self._series.items()]
        reached = [(_labels(target), series) for target, series in self._series.items() if target != REFUSED]
        lines = [
            *family("graftwork_requests_total", "counter", "Inference requests by alias and version; those that were refused have no alias."),
            *(sample("graftwork_requests_total", labels, series.requests) for labels, series in items),
            *family("graftwork_requests_ended_total", "counter", "Requests that ended: answered (4xx too), failed (5xx, or in a stream), abandoned."),
            *(sample("graftwork_requests_ended_total", f'{labels},outcome="{k}"', n) for labels, series in items for k, n in series.ended.items()),
            *family("graftwork_series_start_time_seconds", "gauge", "Unix time at which this process began the series of these labels."),
            *(sample("graftwork_series_start_time_seconds", labels, series.began) for labels, series in items),
            *family("graftwork_request_errors_total", "counter", "Errors by status class, or stream for one inside a stream."),
            *(sample("graftwork_request_errors_total", f'{labels},status="{k}"', n) for labels, series in items for k, n in series.errors.items()),
            *family("graftwork_tokens_total", "counter", "Tokens as reported in answers."),
            *(sample("graftwork_tokens_total", f'{labels},kind="{k}"', n) for labels, series in reached for k, n in series.tokens.items()),
            *family("graftwork_requests_in_flight", "gauge", "Requests that the engine has not finished answering."),
            *(sample("graftwork_requests_in_flight", labels, series.in_flight) for labels, series in reached),
            *family("graftwork_time_to_first_token_seconds", "histogram", "From the request's arrival to the first content of its stream."),
            *(line for labels, series in reached for line in _histogram("graftwork_time_to_first_token_seconds", labels, series)),
        ]
        return "\n".join((*lines, "")).encode()


def family(name: str, kind: str, text: str) -> tuple[str, str]:
    """Return the two lines that introduce a metric."""
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


@lru_cache(MADE_ONCE)
def _labels(target: Target) -> str:
    return f'alias="{_escaped(target.public)}",digest="{target.digest}",version="{target.version}"'


@lru_cache(MADE_ONCE)
def _buckets(name: str, labels: str) -> tuple[str, ...]:
    return tuple(f'{name}_bucket{{{labels},le="{bound}"}} ' for bound in _BOUNDS)


def _histogram(name: str, labels: str, series: Series) -> Iterator[str]:
    total = 0
    for bucket, count in zip(_buckets(name, labels), series.ttft_counts, strict=True):
        total += count
        yield f"{bucket}{total}"
    yield sample(f"{name}_sum", labels, series.ttft_sum_seconds)
    yield sample(f"{name}_count", labels, total)


def label(name: str, value: str) -> str:
    """Return one label; several are joined by commas."""
    return f'{name}="{_escaped(value)}"'


def sample(name: str, labels: str, value: float) -> str:
    """Return one line of a metric; `labels` is what `label` made, joined by commas."""
    return f"{name}{{{labels}}} {value}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
