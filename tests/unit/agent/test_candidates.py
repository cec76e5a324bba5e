"""Canaries in the agent: what the file says of them, when the guard hears of them, and a guard that is another process."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from graftwork_agent.decide import Engine, Files, FileState, LoadTrouble, Route, Snapshot, decide, key_of
from graftwork_agent.desired import Adapter, Candidate, Desired, DesiredError, parse

from tests.unit.agent.pod import Pod, adapters_json, engine_name, entry
from tests.unit.agent.stub_engine import StubEngine

STABLE, NEW = "medical--aaaaaaaaaaaa", "medical--bbbbbbbbbbbb"
BASE = "sha256:" + "b" * 64


def adapter(name: str, version: int) -> Adapter:
    return Adapter(f"medical-{version}", "medical", version, name, "sha256:" + name[-12:] + "0" * 52, "store://ml/medical/x", 8, "", False)


ADAPTERS = (adapter(STABLE, 7), adapter(NEW, 8))


def wanted(weight: int = 10) -> Desired:
    return Desired("support", 16, 100, ADAPTERS, {"medical": (STABLE,)}, "0" * 64, {"medical": Candidate(NEW, weight)}, 3)


def body(*listed: str, unloading: str = "", troubles: dict[str, LoadTrouble] | None = None, files: dict[str, Files] | None = None) -> dict[str, Any]:
    process = Engine("i1", 0.0, listed=frozenset(listed), troubles=troubles or {})
    decision = decide(Snapshot(10.0, wanted(), BASE, files or {}, frozenset(), process, unloading=unloading))
    return next(action.body for action in decision.actions if isinstance(action, Route))


def file(**changes: Any) -> bytes:
    """A file with one alias, one candidate, and whatever is to be wrong with them."""
    items = [{**vars_of(item), "required": False} for item in ADAPTERS]
    alias = {"alias": "medical", "prefer": [STABLE], "candidate": NEW, "weight": 10, **changes.pop("alias", {})}
    document = {"apiVersion": "graftwork.dev/adapters/v1", "servedName": "support", "maxRank": 16, "requiredDeadlineSeconds": 9, "adapters": items}
    return json.dumps({**document, "aliases": [{key: value for key, value in alias.items() if value is not None}], **changes}).encode()


def vars_of(item: Adapter) -> dict[str, Any]:
    found = {"name": item.name, "alias": item.alias, "version": item.version, "engineName": item.engine_name, "digest": item.digest}
    return {**found, "source": item.source, "rank": item.rank, "baseFingerprint": ""}


def test_the_file_names_candidates_their_weight_and_the_replicas() -> None:
    desired = parse(file(replicas=3))
    assert (desired.candidates, desired.replicas) == ({"medical": Candidate(NEW, 10)}, 3)
    plain = parse(file(alias={"candidate": None, "weight": None}))
    assert (plain.candidates, plain.replicas, plain.adapters[0].compatible) == ({}, 1, False)
    assert parse(file(alias={"weight": 0})).candidates["medical"].weight == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alias": {"weight": None}}, "both or neither"),
        ({"alias": {"candidate": None}}, "both or neither"),
        ({"alias": {"weight": 101}}, "aliases[medical].weight 101 must be a whole number from 0 to 100"),
        ({"alias": {"weight": -1}}, "-1"),
        ({"alias": {"weight": True}}, "True"),
        ({"alias": {"weight": 10.0}}, "10.0"),
        ({"alias": {"candidate": "text"}}, "'text'"),
        ({"replicas": 0}, "replicas 0 must be a whole number at least 1"),
        ({"replicas": "2"}, "'2'"),
    ],
)
def test_a_wrong_candidate_is_named_with_its_value_and_rule(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DesiredError) as caught:
        parse(file(**changes))
    assert words in str(caught.value)


def test_the_guard_hears_of_a_candidate_while_the_engine_lists_it() -> None:
    both = body(STABLE, NEW)
    assert (both["aliases"], both["candidates"]) == ({"medical": STABLE}, {"medical": {"engine": NEW, "weight": 10}})
    assert both["versions"] == {STABLE: 7, NEW: 8}
    assert (both["replicas"], both["instance"]) == (3, "i1")
    for without in (body(STABLE), body(STABLE, NEW, unloading=NEW), body(STABLE, NEW, troubles={NEW: LoadTrouble("x", "", refused=True)})):
        assert (without["aliases"], without["candidates"], without["versions"]) == ({"medical": STABLE}, {}, {STABLE: 7})


def test_a_refused_candidate_is_not_tried() -> None:
    refused = {NEW: Files(FileState.REFUSED, key_of(ADAPTERS[1], wanted(), BASE), "NotFinite")}
    assert body(STABLE, NEW, files=refused)["candidates"] == {}


def test_a_candidate_alone_does_not_make_its_alias_available() -> None:
    alone = body(NEW)
    assert (alone["aliases"], set(alone["unavailable"]), set(alone["candidates"])) == ({}, {"medical"}, {"medical"})


def test_what_was_verified_for_a_compatible_base_is_verified_anew_when_it_is_none() -> None:
    strict = ADAPTERS[0]
    loose = replace(strict, compatible=True)
    assert key_of(strict, wanted(), BASE) != key_of(loose, wanted(), BASE)


async def test_a_compatible_adapter_of_another_base_is_loaded_and_otherwise_refused(pod: Pod, engine: StubEngine) -> None:
    foreign = "sha256:" + "9" * 64
    published = pod.publish("medical", fingerprint=foreign)
    name = engine_name(published)
    pod.desire(adapters_json([entry(published, baseFingerprint=foreign)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(name) == "Refused")
        assert "compatibleBases" in seen.adapter(name)["message"]
        pod.desire(adapters_json([entry(published, baseFingerprint=foreign, compatible=True)]))
        await seen.until(lambda: seen.state(name) == "Loaded")
        pod.desire(adapters_json([entry(published, baseFingerprint=foreign)]))
        await seen.until(lambda: seen.state(name) == "Refused")
        await engine.until(lambda: engine.loaded == [])


async def test_a_canary_is_loaded_weighed_and_taken_out_again(pod: Pod, engine: StubEngine) -> None:
    old, new = pod.publish("medical", seed=1), pod.publish("medical", seed=2)
    stable, tried = engine_name(old), engine_name(new)
    entries, prefer = [entry(old), entry(new, version=2)], {"medical": [stable]}
    pod.desire(adapters_json(entries, prefer, candidates={"medical": (tried, 10)}, replicas=2))
    async with pod.serve() as seen:
        await engine.until(lambda: (engine.routing or {}).get("versions") == {stable: 1, tried: 2})
        assert engine.routing is not None
        assert (engine.routing["candidates"], engine.routing["replicas"]) == ({"medical": {"engine": tried, "weight": 10}}, 2)
        await seen.until(lambda: seen.status["routes"] == {"medical": stable})
        pod.desire(adapters_json(entries, prefer, candidates={"medical": (tried, 50)}, replicas=2))
        await engine.until(lambda: engine.routing and engine.routing["candidates"]["medical"]["weight"] == 50)
        engine.inflight[tried] = 1
        engine.bump()
        pod.desire(adapters_json([entry(old)], prefer, replicas=2))
        await seen.until(lambda: seen.state(tried) == "Unloading")
        await engine.until(lambda: engine.routing and not engine.routing["candidates"])
        assert engine.loaded == [stable, tried] or engine.loaded == [tried, stable]
        engine.inflight.clear()
        engine.bump()
        await seen.until(lambda: not seen.adapter(tried))
    assert engine.loaded == [stable]
    assert pod.on_disk() == [stable]


async def test_an_agent_that_means_another_process_forgets_what_it_believed_and_looks_again(pod: Pod, engine: StubEngine) -> None:
    published, more = pod.publish("medical"), pod.publish("legal", seed=2)
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        engine.instance = "another"  # and no connection broke, and its version is the one that the hanging GET waits at
        engine.loaded.clear()
        engine.routing = None
        pod.desire(adapters_json([entry(published), entry(more)]))
        await engine.until(lambda: set(engine.loaded) == {engine_name(published), engine_name(more)})
        await seen.until(lambda: set(seen.status["routes"]) == {"medical", "legal"})
        assert seen.status["engine"]["instance"] == "another"
    assert engine.count("other") == 1
    assert engine.routing is not None
    assert engine.routing["instance"] == "another"
