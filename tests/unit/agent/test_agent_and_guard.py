"""The agent against the real guard over HTTP: the same pod, with both halves as they are shipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from graftwork_store.store import Store

from tests.unit.agent.guarded_engine import GuardedEngine
from tests.unit.agent.pod import Pod, adapters_json, engine_name, entry


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[Pod, GuardedEngine]]:
    engine = GuardedEngine(tmp_path / "pod" / "run")
    store = Store.from_env({"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'store'}"})
    pod = Pod.make(tmp_path / "pod", store, engine)
    await engine.start()
    yield pod, engine
    await engine.stop()


async def ask(engine: GuardedEngine, model: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{engine.url}/v1/chat/completions", json={"model": model, "messages": []}) as answer:
        return answer.status, await answer.json()


async def ready(engine: GuardedEngine) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/graftwork/ready") as answer:
        return answer.status


async def test_a_pod_becomes_ready_and_answers_under_the_alias(guarded: tuple[Pod, GuardedEngine]) -> None:
    pod, engine = guarded
    published = pod.publish("medical")
    assert await ready(engine) == 503
    pod.desire(adapters_json([entry(published, required=True)], {"medical": [engine_name(published)], "legal": ["legal--0123456789ab"]}))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        assert await ready(engine) == 200
        assert await ask(engine, "medical") == (200, {"object": "chat.completion", "model": "medical", "choices": []})
        assert (await ask(engine, "legal"))[0] == 503
        assert (await ask(engine, engine_name(published)))[0] == 404
    assert engine.vllm.asked == [engine_name(published)]
    assert seen.status["engine"]["instance"] == engine.guard.state.instance
    assert seen.status["engine"]["startedAt"]


async def test_an_adapter_is_unloaded_only_after_its_last_request(guarded: tuple[Pod, GuardedEngine]) -> None:
    pod, engine = guarded
    published = pod.publish("medical")
    name = engine_name(published)
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        engine.vllm.gate.clear()
        asking = asyncio.create_task(ask(engine, "medical"))
        await engine.vllm.arrived.wait()
        pod.desire(adapters_json([]))
        await seen.until(lambda: seen.state(name) == "Unloading" and not seen.status["routes"])
        assert (await ask(engine, "medical"))[0] == 404
        assert engine.vllm.loaded == [name]
        assert pod.on_disk() == [name]
        engine.vllm.gate.set()
        assert (await asking)[0] == 200
        await seen.until(lambda: not seen.adapter(name))
    assert engine.vllm.unloaded == [name]
    assert pod.on_disk() == []


async def test_a_canary_gets_its_share_and_is_taken_out_after_its_last_request(guarded: tuple[Pod, GuardedEngine]) -> None:
    pod, engine = guarded
    old, new = pod.publish("medical", seed=1), pod.publish("medical", seed=2)
    stable, tried = engine_name(old), engine_name(new)
    entries, prefer = [entry(old), entry(new, version=2)], {"medical": [stable]}

    def candidates() -> dict[str, int]:
        routing = engine.guard.state.routing
        return {item.engine: item.weight for item in routing.candidates.values()} if routing else {}

    pod.desire(adapters_json(entries, prefer, candidates={"medical": (tried, 0)}, replicas=2))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(stable) == seen.state(tried) == "Loaded" and seen.status["routes"])
        assert (await ask(engine, "medical"))[0] == 200
        assert engine.vllm.asked == [stable]
        pod.desire(adapters_json(entries, prefer, candidates={"medical": (tried, 100)}, replicas=2))
        await engine.until(lambda: candidates() == {tried: 100})
        engine.vllm.gate.clear()
        engine.vllm.arrived.clear()
        asking = asyncio.create_task(ask(engine, "medical"))
        await engine.vllm.arrived.wait()
        pod.desire(adapters_json([entry(old)], prefer, replicas=2))  # it failed, or was pinned away
        await seen.until(lambda: seen.state(tried) == "Unloading")
        await engine.until(lambda: not candidates())
        assert engine.vllm.unloaded == []
        assert pod.on_disk() == sorted([stable, tried])
        engine.vllm.gate.set()
        assert (await asking) == (200, {"object": "chat.completion", "model": "medical", "choices": []})
        await seen.until(lambda: not seen.adapter(tried))
        assert (await ask(engine, "medical"))[0] == 200
    assert engine.vllm.asked == [stable, tried, stable]
    assert engine.vllm.unloaded == [tried]


async def test_a_draining_pod_is_reported_and_gets_no_load(guarded: tuple[Pod, GuardedEngine]) -> None:
    pod, engine = guarded
    published = pod.publish("medical")
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("engine", {}).get("state") == "Serving")
        (pod.root / "run" / "drain").touch()
        assert await ready(engine) == 503  # the guard looks at the file with every request
        await seen.until(lambda: seen.status["engine"]["state"] == "Draining")
        pod.desire(adapters_json([entry(published)]))
        await seen.until(lambda: seen.state(engine_name(published)) == "Pending" and pod.on_disk())
    assert engine.vllm.loaded == []
