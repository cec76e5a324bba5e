"""Adapters on or off, by the model: known before the pods for a source that is looked up, told by their agents for any other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork.plan import mode
from graftwork.plan.mode import ADAPTERS_ON

from tests.unit.reconcile.test_resolving import inspect_pod, word
from tests.unit.reconcile.world import World
from tests.unit.status.seen import BASE, condition

MAMBA, CLASSIFIER = "FalconMambaForCausalLM", "BertForSequenceClassification"
ON, OFF = True, False


def base(architecture: str) -> dict[str, Any]:
    return {"fingerprint": BASE, "architecture": architecture, "parameters": 3, "weightsBytes": 6, "maxModelLen": 512}


def lora(world: World) -> bool:
    arguments = world.get("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["args"]
    return "--enable-lora" in arguments


def revisions(world: World) -> list[str]:
    return sorted(key.name for key in world.cluster.objects if key.kind == "ControllerRevision")


async def served(world: World, **spec: Any) -> None:
    world.deployment(model={"source": "pvc://models/tiny"}, **spec)
    await world.run("LLMDeployment", "support")


async def told(world: World, architecture: str, pod: str = "p1", **fields: Any) -> None:
    """Let a pod of the template of now say what it has read."""
    world.pod(pod, **fields)
    world.agent(pod, base=base(architecture))
    await world.run("LLMDeployment", "support")


async def test_a_claim_is_served_with_adapters_until_an_agent_says_that_its_architecture_takes_none() -> None:
    world = World()
    world.adapter()
    await served(world)
    assert lora(world) is ON
    await told(world, MAMBA, ready=False)
    assert lora(world) is OFF
    assert len(revisions(world)) == 2
    assert json.loads(world.content())["adapters"] == []
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("False", "AdapterFailed")
    await world.run("LoRAAdapter", "medical-1")
    found = world.status("LoRAAdapter", "medical-1")
    assert condition(found, "Stalled") == ("True", "LoRANotSupported")
    assert MAMBA in next(item["message"] for item in found["conditions"] if item["type"] == "Stalled")


async def test_it_rolls_once_and_stays_when_nobody_is_there_to_say_it() -> None:
    world = World()
    await served(world)
    await told(world, MAMBA, ready=False)
    await told(world, MAMBA, "p2")
    world.delete("Pod", "p1")
    world.delete("Pod", "p2")
    world.restart()
    world.writes()
    await world.run("LLMDeployment", "support")
    assert lora(world) is OFF
    assert len(revisions(world)) == 2
    world.edit("LLMDeployment", "support", adapters={"maxLoaded": 4})
    await world.run("LLMDeployment", "support")
    assert len(revisions(world)) == 2, "adapters that are off have no limits that pods are made from"


async def test_another_model_on_the_claim_is_served_with_adapters_again() -> None:
    world = World()
    await served(world)
    await told(world, MAMBA, ready=False)
    world.edit("LLMDeployment", "support", model={"source": "pvc://models/other"})
    await world.run("LLMDeployment", "support")
    assert lora(world) is ON, "what the old pods have read is another model"


async def test_an_engine_that_is_ready_with_adapters_proves_more_than_the_table() -> None:
    world = World()
    await served(world)
    await told(world, MAMBA, ready=True)
    assert lora(world) is ON
    assert len(revisions(world)) == 1


async def test_a_claim_with_an_architecture_that_takes_adapters_changes_nothing() -> None:
    world = World()
    await served(world)
    await told(world, "Qwen3ForCausalLM", ready=False)
    assert lora(world) is ON
    assert len(revisions(world)) == 1


async def looked_up(world: World, facts: dict[str, Any], **spec: Any) -> dict[str, Any]:
    world.deployment(model={"source": "hf://acme/tiny"}, **spec)
    await world.run("LLMDeployment", "support")
    model = {**json.loads(word())["model"], **facts}
    inspect_pod(world, (0, word(model=model)))
    await world.run("LLMDeployment", "support")
    found: dict[str, Any] = world.status("LLMDeployment", "support")
    return found


async def test_a_reranker_of_a_hub_is_served_without_adapters_from_its_first_pod_on() -> None:
    world = World()
    found = await looked_up(world, {"architecture": CLASSIFIER, "task": "classify"})
    assert lora(world) is OFF
    assert len(revisions(world)) == 1
    message = next(item["message"] for item in found["conditions"] if item["type"] == "ModelResolved")
    assert "serves classify; adapters are off" in message


async def test_a_table_that_says_otherwise_takes_no_adapters_from_engines_that_have_served_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    with monkeypatch.context() as before:
        before.setattr(mode, "of_architecture", lambda *_: ADAPTERS_ON)
        await looked_up(world, {"architecture": MAMBA})
        world.pod()
        await world.run("LLMDeployment", "support")
    assert lora(world) is ON
    await world.run("LLMDeployment", "support")
    assert lora(world) is ON
    world.pod(ready=False)
    await world.run("LLMDeployment", "support")
    assert lora(world) is ON, "it was good, and its node has only lost its readiness"
    assert len(revisions(world)) == 1


async def test_a_table_that_knows_more_gives_adapters_with_the_next_edit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await looked_up(world, {"architecture": MAMBA})
    monkeypatch.setattr(mode, "of_architecture", lambda *_: ADAPTERS_ON)
    await world.run("LLMDeployment", "support")
    assert lora(world) is OFF
    assert len(revisions(world)) == 1
    world.edit("LLMDeployment", "support", engine={"args": {"seed": 1}})
    await world.run("LLMDeployment", "support")
    assert lora(world) is ON


async def test_the_runner_is_written_only_where_vllm_would_choose_another() -> None:
    for pooling, expected in ((True, []), (False, ["--runner=pooling"])):
        world = World()
        await looked_up(world, {"task": "embed", "poolingModule": pooling})
        arguments = world.get("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert [item for item in arguments if item.startswith("--runner")] == expected


async def test_what_the_model_rules_out_is_said_before_a_pod_is_made() -> None:
    world = World()
    found = await looked_up(world, {"quantization": "gptq"}, engine={"quantization": "awq"})
    assert world.find("Deployment", "support") is None
    assert condition(found, "Stalled") == ("True", "UnsupportedCombination")
    assert condition(found, "ModelResolved") == ("True", "ModelResolved")
    world.edit("LLMDeployment", "support", engine={"quantization": "gptq"})
    await world.run("LLMDeployment", "support")
    assert world.find("Deployment", "support") is not None
