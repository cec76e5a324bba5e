"""After a scale-up: who is let go of, once, and that no request of a client who keeps its connection is lost by it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from graftwork_guard.connections import REMEMBERED, WINDOW_SECONDS, Connections
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import AGENT, ROUTING, Call, World
from tests.unit.guard.server import Server

CHAT = "/v1/chat/completions"


def scope(port: int | None, version: str = "1.1") -> dict[str, Any]:
    return {"client": None if port is None else ("10.0.0.1", port), "http_version": version}


class Fixture:
    """One process's connections, with a clock that stands still and a draw that never hits."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.drawn = False
        self.connections = Connections(lambda: self.now, lambda: self.drawn, **options)
        self.connections.served_by(1)

    def ask(self, port: int | None, version: str = "1.1") -> bool:
        self.connections.arrived(scope(port, version))
        return self.connections.lets_go(scope(port, version))


def test_who_was_here_before_the_growth_is_let_go_of_once_and_who_came_later_never() -> None:
    it = Fixture()
    assert not it.ask(1)
    it.connections.served_by(2)
    assert not it.ask(2)
    assert [it.ask(1), it.ask(1), it.ask(1)] == [True, False, False]
    assert not it.ask(2)


def test_each_growth_lets_go_of_those_before_it_and_a_shrinkage_of_nobody() -> None:
    it = Fixture()
    it.ask(1)
    it.connections.served_by(1)
    assert not it.ask(1), "the same number again is no growth"
    it.connections.served_by(3)
    it.ask(2)
    it.connections.served_by(2)
    assert not it.ask(2)
    it.connections.served_by(3)
    assert [it.ask(1), it.ask(2), it.ask(1), it.ask(2)] == [True, True, False, False]


def test_the_first_number_of_replicas_is_no_growth() -> None:
    it = Connections()
    it.arrived(scope(1))
    it.served_by(5)
    assert not it.lets_go(scope(1))


def test_a_request_that_was_running_when_the_deployment_grew_ends_its_connection_if_its_answer_had_not_begun() -> None:
    it = Fixture()
    it.connections.arrived(scope(1))
    it.connections.served_by(2)
    assert it.connections.lets_go(scope(1))


def test_after_the_window_nobody_is_let_go_of_until_the_next_growth() -> None:
    it = Fixture()
    it.ask(1)
    it.connections.served_by(2)
    it.now = WINDOW_SECONDS - 0.001
    it.ask(2)
    it.now = WINDOW_SECONDS
    assert not it.ask(1)
    it.connections.served_by(3)
    assert it.ask(1)
    assert it.ask(2)


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
def test_only_http_1_1_has_connections_to_close(version: str) -> None:
    it = Fixture()
    it.ask(1, version)
    it.connections.served_by(2)
    assert not it.ask(1, version)


def test_connections_that_cannot_be_told_apart_are_let_go_of_now_and_then_within_the_window() -> None:
    it = Fixture()
    it.drawn = True
    assert not it.ask(None), "nothing has grown"
    it.connections.served_by(2)
    assert it.ask(None)
    it.drawn = False
    assert not it.ask(None)
    it.drawn, it.now = True, WINDOW_SECONDS
    assert not it.ask(None)


def test_memory_is_bounded_and_those_that_were_used_last_are_remembered() -> None:
    it = Fixture(remembered=3)
    for port in (1, 2, 3, 1, 4):
        it.ask(port)
    it.connections.served_by(2)
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
            it.connections.served_by(replicas)


async def test_an_answer_says_close_after_the_growth_and_only_then(world: World) -> None:
    async def close() -> bool:
        call = Call(world.guard, "POST", CHAT, b"{}")
        call._scope |= {"client": ("10.0.0.1", 7), "http_version": "1.1"}
        return (await call.run()).headers.get(b"connection") == b"close"

    assert not await close()
    await world.route(replicas=1)
    assert not await close()
    await world.route(replicas=2)
    assert [await close(), await close()] == [True, False]


class Ports:
    """The guard's application, noting from which port of the client each request came."""

    def __init__(self, world: World) -> None:
        self.guard = world.guard
        self.ports: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == CHAT:
            self.ports.append(scope["client"][1])
        await self.guard(scope, receive, send)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Server, Ports]]:
    world = World(tmp_path)
    await world.route()
    ports = Ports(world)
    async with Server(world, ports) as server:
        yield server, ports


async def grow(server: Server, replicas: int) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers={name.decode(): value.decode() for name, value in AGENT}) as agent:
        assert (await agent.put("/graftwork/routing", json={**ROUTING, "replicas": replicas})).status_code == 200


async def test_a_client_that_keeps_its_connection_opens_a_new_one_after_the_growth(served: tuple[Server, Ports]) -> None:
    server, ports = served
    async with httpx.AsyncClient(base_url=server.url) as client:
        for replicas in (1, 2, 2):
            await grow(server, replicas)
            for stream in (False, True):
                answer = await client.post(CHAT, json={"model": "medical", "stream": stream})
                assert answer.status_code == 200
                assert answer.text.endswith("data: [DONE]\n\n" if stream else "}")
    first, second = list(dict.fromkeys(ports.ports))
    assert ports.ports == [first] * 3 + [second] * 3, "the answer that ends the first connection is still its own"


async def test_a_stream_that_runs_while_the_deployment_grows_comes_to_its_end(served: tuple[Server, Ports]) -> None:
    server, ports = served
    engine = server.world.engine
    engine.gate.clear()
    async with httpx.AsyncClient(base_url=server.url) as client:
        async with client.stream("POST", CHAT, json={"model": "medical", "stream": True}) as answer:
            await engine.streaming.wait()
            await grow(server, 2)
            engine.gate.set()
            text = "".join([part async for part in answer.aiter_text()])
        assert text.endswith("data: [DONE]\n\n")
        after = [await client.post(CHAT, json={"model": "medical"}) for _ in range(3)]
    assert [answer.headers.get("connection") for answer in after] == ["close", None, None]
    assert len(set(ports.ports)) == 2


async def test_many_kept_connections_all_move_and_no_request_is_lost(served: tuple[Server, Ports]) -> None:
    server, ports = served
    rounds, done = 30, asyncio.Event()
    answers: Counter[int] = Counter()

    async def ask(number: int) -> None:
        """One client with one kept connection; retries nothing."""
        async with httpx.AsyncClient(base_url=server.url, limits=httpx.Limits(max_connections=1)) as client:
            for turn in range(rounds):
                answer = await client.post(CHAT, json={"model": "medical", "stream": (turn + number) % 3 == 0})
                assert answer.text.rstrip().endswith(("}", "[DONE]"))
                answers[answer.status_code] += 1
                if turn == rounds // 3:
                    await done.wait()

    async def growing() -> None:
        while answers[200] < 8:
            await asyncio.sleep(0)
        await grow(server, 3)
        done.set()

    await asyncio.gather(growing(), *(ask(number) for number in range(8)))
    assert answers == {200: 8 * rounds}
    assert len(set(ports.ports)) == 16, "eight connections before, eight after"
    assert json.loads((await server.ask("GET /graftwork/ready HTTP/1.1"))[1]) == {"ready": True}
