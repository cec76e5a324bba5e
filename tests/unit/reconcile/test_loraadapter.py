from __future__ import annotations

from typing import Any

import pytest
from graftwork.cluster.protocol import PeerView
from graftwork.names import FINALIZER

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, message


async def both(world: World, *adapters: str) -> None:
    """Do a pass of the deployment and one of each adapter."""
    await world.run("LLMDeployment", "support")
    for name in adapters:
        await world.run("LoRAAdapter", name)


async def hot(world: World, **spec: Any) -> str:
    """Bring a deployment with one loaded adapter about."""
    await serving(world, **spec)
    engine = world.adapter()
    await both(world, "medical-1")
    world.agent("p1", engine)
    await both(world, "medical-1")
    world.writes()
    return engine


async def test_it_is_ready_when_every_ready_pod_lists_it() -> None:
    world = World()
    await serving(world)
    engine = world.adapter()
    await both(world, "medical-1")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Ready") == ("False", "Loading")
    world.agent("p1", engine)
    await both(world, "medical-1")
    status = world.status("LoRAAdapter", "medical-1")
    assert condition(status, "Ready") == ("True", "Loaded")
    assert status["deployments"] == [{"name": "support", "loaded": 1, "of": 1}]
    assert status["loadedText"] == "1/1"
    world.writes()
    await both(world, "medical-1")
    assert world.writes() == []


async def test_nobody_selects_it() -> None:
    world = World()
    world.adapter()
    await world.run("LoRAAdapter", "medical-1")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Ready") == ("False", "NoDeployment")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == [FINALIZER]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"baseModel": {"fingerprint": "sha256:" + "2" * 64}}, "BaseMismatch", "sha256:2222"),
        ({"rank": 64}, "RankTooHigh", "spec.rank is 64"),
    ],
)
async def test_a_refused_one_is_stalled_and_touches_nothing_that_serves(spec: dict[str, object], reason: str, words: str) -> None:
    world = World()
    await hot(world, adapters={"maxRank": 16})
    world.adapter(version=2, letter="b", **spec)
    await both(world, "medical-2")
    assert not [kind for _, kind, _ in world.writes() if kind in ("ConfigMap", "Pod", "Deployment")]
    status = world.status("LoRAAdapter", "medical-2")
    assert condition(status, "Stalled") == ("True", reason)
    assert words in message(status, "Stalled")
    assert condition(world.status("LLMDeployment", "support"), "Ready")[0] == "True"


async def test_a_deleted_one_is_held_until_no_engine_lists_it() -> None:
    world = World()
    engine = await hot(world)
    world.delete("LoRAAdapter", "medical-1")
    result = await world.run("LoRAAdapter", "medical-1")
    assert result.requeue_after_seconds == 1.0
    assert condition(world.status("LoRAAdapter", "medical-1"), "Ready") == ("False", "Deleting")
    await world.run("LLMDeployment", "support")
    assert engine not in world.content()
    world.agent("p1", engine)
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == [FINALIZER]
    world.agent("p1")
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == []


async def test_the_deadline_lets_a_deleted_one_go_whoever_still_has_it() -> None:
    world = World()
    engine = await hot(world)
    world.delete("LoRAAdapter", "medical-1")
    await world.run("LLMDeployment", "support")
    world.agent("p1", engine)
    await world.clock.advance(61)
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == []
    assert any("60 s have passed" in text for _, _, text in world.events.recorded)


async def test_an_agent_that_does_not_answer_holds_nothing() -> None:
    world = World()
    engine = await hot(world)
    world.delete("LoRAAdapter", "medical-1")
    await world.run("LLMDeployment", "support")
    world.agent("p1", engine, reachable=False)
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == []


async def test_an_agent_that_was_not_heard_yet_holds_for_a_moment() -> None:
    world = World()
    engine = await hot(world)
    world.delete("LoRAAdapter", "medical-1")
    await world.run("LLMDeployment", "support")
    world.restart()
    world.agents.views["uid-p1"] = PeerView(None, False, world.clock.now())
    result = await world.run("LoRAAdapter", "medical-1")
    assert (result.requeue_after_seconds, world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"]) == (1.0, [FINALIZER])
    assert "pod p1 (its agent has not been heard yet)" in message(world.status("LoRAAdapter", "medical-1"), "Ready")
    world.agent("p1", engine)
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == [FINALIZER]
    world.agents.views["uid-p1"] = PeerView(None, False, world.clock.now())
    await world.clock.advance(10)
    await world.run("LoRAAdapter", "medical-1")
    assert world.get("LoRAAdapter", "medical-1")["metadata"]["finalizers"] == []


async def test_a_new_version_takes_over_and_the_one_before_the_last_is_superseded_once_both_are_loaded() -> None:
    world = World()
    one = await hot(world)
    two = world.adapter(version=2, letter="b")
    await both(world)
    world.agent("p1", one, two)
    await both(world)
    three = world.adapter(version=3, letter="c")
    await both(world, "medical-1", "medical-2", "medical-3")
    assert one in world.content()
    world.agent("p1", one, two, three)
    await both(world, "medical-1", "medical-2", "medical-3")
    assert one not in world.content()
    ready = [condition(world.status("LoRAAdapter", f"medical-{n}"), "Ready") for n in (1, 2, 3)]
    assert ready == [("False", "Superseded"), ("True", "Loaded"), ("True", "Loaded")]


async def test_a_deployment_that_is_stalled_is_named_as_what_it_waits_for() -> None:
    world = World()
    await serving(world)
    world.edit("LLMDeployment", "support", engine={"args": {"max-lora-rank": 64}})
    world.adapter()
    await both(world, "medical-1")
    status = world.status("LoRAAdapter", "medical-1")
    assert condition(status, "Ready") == ("False", "Loading")
    assert "LLMDeployment support is stalled" in message(status, "Ready")
    assert "OwnedFlag" in message(status, "Ready")


async def test_a_deployment_that_cannot_be_read_is_named() -> None:
    world = World()
    world.deployment(replicas=-1)
    world.adapter()
    await world.run("LoRAAdapter", "medical-1")
    assert "LLMDeployment support cannot be read: spec.replicas" in message(world.status("LoRAAdapter", "medical-1"), "Ready")
