"""API keys from the mounted Secret to the guard: before readiness, after every change, and never worse than before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from graftwork_store.store import Store

from tests.unit.agent.guarded_engine import GuardedEngine
from tests.unit.agent.pod import Pod, adapters_json
from tests.unit.agent.stub_engine import StubEngine

A, B = "gw-aaaaaaaaaaaaaaaa", "gw-bbbbbbbbbbbbbbbb"
GOOD = f"team-a: {{key: {A}}}\n".encode()
BOTH = GOOD + f"team-b: {{key: {B}, models: [medical]}}\n".encode()
NOTHING: dict[str, Any] = {}


async def test_readiness_is_granted_only_after_the_keys_were_taken(pod: Pod, engine: StubEngine) -> None:
    engine.faults.keys_status = 500
    pod.give_keys(BOTH)
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.count("keys-refused") >= 2 and engine.routing is not None)
        assert not engine.ready
        engine.faults.keys_status = 200
        await engine.until(lambda: engine.ready)
        assert seen.status["keys"] == {"count": 2, "error": ""}
    assert engine.log.index(("keys", "")) < engine.log.index(("ready", ""))
    assert engine.keys[0]["instance"] == engine.instance
    assert [entry["name"] for entry in engine.keys[0]["keys"]] == ["team-a", "team-b"]


async def test_keys_are_sent_once_per_process_and_once_per_change(pod: Pod, engine: StubEngine) -> None:
    pod.give_keys(GOOD)
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.ready)
        pod.give_keys(BOTH)
        await engine.until(lambda: len(engine.keys) == 2)
        assert len(engine.keys[1]["keys"]) == 2
        await seen.until(lambda: seen.status["keys"]["count"] == 2)
        await engine.restart()
        await engine.until(lambda: engine.ready)
        assert [body["instance"] for body in engine.keys[2:]] == [engine.instance]
    assert engine.keys[2]["keys"] == engine.keys[1]["keys"]


@pytest.mark.parametrize("bad", [b"", b"team-a: {key: short}", b"{", b"- a"])
async def test_a_bad_file_leaves_the_last_good_keys_and_is_told(pod: Pod, engine: StubEngine, bad: bytes) -> None:
    pod.give_keys(BOTH)
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.ready)
        pod.give_keys(bad)
        await seen.until(lambda: seen.status["keys"]["error"])
        assert seen.status["keys"]["count"] == 2
        assert len(engine.keys) == 1
        await engine.restart()
        await engine.until(lambda: engine.ready)
        assert len(engine.keys[-1]["keys"]) == 2, "a new process gets the last good ones"
        pod.give_keys(GOOD)
        await seen.until(lambda: seen.status["keys"] == {"count": 1, "error": ""})
        await engine.until(lambda: len(engine.keys[-1]["keys"]) == 1)


async def test_a_key_with_an_empty_list_of_models_is_left_out_and_the_others_serve(pod: Pod, engine: StubEngine) -> None:
    pod.give_keys(GOOD + f"team-b: {{key: {B}, models: []}}\nteam-c: {{key: {B}c, models: []}}\n".encode())
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.ready)
        await seen.until(lambda: seen.status["keys"]["count"] == 1)
        error = seen.status["keys"]["error"]
        assert error.startswith("team-b.models is an empty list")
        assert error.endswith("(and 1 more like it)")
        assert B not in error
    assert [entry["name"] for entry in engine.keys[-1]["keys"]] == ["team-a"]


async def test_without_a_secret_the_pod_is_not_ready_and_says_why(pod: Pod, engine: StubEngine) -> None:
    (pod.root / "keys").mkdir()
    pod.desire(adapters_json([], deadline=1))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.routing is not None)
        await seen.until(lambda: seen.status["keys"] == {"count": 0, "error": "the Secret is not there or has no keys.yaml"})
        assert not engine.ready
        assert not engine.keys
        pod.give_keys(b"{}")
        await engine.until(lambda: engine.ready)
        assert engine.keys[-1]["keys"] == []


async def test_where_no_keys_are_required_nothing_is_said_of_them(pod: Pod, engine: StubEngine) -> None:
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.ready)
        assert "keys" not in seen.status
    assert not engine.keys


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[Pod, GuardedEngine]]:
    engine = GuardedEngine(tmp_path / "pod" / "run", keys_required=True)
    pod = Pod.make(tmp_path / "pod", Store.from_env({"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'store'}"}), engine)
    await engine.start()
    yield pod, engine
    await engine.stop()


async def ask(engine: GuardedEngine, key: str = "", path: str = "/v1/chat/completions") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        method = "GET" if path == "/graftwork/ready" else "POST"
        async with session.request(method, engine.url + path, json=None if method == "GET" else {"model": "support"}) as answer:
            return answer.status


async def test_agent_and_guard_agree_from_the_start_to_a_change(guarded: tuple[Pod, GuardedEngine]) -> None:
    pod, engine = guarded
    (pod.root / "keys").mkdir()
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("engine", NOTHING).get("state") == "Serving" and engine.guard.state.routing)
        assert (await ask(engine, A), await ask(engine, path="/graftwork/ready")) == (503, 503)
        pod.give_keys(GOOD)
        await seen.until(lambda: engine.guard.state.ready)
        assert (await ask(engine, A), await ask(engine, B), await ask(engine)) == (200, 401, 401)
        pod.give_keys(f"team-b: {{key: {B}}}".encode())
        await seen.until(lambda: "team-b" in engine.guard.access.render().decode())
        assert (await ask(engine, A), await ask(engine, B)) == (401, 200)
    assert engine.vllm.asked == ["support", "support"]
