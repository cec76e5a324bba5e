"""The agent as a whole, against an engine with the guard's contract and a store in a folder."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from graftwork_agent import actions
from graftwork_agent import agent as agent_module
from graftwork_agent.agent import Agent
from graftwork_agent.desired import content_hash
from graftwork_agent.prepare import remove
from graftwork_agent.server import make_app
from graftwork_store.clock import now as rfc3339_now
from graftwork_store.errors import ModelInvalid, StoreUnreachable
from graftwork_store.store import Store

from tests.unit.agent.pod import STATUS_SCHEMA, Pod, adapters_json, engine_name, entry
from tests.unit.agent.stub_engine import SERVED, StubEngine


async def test_a_listed_adapter_is_loaded_routed_and_reported(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    (pod.root / "podinfo" / "adapters-hash").write_text("a" * 64)
    found = pod.desire(adapters_json([entry(published, required=True)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes") == {"medical": name})
        status = seen.status
        row = seen.adapter(name)
    assert row["state"] == "Loaded"
    assert row["seenAt"] <= row["loadSentAt"] <= row["loadedAt"]
    assert (status["observedHash"], status["expectedHash"], status["pod"]) == (found, "a" * 64, "support-abc")
    assert status["features"] == ["candidates"]
    assert status["base"]["fingerprint"] == pod.fingerprint
    assert (status["base"]["task"], status["base"]["layers"], status["base"]["quantization"]) == ("generate", None, "")
    assert status["engine"] == {"state": "Serving", "instance": engine.instance, "startedAt": "2026-11-21T13:00:00.123456Z", "draining": False}
    assert engine.routing == {
        "apiVersion": "graftwork.dev/routing/v1",
        "instance": engine.instance,
        "replicas": 1,
        "base": SERVED,
        "aliases": {"medical": name},
        "candidates": {},
        "versions": {name: 1},
        "unavailable": {},
        "ready": True,
    }
    assert engine.count("load", name) == 1


async def test_an_adapter_is_seen_when_the_annotation_tells_its_hash_and_not_when_the_file_comes_later(pod: Pod, engine: StubEngine) -> None:
    """The kubelet refreshes both volumes one after the other; what lies between is a part of how long the agent needs."""
    first, second = pod.publish("medical"), pod.publish("legal", seed=2)
    pod.desire(adapters_json([entry(first)]))
    later = adapters_json([entry(first), entry(second)])
    annotation = pod.root / "podinfo" / "adapters-hash"
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(first)) == "Loaded")
        annotation.write_text(content_hash(later))
        await seen.until(lambda: seen.status["expectedHash"] == content_hash(later))
        told = rfc3339_now()
        pod.desire(later)
        await seen.until(lambda: seen.state(engine_name(second)) == "Loaded")
        assert seen.adapter(engine_name(second))["seenAt"] <= told
        assert seen.adapter(engine_name(first))["seenAt"] < seen.adapter(engine_name(second))["seenAt"]


async def test_what_an_older_hash_announced_says_nothing_of_a_file_that_comes_long_after(pod: Pod, engine: StubEngine) -> None:
    first, second = pod.publish("medical"), pod.publish("legal", seed=2)
    skipped, other = adapters_json([entry(second)]), adapters_json([entry(first)])
    annotation = pod.root / "podinfo" / "adapters-hash"
    async with pod.serve() as seen:
        for data in (skipped, other):
            annotation.write_text(content_hash(data))
            await seen.until(lambda data=data: seen.status.get("expectedHash") == content_hash(data))  # type: ignore[misc]
        pod.desire(other)
        await seen.until(lambda: seen.state(engine_name(first)) == "Loaded")
        before = rfc3339_now()
        pod.desire(skipped)
        await seen.until(lambda: seen.state(engine_name(second)) == "Loaded")
        assert seen.adapter(engine_name(second))["seenAt"] >= before


async def test_a_required_adapter_holds_readiness_until_it_is_loaded(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published, required=True)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
    before = [body for body in engine.routings if not body["aliases"]]
    assert [body["ready"] for body in before] == [False] * len(before)
    assert all(body["unavailable"]["medical"]["reason"] == "AdapterLoading" for body in before)
    assert engine.routings[-1]["ready"] is True


async def test_an_adapter_that_is_not_required_never_holds_readiness(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    engine.faults.hang.add(engine_name(published))
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve():
        await engine.until(lambda: engine.ready)
    assert engine.routing is not None
    assert engine.routing["unavailable"]["medical"]["reason"] == "AdapterLoading"


async def test_the_deadline_makes_a_pod_ready_without_its_required_adapter(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    engine.faults.errors[engine_name(published)] = (500, "Call to add_lora method failed: Worker failed with error 'no memory'")
    pod.desire(adapters_json([entry(published, required=True)], deadline=1))
    async with pod.serve():
        await engine.until(lambda: engine.routing is not None and not engine.routing["ready"])
        await engine.until(lambda: engine.ready)
    assert engine.routing is not None
    assert engine.routing["unavailable"]["medical"]["reason"] == "LoadFailed"


async def test_a_refused_required_adapter_does_not_hold_readiness(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical", fingerprint="sha256:" + "9" * 64)
    pod.desire(adapters_json([entry(published, required=True)]))
    async with pod.serve() as seen:
        await engine.until(lambda: engine.ready)
        await seen.until(lambda: seen.state(engine_name(published)) == "Refused")
        assert seen.adapter(engine_name(published))["reason"] == "BaseMismatch"
    assert engine.routing is not None
    assert engine.routing["unavailable"]["medical"] == {"reason": "BaseMismatch", "retryAfterSeconds": 60}
    assert engine.count("load", engine_name(published)) == 0


async def test_a_new_version_takes_the_alias_when_it_is_loaded_and_the_old_one_goes_when_it_is_idle(pod: Pod, engine: StubEngine) -> None:
    old, new = pod.publish("medical", seed=1), pod.publish("medical", seed=2)
    pod.desire(adapters_json([entry(old)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes") == {"medical": engine_name(old)})
        both = {"medical": [engine_name(new), engine_name(old)]}
        pod.desire(adapters_json([entry(old), entry(new, version=2)], both))
        await seen.until(lambda: seen.status["routes"] == {"medical": engine_name(new)})
        assert seen.state(engine_name(old)) == "Loaded"
        engine.inflight[engine_name(old)] = 1
        engine.bump()
        pod.desire(adapters_json([entry(new, version=2)]))
        await seen.until(lambda: seen.state(engine_name(old)) == "Unloading")
        assert engine.count("unload", engine_name(old)) == 0
        engine.inflight.clear()
        engine.bump()
        await seen.until(lambda: not seen.adapter(engine_name(old)))
    assert engine.loaded == [engine_name(new)]
    assert pod.on_disk() == [engine_name(new)]
    assert all(body["aliases"].get("medical") for body in engine.routings[2:])  # the alias was never without an adapter


async def test_removing_every_adapter_unloads_and_deletes(pod: Pod, engine: StubEngine) -> None:
    published = [pod.publish("medical"), pod.publish("legal", seed=2)]
    pod.desire(adapters_json([entry(item) for item in published]))
    async with pod.serve() as seen:
        await seen.until(lambda: len(seen.status.get("routes", {})) == 2)
        pod.desire(adapters_json([]))
        await seen.until(lambda: seen.status["adapters"] == [] and seen.status["routes"] == {})
    assert (engine.loaded, pod.on_disk()) == ([], [])


async def test_an_adapter_that_is_wanted_again_while_its_files_are_deleted_is_fetched_anew(
    pod: Pod, engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    begun, go_on = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        begun.set()
        assert go_on.wait(10)
        remove(folder)

    monkeypatch.setattr(actions, "remove", slow)
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(name) == "Loaded")
        pod.desire(adapters_json([]))
        await asyncio.to_thread(begun.wait, 10)
        wanted = pod.desire(adapters_json([entry(published)]))
        await seen.until(lambda: seen.status["observedHash"] == wanted)
        go_on.set()
        await seen.until(lambda: seen.state(name) == "Loaded")
    assert pod.on_disk() == [name]


async def test_what_one_engine_process_refused_is_fetched_anew_for_the_next(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    engine.faults.errors[name] = (400, "Call to add_lora method failed: vLLM does not yet support DoRA.")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(name) == "Refused")
        async with asyncio.timeout(10):
            while pod.on_disk():  # that files go is no news in a status, so nobody sends word of it
                await asyncio.sleep(0.02)
        engine.faults.errors.clear()
        await engine.restart()
        await seen.until(lambda: seen.state(name) == "Loaded")
    assert pod.on_disk() == [name]


async def test_a_node_without_inotify_instances_only_costs_time(pod: Pod, engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_changed: object) -> None:
        raise OSError(24, "inotify_init1: raise fs.inotify.max_user_instances on the node")

    monkeypatch.setattr(agent_module, "FolderWatch", none_left)
    published = pod.publish("medical")
    async with pod.serve() as seen:
        pod.desire(adapters_json([entry(published)]))
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")
    assert engine.loaded == [engine_name(published)]


async def test_a_new_engine_process_gets_everything_again(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published, required=True)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        first = engine.instance
        await engine.stop()
        await seen.until(lambda: seen.status["engine"]["state"] == "Starting")
        assert seen.status["routes"] == {}
        assert seen.state(engine_name(published)) == "Pending"
        await engine.start()
        await seen.until(lambda: seen.status["engine"]["instance"] not in ("", first) and seen.status["routes"])
    assert engine.count("load", engine_name(published)) == 2
    assert engine.ready


async def test_a_restarted_agent_loads_nothing_again_and_needs_no_store(pod: Pod, engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published, required=True)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
    assert engine.routing is not None
    routed = {**engine.routing, "instance": ""}

    def unreachable(*_: Any) -> None:
        raise StoreUnreachable("the store is gone")

    monkeypatch.setattr(Store, "_manifest", unreachable)
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes") == {"medical": engine_name(published)})
        await engine.restart()  # and the files of the first agent serve the next engine, too
        await seen.until(lambda: engine.count("load", engine_name(published)) == 2 and seen.status["routes"])
    assert {**engine.routing, "instance": ""} == routed
    assert engine.count("load", engine_name(published)) == 2


async def test_a_restarted_agent_repairs_files_that_were_damaged(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
    weights = pod.root / "adapters" / engine_name(published) / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\0")
    await engine.restart()
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
    assert weights.read_bytes() == good


async def test_what_a_killed_agent_left_half_done_is_removed(pod: Pod) -> None:
    (pod.root / "adapters" / ".partial-x").mkdir()
    (pod.root / "adapters" / "old--000000000000").mkdir()
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await seen.until(lambda: pod.on_disk() == [] and seen.status["adapters"] == [])
    assert list((pod.root / "adapters").iterdir()) == []


async def test_an_adapter_that_was_unloaded_by_hand_comes_back(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        engine.loaded.clear()
        await engine.until(lambda: engine.count("load", engine_name(published)) == 2, 2.0)
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded" and seen.status["routes"])
    assert engine.loaded == [engine_name(published)]


async def test_an_adapter_of_our_naming_that_nobody_asked_for_is_unloaded_and_other_models_are_left_alone(pod: Pod, engine: StubEngine) -> None:
    engine.loaded += ["stranger--0123456789ab", "somebody-elses"]
    pod.desire(adapters_json([]))
    async with pod.serve():
        await engine.until(lambda: engine.loaded == ["somebody-elses"])
    assert engine.count("unload", "stranger--0123456789ab") == 1


async def test_a_draining_engine_gets_no_more_loads(pod: Pod, engine: StubEngine) -> None:
    engine.draining = True
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("engine", {}).get("state") == "Draining" and pod.on_disk())
        assert seen.status["engine"]["draining"] is True
    assert engine.log == []


async def test_a_file_that_cannot_be_read_leaves_the_last_good_one_in_force(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    found = pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        for bad in (b"{", b'{"apiVersion": "graftwork.dev/adapters/v2"}', adapters_json([entry(published)]).replace(b"medical--", b"mexical--")):
            pod.desire(bad)
            (pod.root / "podinfo" / "adapters-hash").write_text("c" * 64)
            await seen.until(lambda: seen.status["expectedHash"] == "c" * 64)
            (pod.root / "podinfo" / "adapters-hash").write_text("")
            await seen.until(lambda: seen.status["expectedHash"] == "")
            assert seen.status["observedHash"] == found
    assert engine.loaded == [engine_name(published)]


async def test_a_store_that_comes_back_is_used(pod: Pod, engine: StubEngine, tmp_path: Path) -> None:
    published = pod.publish("medical")
    (tmp_path / "store" / "adapters").rename(tmp_path / "away")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(published)) == "Failed")
        assert seen.adapter(engine_name(published))["reason"] == "SourceNotFound"
        (tmp_path / "away").rename(tmp_path / "store" / "adapters")
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")
    assert engine.ready


async def test_a_base_that_cannot_be_read_is_reported_and_read_again(pod: Pod, engine: StubEngine) -> None:
    (pod.root / "base" / "config.json").rename(pod.root / "away")
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(published)) == "Failed")
        assert "no config.json" in seen.status["base"]["error"]
        assert seen.adapter(engine_name(published))["reason"] == "ModelInvalid"
        (pod.root / "away").rename(pod.root / "base" / "config.json")
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")


async def test_a_base_whose_configuration_has_no_fingerprint_is_reported(pod: Pod, engine: StubEngine) -> None:
    (pod.root / "base" / "config.json").write_text('{"model_type": "\\ud800"}')  # half of a pair: JSON, but no text
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await seen.until(lambda: (seen.status.get("base") or {}).get("error"))
        assert "surrogates" in seen.status["base"]["error"]


async def test_a_higher_limit_of_rank_gives_a_refused_adapter_another_chance(pod: Pod) -> None:
    published = pod.publish("medical", rank=8)
    pod.desire(adapters_json([entry(published)], max_rank=4))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.adapter(engine_name(published)).get("reason") == "RankTooHigh")
        pod.desire(adapters_json([entry(published)], max_rank=8))
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")
        assert not seen.adapter(engine_name(published)).get("reason")


async def test_the_http_answers_follow_the_contract(pod: Pod, engine: StubEngine, aiohttp_app: Any) -> None:
    import jsonschema

    published = pod.publish("medical")
    async with pod.serve() as seen:
        get = await aiohttp_app(make_app(seen.agent.board, seen.agent.metrics, seen.agent.is_ready))
        assert (await get("/alive"))[0] == 200
        assert (await get("/ready"))[0] == 503
        pod.desire(adapters_json([entry(published)]))
        await seen.until(lambda: seen.status.get("routes"))
        assert (await get("/ready"))[0] == 200
        status, text = await get("/status?since=0.0&wait=60")
        body = json.loads(text)
        jsonschema.validate(body, STATUS_SCHEMA)
        assert (status, body["version"]) == (200, seen.agent.board.version)
        assert (await get("/status?wait=soon"))[0] == 400
        text = (await get("/metrics"))[1]
        assert "graftwork_agent_loads_total 1.0" in text
        assert "graftwork_agent_adapters_loaded 1.0" in text
        assert 'graftwork_agent_seen_to_load_seconds_bucket{le="+Inf"} 1.0' in text


async def test_two_agents_never_have_the_same_version(pod: Pod) -> None:
    first, second = Agent(pod.settings()), Agent(pod.settings())
    assert first.board.version != second.board.version
    for agent in (first, second):
        await agent._client.close()


async def test_a_model_that_only_the_look_cannot_read_is_served_all_the_same(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> dict[str, Any]:
        raise ModelInvalid("it is odd")

    monkeypatch.setattr("graftwork_agent.agent.facts", refuse)
    async with pod.serve() as seen:
        await seen.until(lambda: (seen.status.get("base") or {}).get("fingerprint") == pod.fingerprint)
        assert "task" not in seen.status["base"]
