"""Comparing in turns: the order, the pairs, and an interval that fits the binomial distribution."""

from __future__ import annotations

import random
import statistics

import pytest

from tests.harness import abba


def test_both_are_measured_in_turns_after_one_of_each_that_does_not_count() -> None:
    order: list[str] = []
    values = iter(range(100))

    def measure(name: str) -> float:
        order.append(name)
        return next(values)

    pairs = abba.compare(lambda: measure("A"), lambda: measure("B"), 10)
    assert "".join(order) == "AB" + "ABBA" * 5
    assert pairs[:3] == [(2, 3), (5, 4), (6, 7)]
    assert len(pairs) == 10


def test_a_drift_of_the_machine_does_not_look_like_a_difference() -> None:
    clock = iter(range(1000))

    def measure() -> float:
        return 100.0 + next(clock)

    assert statistics.median(abba.differences(abba.compare(measure, measure, 12))) == 0


def test_a_difference_and_a_ratio_are_of_the_first_to_the_second() -> None:
    pairs = [(3.0, 2.0), (9.0, 12.0)]
    assert abba.differences(pairs) == [1.0, -3.0]
    assert abba.ratios(pairs) == [1.5, 0.75]


def test_too_few_pairs_are_refused_before_anything_is_measured() -> None:
    def measure() -> float:
        raise AssertionError("measured")

    with pytest.raises(ValueError, match="9 pairs are too few"):
        abba.compare(measure, measure, 9)


@pytest.mark.parametrize(("count", "expected"), [(6, (0, 5)), (10, (1, 8)), (12, (2, 9)), (20, (5, 14)), (40, (13, 26))])
def test_the_interval_is_that_of_the_tables_of_the_sign_test(count: int, expected: tuple[int, int]) -> None:
    samples = [float(number) for number in range(count)]
    random.Random(1).shuffle(samples)
    assert abba.interval(samples) == expected


def test_five_samples_have_no_interval() -> None:
    with pytest.raises(ValueError, match="5 samples are too few"):
        abba.interval([1.0] * 5)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    source = random.Random(7)
    hits = 0
    for _ in range(2000):
        low, high = abba.interval([source.expovariate(1) for _ in range(12)])
        hits += low <= 0.6931 <= high
    assert 0.94 <= hits / 2000 <= 0.98  # exactly 96.1 %


def test_what_people_read_has_median_interval_and_count() -> None:
    assert abba.shown([float(number) for number in range(12)], "ms") == "median 5.5 ms, 95% interval 2 to 9, 12 pairs"
