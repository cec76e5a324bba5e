"""Two things compared in turns, A B B A, so that a machine that slows down or warms up meanwhile does so to both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

LEAST_PAIRS = 10
CONFIDENCE = 0.95

Pair = tuple[float, float]


def compare(first: Callable[[], float], second: Callable[[], float], count: int) -> list[Pair]:
    """Measure both `count` times as A B B A A B ..., and return each neighbouring pair as (A's value, B's value).

    Each is measured once before that and the value thrown away: caches are warm from the first pair on.
    """
    if count < LEAST_PAIRS:
        raise ValueError(f"{count} pairs are too few for an interval; measure at least {LEAST_PAIRS}")
    first()
    second()
    pairs = []
    for number in range(count):
        if number % 2 == 0:
            one = first()
            pairs.append((one, second()))
        else:
            two = second()
            pairs.append((first(), two))
    return pairs


def differences(pairs: Sequence[Pair]) -> list[float]:
    """Return A - B of each pair."""
    return [first - second for first, second in pairs]


def ratios(pairs: Sequence[Pair]) -> list[float]:
    """Return A / B of each pair."""
    return [first / second for first, second in pairs]


def interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> Pair:
    """Return the confidence interval of the median, by order statistics: it supposes nothing about how the samples are distributed.

    The k-th smallest and the k-th largest of n samples hold the median between them unless fewer than k samples lie on one side of it, which has the
    probability of fewer than k heads in n throws of a coin, for each side.
    """
    ordered, count = sorted(samples), len(samples)
    rank, below = 0, 0.0
    while True:
        below += math.comb(count, rank) / 2**count
        if 2 * below > 1 - confidence:
            break
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} samples are too few for an interval of {confidence:.0%}")
    return ordered[rank - 1], ordered[count - rank]


def shown(samples: Sequence[float], unit: str) -> str:
    """Return median and interval for people."""
    low, high = interval(samples)
    return f"median {statistics.median(samples):.4g} {unit}, {CONFIDENCE:.0%} interval {low:.4g} to {high:.4g}, {len(samples)} pairs"
