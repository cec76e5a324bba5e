"""A model on a claim: nothing is looked up; what the agents read of it is shown, and never made part of the pods."""

from __future__ import annotations

from typing import Any

from graftwork.api.status import LLMDeploymentStatus
from graftwork.cluster.protocol import PeerView

from tests.unit.reconcile.test_resolving import answered, asked
from tests.unit.reconcile.world import World
from tests.unit.status.seen import BASE

READ = {"fingerprint": BASE, "architecture": "Qwen3ForCausalLM", "parameters": 3, "weightsBytes": 6, "maxModelLen": 512}
MORE = {"layers": 2, "kvLoraRank": None, "dtype": "float32", "quantization": "awq", "task": "generate", "remoteCode": False}


def read_by_the_agent(world: World, **more: Any) -> None:
    view = world.agents.views["uid-p1"]
    world.agents.views["uid-p1"] = PeerView({**(view.status or {}), "base": {**READ, **more}}, True, world.clock.now())


def model(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.status("LLMDeployment", "support")["model"]
    return found


async def test_what_an_agent_reads_of_a_claim_is_shown_for_one_status_and_no_job() -> None:
    world = World()
    world.deployment()
    await world.run("LLMDeployment", "support")
    before = world.get("Deployment", "support")["spec"]["template"]
    world.pod()
    read_by_the_agent(world, **MORE)
    await world.run("LLMDeployment", "support")
    LLMDeploymentStatus.model_validate(world.status("LLMDeployment", "support"))
    assert {key: model(world)["facts"][key] for key in ("fingerprint", "layers", "quantization", "task")} == {
        "fingerprint": BASE,
        "layers": 2,
        "quantization": "awq",
        "task": "generate",
    }
    assert "kvLoraRank" not in model(world)["facts"], "what its configuration does not say is not shown"
    assert world.get("Deployment", "support")["spec"]["template"] == before
    assert [key for key in world.cluster.objects if key.kind == "Job"] == []
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_an_agent_of_before_says_no_more_and_no_less() -> None:
    world = World()
    world.deployment()
    await world.run("LLMDeployment", "support")
    world.pod()
    await world.run("LLMDeployment", "support")
    assert model(world)["maxModelLen"] == 512
    assert "facts" not in model(world)


async def test_facts_of_nobody_are_not_believed_and_the_rest_is() -> None:
    world = World()
    world.deployment()
    await world.run("LLMDeployment", "support")
    world.pod()
    read_by_the_agent(world, **{**MORE, "layers": "two"})
    await world.run("LLMDeployment", "support")
    assert model(world)["fingerprint"] == BASE
    assert "facts" not in model(world)


async def test_facts_that_were_looked_up_are_not_shown_twice() -> None:
    world = World()
    await asked(world)
    await answered(world)
    world.pod()
    read_by_the_agent(world, **MORE)
    await world.run("LLMDeployment", "support")
    assert model(world)["fingerprint"] == BASE
    assert "facts" not in model(world)
    assert model(world)["resolved"]["facts"]["layers"] == 2
