from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from graftwork.clock import SystemClock
from graftwork.cluster import peers
from graftwork.cluster.agent import ROLE, AgentWatcher
from graftwork.cluster.kinds import Key
from graftwork.cluster.protocol import PodRef

KEY = Key("LLMDeployment", "ml", "support")
POD = PodRef("ml", "support-abc", "uid-1", "127.0.0.1")


def status(version: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "graftwork.dev/agent-status/v1",
        "version": version,
        "pod": "support-abc",
        "observedHash": "",
        "expectedHash": "",
        "base": None,
        "engine": {"state": "Starting", "instance": "", "startedAt": "", "draining": False},
        "adapters": [],
        "routes": {},
        **changes,
    }


class Stub:
    """An agent whose answers the test decides. `hangs` is set while a request hangs for news."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps(status("a.1")).encode()
        self.code = 200
        self.requests: list[dict[str, str]] = []
        self.news = asyncio.Event()
        self.hangs = asyncio.Event()
        self.drops = 0
        self.port = 0

    def tell(self, body: dict[str, Any] | bytes, code: int = 200) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.code = code
        self.news.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.query))
        if self.drops:
            self.drops -= 1
            assert request.transport
            request.transport.abort()
            return web.Response()
        if self.code == 200 and request.query.get("since") and f'"{request.query["since"]}"'.encode() in self.body:
            self.news.clear()
            self.hangs.set()
            await self.news.wait()
            self.hangs.clear()
        return web.Response(body=self.body, status=self.code, headers={"Location": "/elsewhere"})


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    made = Stub()
    app = web.Application()
    app.router.add_get("/status", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    made.news.set()
    await runner.cleanup()


class Bench:
    def __init__(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        self.woken: asyncio.Queue[Key] = asyncio.Queue()
        self.agents = AgentWatcher(lambda key, after=0: self.woken.put_nowait(key), SystemClock(), session, replace(ROLE, port=stub.port))

    async def wake(self) -> Key:
        return await asyncio.wait_for(self.woken.get(), 10)


@pytest.fixture
async def bench(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(peers, "RETRY_SECONDS", (0.01, 0.02))
    session = peers.new_session()
    made = Bench(stub, session)
    yield made
    await made.agents.close()
    await session.close()


async def hanging(stub: Stub) -> None:
    await asyncio.wait_for(stub.hangs.wait(), 10)


async def test_news_is_known_and_wakes_and_then_the_request_hangs(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    assert bench.agents.get("uid-1").status is None
    assert await bench.wake() == KEY
    view = bench.agents.get("uid-1")
    assert view.reachable
    assert view.status is not None
    assert view.status["version"] == "a.1"
    await hanging(stub)
    assert stub.requests == [{}, {"since": "a.1", "wait": "30"}]
    stub.tell(status("a.2"))
    await bench.wake()
    assert (bench.agents.get("uid-1").status or {})["version"] == "a.2"


async def test_the_same_answer_again_wakes_nobody(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    await hanging(stub)
    stub.news.set()
    stub.hangs.clear()
    await hanging(stub)
    assert bench.woken.empty()


async def test_a_new_process_of_the_agent_is_news(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    await hanging(stub)
    stub.tell(status("b.1"))
    await bench.wake()
    assert (bench.agents.get("uid-1").status or {})["version"] == "b.1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not json", 200),
        (b'{"version": NaN}', 200),
        (json.dumps(status("a.2", apiVersion="graftwork.dev/agent-status/v2")).encode(), 200),
        (json.dumps(status("a.2", adapters=[{"state": "Loaded"}])).encode(), 200),
        (json.dumps(status("a.2", routes={"x": "y" * peers.SIZE_LIMIT})).encode(), 200),
        (json.dumps(status("a.2")).encode(), 500),
        (json.dumps(status("a.2")).encode(), 302),
    ],
    ids=["garbage", "not a number", "another apiVersion", "against the schema", "too large", "an error", "a redirect"],
)
async def test_what_breaks_the_contract_is_refused_and_the_last_valid_answer_stays_as_old_news(
    bench: Bench, stub: Stub, body: bytes, code: int
) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    before = bench.agents.get("uid-1")
    await hanging(stub)
    stub.tell(body, code)
    await bench.wake()
    view = bench.agents.get("uid-1")
    assert not view.reachable
    assert view.status == before.status
    assert view.since > before.since
    stub.tell(status("a.3"))
    await bench.wake()
    assert bench.agents.get("uid-1").reachable


async def test_one_dropped_connection_is_not_unreachable_yet(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    await hanging(stub)
    asked = len(stub.requests)
    stub.drops = 1
    stub.hangs.clear()
    stub.news.set()
    await hanging(stub)
    assert (stub.drops, len(stub.requests)) == (0, asked + 2)
    assert bench.woken.empty()
    assert bench.agents.get("uid-1").reachable


async def test_a_pod_that_drops_every_connection_is_unreachable_until_it_answers(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    await hanging(stub)
    stub.drops = 1_000_000
    stub.news.set()
    await bench.wake()  # the answer that hung: an identical one wakes nobody, so this is the loss
    assert not bench.agents.get("uid-1").reachable
    stub.drops = 0
    await bench.wake()
    assert bench.agents.get("uid-1").reachable


async def test_a_pod_that_is_gone_is_not_asked_any_more(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    bench.agents.watch(KEY, [])
    view = bench.agents.get("uid-1")
    assert (view.status, view.reachable) == (None, False)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agent of") and not task.cancelling()]


async def test_a_pod_with_a_new_address_is_watched_there(bench: Bench, stub: Stub) -> None:
    bench.agents.watch(KEY, [replace(POD, ip="not an address")])
    bench.agents.watch(KEY, [POD])
    await bench.wake()
    assert bench.agents.get("uid-1").reachable


async def test_a_pod_without_an_address_is_not_watched_and_an_unusable_one_is_unreachable(bench: Bench) -> None:
    bench.agents.watch(KEY, [replace(POD, ip=""), replace(POD, uid="uid-2", ip="example.org/../x")])
    assert not bench.agents.get("uid-1").reachable
    assert not bench.agents.get("uid-2").reachable
