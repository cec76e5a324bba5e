"""How much one key may ask of this pod: requests and tokens per minute, requests at once. Pure; the clock is the caller's.

Requests and tokens are token buckets. A bucket holds one minute's worth and fills evenly, so a client may use a whole minute's worth at once and then
gets what flows in. Tokens are known only when an answer has ended: they are taken then, down into debt, and the next request waits until it is paid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MINUTE_SECONDS = 60.0
BUSY_RETRY_SECONDS = 1  # nobody knows when one of the running requests ends

REQUESTS, TOKENS, CONCURRENT = "requests", "tokens", "concurrent"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use of the whole deployment; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that is used up: which one, what this pod's share of it is, and when to come again."""

    limit: str
    share: int
    retry_after_seconds: int

    @property
    def message(self) -> str:
        """What the client is told."""
        unit = {REQUESTS: "requests per minute", TOKENS: "tokens per minute", CONCURRENT: "requests at once"}[self.limit]
        text = f"Rate limit reached: this replica's share of your key's limit is {self.share} {unit}."
        return f"{text} Please try again in {self.retry_after_seconds} s."


def share(limit: int, replicas: int) -> int:
    """Return one pod's part of a limit: divided by the pods that are ready, and at least 1 so that no pod refuses everything."""
    return max(1, limit // max(1, replicas))


class Bucket:
    """What was used and has not flowed back yet. Keeping that, rather than what is left, lets the size change under it."""

    def __init__(self, now: float) -> None:
        self._used = 0.0
        self._at = now

    def left(self, size: int, now: float) -> float:
        """Return how much may be used; negative is debt."""
        self._used = max(0.0, self._used - (now - self._at) * size / MINUTE_SECONDS)
        self._at = now
        return size - self._used

    def take(self, amount: float) -> None:
        """Use some, or more than there is. The caller has just asked `left`."""
        self._used += amount

    def seconds_until(self, wanted: float, size: int) -> float:
        """Return when `wanted` is left, as of the last look."""
        return max(0.0, wanted - (size - self._used)) * MINUTE_SECONDS / size


class Meter:
    """One key's use of this pod. It outlives a change of the key's limits: what was used stays used."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.in_flight = 0
        self._clock = clock
        self._requests = Bucket(clock())
        self._tokens = Bucket(clock())

    def enter(self, replicas: int) -> Excess | None:
        """Count one request in, to be counted out by `leave`; or return the limit that forbids it, and count nothing."""
        limits, now = self.limits, self._clock()
        if limits.concurrent is not None and self.in_flight >= share(limits.concurrent, replicas):
            return Excess(CONCURRENT, share(limits.concurrent, replicas), BUSY_RETRY_SECONDS)
        for name, limit, bucket in ((REQUESTS, limits.requests_per_minute, self._requests), (TOKENS, limits.tokens_per_minute, self._tokens)):
            if limit is not None:
                size = share(limit, replicas)
                if bucket.left(size, now) < 1:
                    return Excess(name, size, max(1, math.ceil(bucket.seconds_until(1, size))))
        if limits.requests_per_minute is not None:
            self._requests.take(1)
        self.in_flight += 1
        return None

    def leave(self) -> None:
        """Count one request out."""
        self.in_flight -= 1

    def use(self, tokens: float) -> None:
        """Take the tokens of an answer."""
        if self.limits.tokens_per_minute is not None:
            self._tokens.take(tokens)

    def use_estimate(self, tokens: float, replicas: int) -> None:
        """Take tokens that nobody counted: at most this pod's share of a minute, since an estimate can be far off."""
        if self.limits.tokens_per_minute is not None:
            self.use(min(tokens, share(self.limits.tokens_per_minute, replicas)))

    def headers(self, replicas: int) -> Headers:
        """Return the headers by which clients of OpenAI's API know their limits, as of now."""
        found: Headers = []
        now = self._clock()
        for name, limit, bucket in (
            (REQUESTS, self.limits.requests_per_minute, self._requests),
            (TOKENS, self.limits.tokens_per_minute, self._tokens),
        ):
            if limit is None:
                continue
            size = share(limit, replicas)
            left = bucket.left(size, now)
            values = {"limit": str(size), "remaining": str(max(0, math.floor(left))), "reset": duration(bucket.seconds_until(size, size))}
            found += [(f"x-ratelimit-{what}-{name}".encode(), value.encode()) for what, value in values.items()]
        return found


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers write it: 250ms, 6s, 1m30s, 2h0m5s. Rounded up: who waits so long is not early."""
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole = math.ceil(milliseconds / 1000)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
