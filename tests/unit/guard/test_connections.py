"""After a scale-up: who is let go of, once, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graftwork_guard.connections import REMEMBERED, SETTLE_SECONDS, WINDOW_SECONDS, Connections
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import Call, World

CHAT = "/v1/chat/completions"


def scope(port: int | None, version: str = "1.1") -> dict[str, Any]:
    return {"client": None if port is None else ("10.0.0.1", port), "http_version": version}


class Fixture:
    """One process's connections, ready for a while, with a clock that stands still and a draw that never hits."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.drawn = False
        self.connections = Connections(lambda: self.now, lambda: self.drawn, **options)
        self.connections.served_by(1)
        self.now = 100.0

    def ask(self, port: int | None, version: str = "1.1") -> bool:
        self.connections.arrived(scope(port, version))
        return self.connections.lets_go(scope(port, version))

    def grow(self, replicas: int) -> None:
        """See more pods, and the time pass in which every node learns of them."""
        self.connections.served_by(replicas)
        self.now += SETTLE_SECONDS


def test_who_was_here_before_the_growth_is_let_go_of_once_and_who_came_later_never() -> None:
    it = Fixture()
    assert not it.ask(1)
    it.grow(2)
    assert not it.ask(2)
    assert [it.ask(1), it.ask(1), it.ask(1)] == [True, False, False]
    assert not it.ask(2)


def test_until_the_new_pod_is_known_everywhere_nobody_is_let_go_of_and_who_comes_meanwhile_is_so_afterwards() -> None:
    it = Fixture()
    it.ask(1)
    it.connections.served_by(2)
    it.now += SETTLE_SECONDS - 0.001
    assert [it.ask(1), it.ask(2)] == [False, False], "they might come back to this pod, and stay"
    it.now += 0.001
    assert [it.ask(3), it.ask(1), it.ask(2)] == [False, True, True]
    assert [it.ask(1), it.ask(2)] == [False, False]


def test_pods_that_come_one_after_the_other_cost_each_connection_one_end() -> None:
    it = Fixture()
    it.ask(1)
    let_go = []
    for replicas in range(2, 8):
        it.connections.served_by(replicas)
        it.now += SETTLE_SECONDS / 2
        let_go.append(it.ask(1))
    it.now += SETTLE_SECONDS
    assert let_go == [False] * 6
    assert [it.ask(1), it.ask(1)] == [True, False]


def test_each_growth_lets_go_of_those_before_it_and_a_shrinkage_of_nobody() -> None:
    it = Fixture()
    it.ask(1)
    it.grow(1)
    assert not it.ask(1), "the same number again is no growth"
    it.grow(3)
    it.ask(2)
    it.grow(2)
    assert not it.ask(2)
    it.grow(3)
    assert [it.ask(1), it.ask(2), it.ask(1), it.ask(2)] == [True, True, False, False]


def test_the_first_number_of_replicas_is_no_growth() -> None:
    it = Fixture()
    it.connections = Connections(lambda: it.now)
    it.ask(1)
    it.grow(5)
    assert not it.ask(1)


def test_what_grows_before_a_pod_is_ready_is_no_growth_for_it() -> None:
    it = Fixture()
    it.connections = Connections(lambda: it.now)
    it.connections.served_by(1, ready=False)
    it.now += 60
    it.connections.served_by(2, ready=False)
    it.ask(1)
    it.connections.served_by(2, ready=True)
    it.now += SETTLE_SECONDS
    assert not it.ask(1)
    it.grow(3)
    assert it.ask(1), "of the next growth it is one of the old ones"


@pytest.mark.parametrize("seconds", [0.0, SETTLE_SECONDS - 0.001])
def test_pods_that_become_ready_one_right_after_the_other_share_who_came_first(seconds: float) -> None:
    """The first map says 1 with no pod ready and with one: the step to 2 is the second pod's, however soon it comes."""
    it = Fixture()
    it.connections = Connections(lambda: it.now)
    it.connections.served_by(1, ready=False)
    it.connections.served_by(1, ready=True)
    it.ask(1)
    it.now += seconds
    it.grow(2)
    assert [it.ask(1), it.ask(1)] == [True, False]


