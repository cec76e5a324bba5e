"""What the agent learns and when: routing, requests in flight, readiness, draining."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from graftwork_guard import middleware, state
from graftwork_guard.settings import Settings

from tests.unit.guard.fakes import AGENT, ENGINE, OTHER, Call, World

CHAT = "/v1/chat/completions"
STREAM = b'{"model": "medical", "stream": true}'


def _drain(world: World, seconds_ago: float = 0.0) -> None:
    path = world.run_dir / "drain"
    path.touch()
    if seconds_ago:
        os.utime(path, (0, path.stat().st_mtime - seconds_ago))


async def _streaming(world: World) -> tuple[Call, asyncio.Task[Any]]:
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, STREAM)
    task = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    return call, task


async def test_readiness_waits_for_the_map_then_for_the_adapters_and_latches(cold: World) -> None:
    async def reason() -> Any:
        answer = await cold.call("GET", "/graftwork/ready")
        assert answer.status == (200 if answer.json["ready"] else 503)
        return answer.json.get("reason", "")

    assert await reason() == "NoRouting"
    await cold.route(ready=False)
    assert await reason() == "AdaptersLoading"
    await cold.route(ready=True)
    assert await reason() == ""
    await cold.route(ready=False)
    assert await reason() == ""
    _drain(cold)
    assert await reason() == "Draining"


async def test_a_request_keeps_the_map_that_it_began_with(world: World) -> None:
    _, task = await _streaming(world)
    await world.route(aliases={"medical": OTHER})
    world.engine.gate.set()
    answer = await task
    assert [document["model"] for document in answer.event_documents] == ["medical", "medical"]
    assert world.engine.seen[-1].json["model"] == ENGINE


async def test_the_agent_is_told_when_nothing_uses_an_unrouted_adapter_any_more(world: World) -> None:
    _, task = await _streaming(world)
    await world.route(aliases={})
    document = await world.engine_state()
    assert document["inflight"] == {ENGINE: 1}
    waiting = asyncio.create_task(world.engine_state(f"since={document['version']}&wait=30".encode()))
    await asyncio.sleep(0)
    world.engine.gate.set()
    await task
    told = await asyncio.wait_for(waiting, 5)
    assert told["inflight"] == {}
    assert told["version"] > document["version"]


async def test_the_end_of_a_routed_request_wakes_nobody(world: World) -> None:
    before = await world.engine_state()
    await world.post({"model": "medical"})
    assert (await world.engine_state())["version"] == before["version"]


async def test_a_request_whose_client_left_is_counted_until_the_engine_has_surely_dropped_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ABORT_LINGER_SECONDS", 0.05)
    call, task = await _streaming(world)
    await world.route(aliases={})
    call.leave()
    await asyncio.wait_for(task, 5)
    assert world.engine.aborted.is_set(), "the engine heard of it through the replayed receive"
    document = await world.engine_state()
    assert document["inflight"] == {ENGINE: 1}
    told = await asyncio.wait_for(world.engine_state(f"since={document['version']}&wait=30".encode()), 5)
    assert told["inflight"] == {}


async def test_an_engine_that_waits_for_its_client_waits_at_the_real_receive(world: World) -> None:
    call, task = await _streaming(world)
    assert call.delegated == 1, "neither spinning nor deaf"
    world.engine.gate.set()
    await task


async def test_a_client_that_leaves_while_it_sends_is_not_answered(world: World) -> None:
    call = Call(world.guard, "POST", CHAT, STREAM, pieces=3)

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    call._receive = gone  # type: ignore[method-assign] # the whole of the transport
    assert (await call.run()).status == 0
    assert (await world.engine_state())["inflight"] == {}


@pytest.mark.parametrize("query", [b"", b"since=0&wait=60", b"since=7&wait=60", b"since=1&wait=0", b"since=1&wait=x", b"wait=60"])
async def test_the_hanging_get_answers_at_once_when_there_is_news_or_no_wish_to_wait(cold: World, query: bytes) -> None:
    document = await asyncio.wait_for(cold.engine_state(query), 5)
    assert document["version"] == 1
    assert len(document["instance"]) == 16
    assert (document["draining"], document["ready"], document["inflight"]) == (False, False, {})


async def test_the_hanging_get_ends_when_its_client_leaves(cold: World) -> None:
    call = Call(cold.guard, "GET", "/graftwork/engine", headers=AGENT, query=b"since=1&wait=60")
    task = asyncio.create_task(call.run())
    await asyncio.sleep(0)
    call.leave()
    await asyncio.wait_for(task, 5)


async def test_routing_answers_with_the_process_and_its_version(cold: World) -> None:
    answer = await cold.route()
    assert answer.json == {"instance": cold.guard.state.instance, "version": 2}


async def test_from_the_drain_on_every_answer_ends_its_connection_and_requests_still_succeed(world: World) -> None:
    before = await world.post({"model": "medical"})
    assert b"connection" not in before.headers
    _drain(world)
    for path, document in ((CHAT, {"model": "medical"}), (CHAT, {"model": "nobody"}), (CHAT, {"stream": True}), ("/nowhere", {})):
        answer = await world.post(document, path)
        assert answer.headers[b"connection"] == b"close"
        assert answer.status == (404 if document.get("model") == "nobody" or path == "/nowhere" else 200)


async def test_loads_are_refused_while_draining_because_they_might_never_return(world: World) -> None:
    _drain(world)
    answer = await world.call("POST", "/v1/load_lora_adapter", {}, AGENT)
    assert answer.status == 503
    assert world.engine.seen == []


async def test_after_the_wait_new_requests_are_sent_elsewhere_and_streams_go_on(world: World) -> None:
    _, task = await _streaming(world)
    _drain(world, seconds_ago=3601)
    answer = await world.post({"model": "medical"})
    assert (answer.status, answer.headers[b"retry-after"], answer.headers[b"connection"]) == (503, b"1", b"close")
    world.engine.gate.set()
    stream = await task
    assert stream.complete
    assert stream.status == 200
    assert (await world.call("GET", "/health")).status == 200


async def test_start_says_that_http_listens_and_the_drain_wakes_who_waits(cold: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "DRAIN_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(middleware, "LISTENING_DELAY_SECONDS", 0.0)
    stop, started = asyncio.Event(), asyncio.Event()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, Any]:
        if len(messages) == 1:
            await stop.wait()
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            assert not (cold.run_dir / "serving").exists(), "SIGTERM is safe only after the start"
            started.set()

    server = asyncio.create_task(cold.guard({"type": "lifespan"}, receive, send))
    await asyncio.wait_for(started.wait(), 5)
    waiting = asyncio.create_task(cold.engine_state(b"since=1&wait=60"))
    await asyncio.sleep(0)
    _drain(cold)
    assert (await asyncio.wait_for(waiting, 5))["draining"] is True
    assert (cold.run_dir / "serving").exists()
    stop.set()
    await asyncio.wait_for(server, 5)


def test_wrong_numbers_in_the_environment_are_named_and_do_not_end_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_env({"GRAFTWORK_RUN_DIR": "/r", "GRAFTWORK_DRAIN_SECONDS": "soon", "GRAFTWORK_MAX_BODY_BYTES": "-1"})
    assert settings == Settings(Path("/r"))
    assert "GRAFTWORK_DRAIN_SECONDS is 'soon'" in caplog.text
    assert "GRAFTWORK_MAX_BODY_BYTES is '-1'" in caplog.text
