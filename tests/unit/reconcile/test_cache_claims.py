"""What is believed of a shared cache's claim: another claim of its name is empty, and a Job that was begun may have removed what lay there."""

from __future__ import annotations

import pytest

from tests.unit.reconcile.test_caching import (
    FIRST,
    SECOND,
    SHARED,
    add_class,
    bind,
    claim,
    document,
    fill,
    fill_pod,
    filled,
    fills,
    moved,
    run,
    served,
    status,
)
from tests.unit.reconcile.test_resolving import COMPLETE
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, message


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    return made


def keys(world: World) -> list[str]:
    return [item["key"] for item in status(world)["cache"].get("models") or []]


async def another_claim(world: World) -> None:
    """Put a claim of the same name while nobody looks."""
    old = claim(world)
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    world.cluster.seed({**old, "metadata": {**old["metadata"], "uid": "uid-another"}})


@pytest.mark.parametrize("job_is_there", [True, False])
async def test_another_claim_of_the_name_is_empty_whatever_was_told_of_the_first(world: World, job_is_there: bool) -> None:
    await served(world)
    assert status(world)["cache"]["claimUid"] == claim(world)["metadata"]["uid"]
    await moved(world)
    world.cluster.seed({**fill(world), "status": {"conditions": [COMPLETE]}})
    await run(world)
    assert keys(world) == [FIRST, SECOND]
    if not job_is_there:
        await run(world)
        assert fills(world) == []
    await another_claim(world)
    world.edit("LLMDeployment", "support", replicas=3)
    for _ in range(4):
        await run(world)
        assert keys(world) == []
        assert world.get("Deployment", "support")["spec"]["replicas"] == 1
    assert status(world)["cache"]["claimUid"] == "uid-another"
    assert condition(status(world), "ModelCached") == ("False", "CacheFilling")
    assert document(world)["key"] == SECOND
    await filled(world, "f3")
    assert keys(world) == [SECOND]
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3


async def test_a_claim_that_lost_its_volume_has_nothing(world: World) -> None:
    await served(world)
    bind(world)
    await run(world)
    assert keys(world) == [FIRST]
    world.cluster.seed({**claim(world), "status": {"phase": "Lost"}})
    world.edit("LLMDeployment", "support", replicas=3)
    await run(world)
    assert keys(world) == []
    assert world.get("Deployment", "support")["spec"]["replicas"] == 1


async def test_what_a_fill_may_remove_is_not_told_to_lie_there_from_when_it_is_asked_for(world: World) -> None:
    await served(world, keep=1)
    await moved(world)
    await filled(world, "f2")
    await run(world)
    await world.cluster.delete("Pod", "ml", "p1")
    world.pod("p2")
    await run(world)
    assert keys(world) == [FIRST, SECOND]
    await moved(world, "c" * 40)
    assert fills(world)
    assert keys(world) == [SECOND]


async def test_a_fill_that_nobody_waits_for_ends_only_when_what_it_may_have_removed_is_written_down(world: World) -> None:
    await served(world, keep=1)
    await moved(world)
    fill_pod(world, pod="f2")
    obj = world.get("LLMDeployment", "support")
    stale = [*obj["status"]["cache"]["models"], {"key": "0123456789ab", "revision": "", "bytes": 1}]
    world.cluster.seed({**obj, "status": {**obj["status"], "cache": {**obj["status"]["cache"], "models": stale}}})
    world.edit("LLMDeployment", "support", cache={**SHARED, "mode": "PerPod"})
    await run(world)
    assert (keys(world), len(fills(world))) == ([FIRST], 1)
    await run(world)
    assert (keys(world), fills(world)) == ([FIRST], [])


async def test_a_fill_s_pod_that_does_not_end_is_named_with_its_node_and_later_with_what_helps(world: World) -> None:
    await served(world)
    await moved(world)
    fill_pod(world, pod="f2", node="gone", terminating=True)
    await moved(world, "c" * 40)
    assert await run(world) == 1
    assert "pod f2 on node gone" in message(status(world), "ModelCached")
    assert "--force" not in message(status(world), "ModelCached")
    await world.clock.advance(61)
    assert await run(world) == 30
    assert "kubectl delete pod f2 --force --grace-period=0" in message(status(world), "ModelCached")
    assert condition(status(world), "ModelCached") == ("False", "CacheFilling")
    await world.cluster.delete("Pod", "ml", "f2")
    await run(world)
    assert document(world)["revision"] == "c" * 40
