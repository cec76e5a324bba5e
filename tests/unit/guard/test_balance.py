"""Clients that keep their connections while the deployment grows: over sockets, with libraries that people use, behind a kind of Service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from graftwork_guard.connections import SETTLE_SECONDS
from openai import AsyncOpenAI

from tests.unit.guard.fakes import World
from tests.unit.guard.server import Server
from tests.unit.guard.test_connections import Clock, grown

CHAT = "/v1/chat/completions"


class Ports:
    """The guard's application, noting from which port of the client each request came."""

    def __init__(self, world: World) -> None:
        self.guard = world.guard
        self.ports: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == CHAT:
            self.ports.append(scope["client"][1])
        await self.guard(scope, receive, send)


class Balancer:
    """A Service of one port: each new connection goes to the next of the pods that it knows, and stays there."""

    def __init__(self, *pods: tuple[str, int]) -> None:
        self.pods = list(pods)
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod = self.pods[self.connections % len(self.pods)]
        self.connections += 1
        there, back = await asyncio.open_connection(*pod)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()


class Grown:
    """One pod that is served over a socket."""

    def __init__(self, server: Server, ports: Ports, clock: Clock) -> None:
        self.server = server
        self.ports = ports
        self._clock = clock

    async def grow(self, replicas: int) -> None:
        await grown(self.server.world, self._clock, replicas)


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Grown]:
    clock = Clock()
    world = World(tmp_path, clock)
    await world.route()
    ports = Ports(world)
    async with Server(world, ports) as server:
        yield Grown(server, ports, clock)


async def test_a_client_that_keeps_its_connection_opens_a_new_one_after_the_growth(pod: Grown) -> None:
    async with httpx.AsyncClient(base_url=pod.server.url) as client:
        for replicas in (1, 2, 2):
            await pod.grow(replicas)
            for stream in (False, True):
                answer = await client.post(CHAT, json={"model": "medical", "stream": stream})
                assert answer.status_code == 200
                assert answer.text.endswith("data: [DONE]\n\n" if stream else "}")
    first, second = list(dict.fromkeys(pod.ports.ports))
    assert pod.ports.ports == [first] * 3 + [second] * 3, "the answer that ends the first connection is still its own"


async def test_a_stream_that_runs_while_the_deployment_grows_comes_to_its_end(pod: Grown) -> None:
    engine = pod.server.world.engine
    engine.gate.clear()
    async with httpx.AsyncClient(base_url=pod.server.url) as client:
        async with client.stream("POST", CHAT, json={"model": "medical", "stream": True}) as answer:
            await engine.streaming.wait()
            await pod.grow(2)
            engine.gate.set()
            text = "".join([part async for part in answer.aiter_text()])
        assert text.endswith("data: [DONE]\n\n")
        after = [await client.post(CHAT, json={"model": "medical"}) for _ in range(3)]
    assert [answer.headers.get("connection") for answer in after] == ["close", None, None]
    assert len(set(pod.ports.ports)) == 2


async def test_many_kept_connections_all_move_and_no_request_is_lost(pod: Grown) -> None:
    rounds, done = 30, asyncio.Event()
    answers: Counter[int] = Counter()

    async def ask(number: int) -> None:
        """One client with one kept connection; retries nothing."""
        async with httpx.AsyncClient(base_url=pod.server.url, limits=httpx.Limits(max_connections=1)) as client:
            for turn in range(rounds):
                answer = await client.post(CHAT, json={"model": "medical", "stream": (turn + number) % 3 == 0})
                assert answer.text.rstrip().endswith(("}", "[DONE]"))
                answers[answer.status_code] += 1
                if turn == rounds // 3:
                    await done.wait()

    async def growing() -> None:
        while answers[200] < 8:
            await asyncio.sleep(0)
        await pod.grow(3)
        done.set()

    await asyncio.gather(growing(), *(ask(number) for number in range(8)))
    assert answers == {200: 8 * rounds}
    assert len(set(pod.ports.ports)) == 16, "eight connections before, eight after"
    assert json.loads((await pod.server.ask("GET /graftwork/ready HTTP/1.1"))[1]) == {"ready": True}


class Clients:
    """Two of the official openai client and two of httpx, one connection each, that try nothing twice; `ask` asks with each in turn."""

    def __init__(self, url: str) -> None:
        self.official = [AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) for _ in range(2)]
        self.plain = [httpx.AsyncClient(base_url=url) for _ in range(2)]

    async def ask(self) -> None:
        for official in self.official:
            whole = await official.chat.completions.create(model="medical", messages=[{"role": "user", "content": "x"}])
            assert (whole.model, whole.choices[0].message.content) == ("medical", "hi")
        for plain in self.plain:
            assert (await plain.post(CHAT, json={"model": "medical"})).json()["model"] == "medical"

    async def stream(self) -> None:
        """Read streams, after each of which the official client ends its connection: it stops reading at [DONE], before the end of the answer."""
        for official in self.official:
            stream = await official.chat.completions.create(model="medical", messages=[{"role": "user", "content": "x"}], stream=True)
            assert [chunk.choices[0].delta.content async for chunk in stream] == ["hi", "hi"]

    async def close(self) -> None:
        for official in self.official:
            await official.close()
        for plain in self.plain:
            await plain.aclose()


def libraries(world: World) -> set[str]:
    """Return by which libraries a pod's engine was asked."""
    return {seen.headers[b"user-agent"].decode().partition("/")[0] for seen in world.engine.seen}


async def test_kept_clients_of_both_libraries_reach_the_new_pod_though_no_node_knows_it_at_once(tmp_path: Path) -> None:
    clock = Clock()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (World(tmp_path / name, clock) for name in ("old", "new"))
    await old.route()
    async with Server(old) as first, Server(new) as second, Balancer(first.address) as service:
        clients = Clients(service.url)
        await clients.ask()
        clock.now += 60
        await new.route()
        await old.route(replicas=2)
        await clients.ask()
        assert (service.connections, libraries(new)) == (4, set()), "who was let go of now could only come back"
        service.pods.append(second.address)
        clock.now += SETTLE_SECONDS
        await new.route(replicas=2)
        for _ in range(3):
            await clients.ask()
        assert libraries(old) == libraries(new) == {"AsyncOpenAI", "python-httpx"}
        assert service.connections == 8, "each client has changed its connection once, and nobody has left the new pod"
        await clients.stream()
        await clients.close()
    assert len(new.engine.seen) + len(old.engine.seen) == 5 * 4 + 2