def test_a_request_that_was_running_when_the_growth_settled_ends_its_connection_if_its_answer_had_not_begun() -> None:
    it = Fixture()
    it.connections.arrived(scope(1))
    it.grow(2)
    assert it.connections.lets_go(scope(1))


def test_after_the_window_nobody_is_let_go_of_until_the_next_growth() -> None:
    it = Fixture()
    it.ask(1)
    it.connections.served_by(2)
    it.now = 100 + WINDOW_SECONDS - 0.001
    it.ask(2)
    it.now = 100 + WINDOW_SECONDS
    assert not it.ask(1)
    it.grow(3)
    assert it.ask(1)
    assert it.ask(2)


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
def test_only_http_1_1_has_connections_to_close(version: str) -> None:
    it = Fixture()
    it.ask(1, version)
    it.grow(2)
    assert not it.ask(1, version)


def test_connections_that_cannot_be_told_apart_are_let_go_of_now_and_then_within_the_window() -> None:
    it = Fixture()
    it.drawn = True
    assert not it.ask(None), "nothing has grown"
    it.grow(2)
    assert it.ask(None)
    it.drawn = False
    assert not it.ask(None)
    it.drawn, it.now = True, 100 + WINDOW_SECONDS
    assert not it.ask(None)


def test_memory_is_bounded_and_those_that_were_used_last_are_remembered() -> None:
    it = Fixture(remembered=3)
    for port in (1, 2, 3, 1, 4):
        it.ask(port)
    it.grow(2)
    assert {port: it.ask(port) for port in (1, 2, 3, 4)} == {1: True, 2: False, 3: True, 4: True}
    many = Connections()
    for port in range(REMEMBERED + 100):
        many.arrived(scope(port))
    assert len(many._seen) == REMEMBERED


@given(st.lists(st.tuples(st.sampled_from(["ask", "grow", "shrink", "wait"]), st.integers(1, 5)), max_size=60))
def test_nobody_is_let_go_of_who_came_after_the_last_growth(steps: list[tuple[str, int]]) -> None:
    it, replicas, opened, growths = Fixture(), 1, dict[int, int](), 0
    for step, number in steps:
        if step == "ask":
            opened.setdefault(number, growths)
            if it.ask(number):
                assert opened.pop(number) < growths
        elif step == "wait":
            it.now += number * 100
        else:
            before, replicas = replicas, max(1, replicas + (number if step == "grow" else -number))
            growths += replicas > before
            it.grow(replicas)


class Clock:
    """The time of a guard, in the test's hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def grown(world: World, clock: Clock, replicas: int) -> None:
    """Grow a deployment whose pod has been ready for long, and let it settle."""
    clock.now += SETTLE_SECONDS
    assert (await world.route(replicas=replicas)).status == 200
    clock.now += SETTLE_SECONDS


async def test_an_answer_says_close_after_the_growth_and_only_then(tmp_path: Path) -> None:
    async def close() -> bool:
        call = Call(world.guard, "POST", CHAT, b"{}")
        call._scope |= {"client": ("10.0.0.1", 7), "http_version": "1.1"}
        return (await call.run()).headers.get(b"connection") == b"close"

    clock = Clock()
    world = World(tmp_path, clock)
    await world.route()
    assert not await close()
    await grown(world, clock, 1)
    assert not await close()
    await grown(world, clock, 2)
    assert [await close(), await close()] == [True, False]


async def test_a_pod_that_is_not_ready_does_not_take_its_own_arrival_for_another_pods(tmp_path: Path) -> None:
    clock = Clock()
    world = World(tmp_path, clock)
    for replicas, ready in ((1, False), (2, False), (2, True)):
        await world.route(replicas=replicas, ready=ready)
        clock.now += 1
        world.guard.state.connections.arrived(scope(replicas))
    clock.now += SETTLE_SECONDS
    assert not any(world.guard.state.connections.lets_go(scope(port)) for port in (1, 2))
