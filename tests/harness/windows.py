"""What of a load fell into a span of time: the requests of a disruption, those that it cost, and whose they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Sample = tuple[float, frozenset[str]]
"""A time, and the addresses of the pods that were ready from then on."""


@dataclass(frozen=True)
class Request:
    """One request by the clock of `time.monotonic`; `failure` is empty when it was complete, `cut` is a stream that failed after it had begun."""

    began: float
    ended: float
    stream: bool
    failure: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Window:
    """A span of time."""

    began: float
    ended: float

    def holds(self, request: Request) -> bool:
        """Whether the request was under way at any time of the span."""
        return request.began <= self.ended and request.ended >= self.began


@dataclass(frozen=True)
class Count:
    """Requests of a window, counted."""

    requests: int
    streams: int
    lost: int
    cut: int
    failures: tuple[str, ...] = ()
    """What the lost ones said, each text once."""


def count(requests: Iterable[Request]) -> Count:
    """Count requests."""
    found = list(requests)
    lost = [each for each in found if each.failure]
    return Count(
        requests=len(found),
        streams=sum(each.stream for each in found),
        lost=len(lost),
        cut=sum(each.cut for each in lost),
        failures=tuple(dict.fromkeys(each.failure for each in lost)),
    )


def within(requests: Iterable[Request], window: Window) -> list[Request]:
    """Return the requests that were under way in the window."""
    return [each for each in requests if window.holds(each)]


def excused(requests: Iterable[Request], killed: float, known: float) -> tuple[list[Request], list[Request]]:
    """Split the requests into those that a killed pod may have cost, and all others.

    Which pod a client was connected to, nobody knows. What may be the killed one's are failures of requests that ended after it was killed and began
    before everybody knew (its endpoint was gone): a failure before or after that is somebody else's.
    """
    found = list(requests)
    its = [bool(each.failure) and each.ended >= killed and each.began <= known for each in found]
    return [each for each, excuse in zip(found, its, strict=True) if excuse], [each for each, excuse in zip(found, its, strict=True) if not excuse]


def fewest(samples: Sequence[Sample], window: Window) -> int:
    """Return how few pods were ready at any time of the window, by what was seen before and in it."""
    before = [addresses for at, addresses in samples if at <= window.began][-1:]
    during = [addresses for at, addresses in samples if window.began < at <= window.ended]
    seen = [*before, *during]
    if not seen:
        raise ValueError("nothing was seen of the pods before the end of the window")
    return min(len(addresses) for addresses in seen)


def gone(samples: Sequence[Sample], address: str, since: float) -> float:
    """Return when the address was first seen missing after `since`."""
    for at, addresses in samples:
        if at >= since and address not in addresses:
            return at
    raise ValueError(f"{address} was ready all the time")
