"""Engines and what they are started for: the rank that `auto` means, changes that replace them, and the adapters that a starting one waits for."""

from __future__ import annotations

import json

import pytest

from tests.unit.reconcile.test_llmdeployment import rank_of, serving
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, message


async def test_a_rank_whose_engines_never_became_ready_is_given_up_with_its_adapter() -> None:
    """As when no GPU has room for it: the old pods, or none, must not be followed by such ones for ever."""
    world = World()
    await serving(world)
    world.adapter("wide", rank=256)
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=256"
    world.pod("p2", ready=False)
    await world.cluster.delete("LoRAAdapter", "ml", "wide-1")
    await world.cluster.delete("Pod", "ml", "p1")
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=16"


async def test_a_first_template_that_never_became_ready_follows_its_adapters_down() -> None:
    world = World()
    world.adapter(rank=256)
    world.deployment()
    await world.run("LLMDeployment", "support")
    world.pod("p1", ready=False)
    foreign = {"fingerprint": "sha256:" + "2" * 64, "architecture": "x", "parameters": 3, "weightsBytes": 6, "maxModelLen": 512}
    world.agent("p1", base=foreign)
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=256", "refused now, but the pods are starting: they are not replaced for it"
    await world.cluster.delete("LoRAAdapter", "ml", "medical-1")
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=16"


async def test_a_rank_that_was_served_stays_while_no_pod_is_ready() -> None:
    world = World()
    world.adapter(rank=64)
    await serving(world)
    assert world.status("LLMDeployment", "support")["rollout"]["maxRank"] == 64
    await world.cluster.delete("LoRAAdapter", "ml", "medical-1")
    world.pod("p1", ready=False)
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=64"
    await world.cluster.delete("Pod", "ml", "p1")
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=64"


async def test_a_change_of_max_loaded_that_replaces_the_engines_is_announced() -> None:
    world = World()
    await serving(world, adapters={"maxLoaded": 2})
    medical = world.adapter()
    await world.run("LLMDeployment", "support")
    world.agent("p1", medical)
    await world.run("LLMDeployment", "support")
    world.edit("LLMDeployment", "support", adapters={"maxLoaded": 4})
    for _ in range(2):
        await world.run("LLMDeployment", "support")
        world.agent("p1", medical)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "AdaptersLoaded") == ("True", "RestartRequired")
    assert "1 of 1 pods have engines that were started with --max-loras=2" in message(status, "AdaptersLoaded")
    assert "by engines with --max-loras=4" in message(status, "AdaptersLoaded")
    assert ("LLMDeployment/support", "RestartRequired") in [(who, why) for who, why, _ in world.events.recorded]
    world.pod("p2")
    world.agent("p2", medical)
    world.pod("p1", terminating=True)
    await world.run("LLMDeployment", "support")
    world.agent("p2", medical)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("True", "AdaptersLoaded")


def awaited(world: World) -> dict[str, bool]:
    return {item["name"]: item["required"] for item in json.loads(world.content())["adapters"]}


async def test_an_adapter_that_never_loaded_delays_no_new_pod_and_one_that_does_does() -> None:
    world = World()
    await serving(world)
    good = world.adapter()
    await world.run("LLMDeployment", "support")
    assert awaited(world) == {"medical-1": True}
    world.agent("p1", good)
    await world.run("LLMDeployment", "support")
    world.writes()
    bad = world.adapter("legal", letter="b")
    await world.run("LLMDeployment", "support")
    loaded = {"engineName": good, "name": "medical-1", "state": "Loaded"}
    row = {"engineName": bad, "name": "legal-1", "state": "Downloading"}
    world.agent("p1", adapters=[loaded, row])
    await world.run("LLMDeployment", "support")
    world.pod("p2", ready=False)
    assert awaited(world) == {"medical-1": True, "legal-1": True}
    world.agent("p1", adapters=[loaded, row | {"state": "Failed", "reason": "SourceNotFound"}])
    await world.run("LLMDeployment", "support")
    assert awaited(world) == {"medical-1": True, "legal-1": False}
    world.agents.views.clear()
    await world.run("LLMDeployment", "support")
    assert awaited(world) == {"medical-1": True, "legal-1": False}
    world.agent("p1", good, bad)
    await world.run("LLMDeployment", "support")
    assert awaited(world) == {"medical-1": True, "legal-1": True}


async def test_a_good_adapter_costs_one_write_of_the_file() -> None:
    world = World()
    await serving(world)
    world.adapter()
    for _ in range(3):
        await world.run("LLMDeployment", "support")
        world.agent("p1", *(item["engineName"] for item in json.loads(world.content())["adapters"]))
    assert [kind for _, kind, _ in world.writes() if kind == "ConfigMap"] == ["ConfigMap"]


async def test_a_first_start_waits_for_its_adapters() -> None:
    world = World()
    world.deployment()
    world.adapter()
    await world.run("LLMDeployment", "support")
    world.pod("p1", ready=False)
    await world.run("LLMDeployment", "support")
    assert awaited(world) == {"medical-1": True}


@pytest.mark.parametrize("state", ["Pending", "Downloading"])
async def test_an_engine_that_ends_takes_no_adapter_from_what_its_successor_waits_for(state: str) -> None:
    world = World()
    await serving(world)
    good = world.adapter()
    await world.run("LLMDeployment", "support")
    world.agent("p1", good)
    await world.run("LLMDeployment", "support")
    world.writes()
    world.agent("p1", adapters=[{"engineName": good, "name": "medical-1", "state": state}])  # before the kubelet has seen that the pod is not ready
    for _ in range(3):
        await world.run("LLMDeployment", "support")
        await world.clock.advance(60)
    assert awaited(world) == {"medical-1": True}
    assert [kind for _, kind, _ in world.writes() if kind == "ConfigMap"] == []
