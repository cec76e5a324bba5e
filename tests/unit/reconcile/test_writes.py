"""What a new LLMDeployment costs the API server: the issue's limit is 8 writes, Events included, and none for an edit that changes nothing."""

from __future__ import annotations

from typing import Any

from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition

WRITES_LIMIT = 8
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}


def waiting_pod(world: World, *conditions: dict[str, Any]) -> None:
    world.pod(ready=False, node="")
    world.agents.views.clear()  # nothing of it runs
    pod = world.get("Pod", "p1")
    world.cluster.seed({**pod, "status": {"phase": "Pending", "conditions": list(conditions)}})


async def created(world: World) -> list[tuple[str, str, str]]:
    """Create a deployment whose pod finds no node, in the passes that a cluster brings about, and return every write."""
    world.deployment()
    await world.run("LLMDeployment", "support")
    await world.run("LLMDeployment", "support")  # woken by its own children
    waiting_pod(world)
    await world.clock.advance(0.05)
    await world.run("LLMDeployment", "support")
    waiting_pod(world, UNSCHEDULABLE)
    await world.clock.advance(0.05)
    await world.run("LLMDeployment", "support")
    await world.clock.advance(10)
    await world.run("LLMDeployment", "support")
    return world.writes()


async def test_a_create_costs_five_children_two_statuses_and_one_event() -> None:
    world = World()
    writes = await created(world)
    events = [reason for _, reason, _ in world.events.recorded]
    assert [kind for verb, kind, _ in writes if verb in ("apply", "create")] == [
        "ConfigMap",
        "Service",
        "PodDisruptionBudget",
        "ControllerRevision",
        "Deployment",
    ]
    assert [kind for verb, kind, _ in writes if verb == "patch_status"] == ["LLMDeployment"] * 2
    assert set(events) == {"Unschedulable"}
    assert len(writes) + len(set(events)) <= WRITES_LIMIT
    status = world.status("LLMDeployment", "support")
    assert (condition(status, "Ready"), status["replicas"]) == (("False", "Unschedulable"), 1)


async def test_an_edit_that_changes_nothing_costs_nothing() -> None:
    world = World()
    await created(world)
    before = len(world.events.recorded)
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({**obj, "metadata": {**obj["metadata"], "annotations": {"note": "nothing"}}})
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert len(world.events.recorded) == before
