"""The guard's own metrics, in Prometheus' text format. vLLM's have no adapter in them, so these are the only ones per alias."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from graftwork_guard.bodies import Usage
from graftwork_guard.routing import Routing, Target

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RETIRED_KEPT = 50  # label sets of versions that are no longer routed: long enough for a scrape, short enough for a process that lives a year

REFUSED = Target("")  # what never reached the engine: names that clients made up must not become labels

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Series:
    """The numbers of one alias and version."""

    requests: int = 0
    in_flight: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    ttft_counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BUCKETS) + 1))
    ttft_sum_seconds: float = 0.0

    def failed(self, status: int) -> None:
        """Count an answer with an error status."""
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
    """All series. Labels are bounded: the base, what is routed, the latest that were, and one for everything refused."""

    def __init__(self) -> None:
        self._series: dict[Target, Series] = {}

    def of(self, target: Target) -> Series:
        """Return the numbers of one target."""
        return self._series.setdefault(target, Series())

    def routed(self, routing: Routing) -> None:
        """Forget the oldest of the targets that a new map no longer has."""
        current = {Target(routing.base), REFUSED, *(Target(alias, engine) for alias, engine in routing.aliases.items())}
        retired = [target for target, series in self._series.items() if target not in current and not series.in_flight]
        for target in retired[: max(0, len(retired) - RETIRED_KEPT)]:
            del self._series[target]

    def render(self) -> bytes:
        """Return the exposition."""
        items = [((("alias", target.public), ("digest", target.digest)), series) for target, series in self._series.items()]
        reached = [item for item, target in zip(items, self._series, strict=True) if target != REFUSED]
        lines = [
            *family("graftwork_requests_total", "counter", "Inference requests by alias and version; those that were refused have no alias."),
            *(sample("graftwork_requests_total", labels, series.requests) for labels, series in items),
            *family("graftwork_request_errors_total", "counter", "Errors by status class, or stream for one inside a stream."),
            *(sample("graftwork_request_errors_total", (*labels, ("status", k)), n) for labels, series in items for k, n in series.errors.items()),
            *family("graftwork_tokens_total", "counter", "Tokens as reported in answers."),
            *(sample("graftwork_tokens_total", (*labels, ("kind", k)), n) for labels, series in items for k, n in series.tokens.items()),
            *family("graftwork_requests_in_flight", "gauge", "Requests that the engine has not finished answering."),
            *(sample("graftwork_requests_in_flight", labels, series.in_flight) for labels, series in reached),
            *family("graftwork_time_to_first_token_seconds", "histogram", "From the request's arrival to the first content of its stream."),
            *(line for labels, series in reached for line in _histogram("graftwork_time_to_first_token_seconds", labels, series)),
        ]
        return "".join(f"{line}\n" for line in lines).encode()


def family(name: str, kind: str, text: str) -> tuple[str, str]:
    """Return the two lines that introduce a metric."""
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _histogram(name: str, labels: Labels, series: Series) -> Iterator[str]:
    total = 0
    for bound, count in zip((*map(str, TTFT_BUCKETS), "+Inf"), series.ttft_counts, strict=True):
        total += count
        yield sample(f"{name}_bucket", (*labels, ("le", bound)), total)
    yield sample(f"{name}_sum", labels, series.ttft_sum_seconds)
    yield sample(f"{name}_count", labels, total)


def sample(name: str, labels: Labels, value: float) -> str:
    """Return one line of a metric."""
    text = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
    return f"{name}{{{text}}} {value}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
