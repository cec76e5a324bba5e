"""What of a load belongs to a disruption, and which failures may be a killed pod's."""

from __future__ import annotations

import pytest

from tests.harness.windows import Count, Request, Window, count, excused, fewest, gone, within

WINDOW = Window(10, 20)


def request(began: float, ended: float, failure: str = "", *, stream: bool = False, cut: bool = False) -> Request:
    return Request(began, ended, stream, failure, cut)


@pytest.mark.parametrize(
    ("began", "ended", "counts"),
    [(8, 9.9, False), (8, 10, True), (8, 30, True), (12, 13, True), (20, 21, True), (20.1, 21, False)],
)
def test_a_request_counts_when_it_was_under_way_at_any_time_of_the_window(began: float, ended: float, counts: bool) -> None:
    assert bool(within([request(began, ended)], WINDOW)) is counts


def test_lost_requests_are_counted_once_and_their_texts_once() -> None:
    found = [
        request(11, 12),
        request(11, 12, stream=True),
        request(12, 13, "refused"),
        request(12, 13, "refused", stream=True),
        request(13, 14, "cut off", stream=True, cut=True),
    ]
    assert count(found) == Count(requests=5, streams=3, lost=3, cut=1, failures=("refused", "cut off"))
    assert count([]) == Count(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("failed", "of_the_pod"),
    [
        (request(9, 12, "cut", stream=True, cut=True), True),  # under way when it was killed
        (request(12.5, 12.6, "refused"), True),  # sent there before anybody knew
        (request(9, 11.9, "HTTP 500"), False),  # before
        (request(15.1, 15.2, "refused"), False),  # its endpoint was gone
        (request(12.5, 12.6), False),  # complete
    ],
)
def test_only_failures_from_the_kill_until_everybody_knew_are_the_killed_pods(failed: Request, of_the_pod: bool) -> None:
    its, others = excused([failed], killed=12, known=15)
    assert (its, others) == (([failed], []) if of_the_pod else ([], [failed]))


def ready(*addresses: str) -> frozenset[str]:
    return frozenset(addresses)


def test_the_fewest_ready_pods_are_those_that_the_window_began_with_or_saw() -> None:
    samples = [(1, ready()), (5, ready("a", "b")), (12, ready("a", "b", "c")), (15, ready("c", "b")), (25, ready())]
    assert fewest(samples, WINDOW) == 2
    assert fewest([*samples[:3], (14.0, ready("c"))], WINDOW) == 1
    assert fewest(samples[:1], WINDOW) == 0
    with pytest.raises(ValueError, match="nothing was seen"):
        fewest(samples[4:], WINDOW)


def test_an_endpoint_is_gone_when_it_is_first_missed_after_the_kill() -> None:
    samples = [(1, ready("a")), (5, ready("a", "b")), (12, ready("a", "b", "c")), (13, ready("a", "c")), (14, ready("a"))]
    assert gone(samples, "b", since=12) == 13
    with pytest.raises(ValueError, match="a was ready all the time"):
        gone(samples, "a", since=12)
