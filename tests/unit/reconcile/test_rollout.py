"""Rollouts as a whole: what becomes of the Deployment, the stored revisions, the status and the Events."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork import names
from graftwork.cluster import metrics
from graftwork.errors import Conflict, Invalid

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, container, message

CAUSE = "vllm: error: argument --max-num-batched-tokens: invalid int value: 'x'"
BAD = {"engine": {"args": {"max-num-batched-tokens": "x"}}}
USAGE = container("vllm", waiting=("CrashLoopBackOff", "back-off"), ended=(2, CAUSE), restarts=1)


def arguments(world: World) -> list[str]:
    """Return what the engine of the applied template is started with."""
    found: list[str] = world.get("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def applied(world: World) -> str:
    annotations = world.get("Deployment", "support")["spec"]["template"]["metadata"]["annotations"]
    return str(annotations[names.ANNOTATION_TEMPLATE_HASH])


def rollouts(result: str) -> float:
    return float(metrics.ROLLOUTS.labels(result)._value.get())


async def edited(world: World, **spec: Any) -> None:
    world.edit("LLMDeployment", "support", **spec)
    await world.run("LLMDeployment", "support")


async def rolled_back(world: World) -> str:
    """Bring a deployment to where its second revision was rolled back; return the template hash of the first."""
    await serving(world)
    good = applied(world)
    await edited(world, **BAD)
    assert applied(world) != good
    world.pod("p2", ready=False, main=(USAGE,))
    await world.run("LLMDeployment", "support")
    return good


async def test_a_revision_with_a_bad_flag_is_rolled_back_while_the_old_pod_serves_and_the_line_is_quoted() -> None:
    world, before = World(), rollouts("RolledBack")
    good = await rolled_back(world)
    assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack") == ("True", "EngineCrashed")
    assert condition(status, "Stalled") == ("True", "RolledBack")
    assert condition(status, "Ready") == ("False", "RolledBack")
    assert condition(status, "Serving")[0] == "True"
    for kind in ("RolledBack", "Stalled", "Ready"):
        assert CAUSE in message(status, kind)
    rollout = status["rollout"]
    assert (rollout["revision"], rollout["lastGood"], rollout["templateHash"]) == (1, 1, good)
    assert (rollout["failed"]["revision"], rollout["failed"]["reason"]) == (2, "EngineCrashed")
    assert [(item["revision"], item["result"]) for item in rollout["history"]] == [(2, "RolledBack"), (1, "Completed")]
    told = [text for _, reason, text in world.events.recorded if reason == "RolledBack"]
    assert len(told) == 1
    assert CAUSE in told[0]
    assert rollouts("RolledBack") == before + 1


async def test_a_start_that_only_hangs_is_rolled_back_with_what_its_engine_said() -> None:
    world = World()
    await serving(world)
    good = applied(world)
    await edited(world, engine={"maxModelLen": 256}, rollout={"progressDeadline": "10m"})
    world.pod("p2", ready=False)
    hung = {"engine": {"state": "Starting", "instance": "", "startedAt": "", "draining": False, "said": "Waiting for 3 other workers"}}
    world.agent("p2", **hung)
    await world.run("LLMDeployment", "support")
    assert "vLLM of pod p2 last said: Waiting for 3 other workers" in message(world.status("LLMDeployment", "support"), "Reconciling")
    assert applied(world) != good
    await world.clock.advance(31)
    await world.run("LLMDeployment", "support")
    assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack") == ("True", "StartTooSlow")
    assert "it last said: Waiting for 3 other workers" in message(status, "RolledBack")
    assert status["rollout"]["failed"]["message"].endswith("Waiting for 3 other workers")


async def test_it_stays_rolled_back_over_passes_restarts_and_the_failed_pod_s_end_and_writes_nothing() -> None:
    world = World()
    good = await rolled_back(world)
    world.cluster.objects.pop(next(key for key in world.cluster.objects if key.name == "p2"))
    world.ctx.mirror.remove("Pod", "ml", "p2")
    await world.run("LLMDeployment", "support")
    world.writes()
    for _ in range(2):
        world.restart()
        result = await world.run("LLMDeployment", "support")
        assert world.writes() == []
        assert applied(world) == good
        assert result.requeue_after_seconds is None


async def test_the_failure_is_written_down_before_the_good_template_is_applied() -> None:
    world = World()
    await serving(world)
    await edited(world, **BAD)
    world.pod("p2", ready=False, main=(USAGE,))
    world.writes()
    world.cluster.fail = lambda verb, kind: Conflict("late") if (verb, kind) == ("patch_status", "LLMDeployment") else None
    with pytest.raises(Conflict):
        await world.run("LLMDeployment", "support")
    assert world.writes() == []
    world.cluster.fail = lambda verb, kind: Invalid("no") if (verb, kind) == ("apply", "Deployment") else None
    await world.run("LLMDeployment", "support")
    assert world.status("LLMDeployment", "support")["rollout"]["failed"]["revision"] == 2
    world.cluster.fail = lambda verb, kind: None
    await world.run("LLMDeployment", "support")
    assert world.status("LLMDeployment", "support")["rollout"]["revision"] == 1


async def test_another_spec_is_tried_and_the_same_one_again_after_that() -> None:
    world = World()
    good = await rolled_back(world)
    await edited(world, engine={"maxModelLen": 256})
    assert applied(world) != good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack") == ("False", "NotRolledBack")
    assert "failed" not in status["rollout"]
    assert status["rollout"]["lastGood"] == 1
    assert condition(status, "Stalled")[0] == "False"
    world.pod("p3")
    world.pod("p1", terminating=True)
    world.pod("p2", terminating=True)
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert (status["rollout"]["revision"], status["rollout"]["lastGood"]) == (3, 3)
    await edited(world, **BAD)
    assert world.status("LLMDeployment", "support")["rollout"]["revision"] == 2


async def test_taking_the_bad_change_back_is_ready_at_once() -> None:
    world = World()
    good = await rolled_back(world)
    world.pod("p2", terminating=True)
    await edited(world, engine={})
    assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert condition(status, "RolledBack")[0] == "False"


async def test_scaling_goes_on_while_it_is_rolled_back() -> None:
    world = World()
    good = await rolled_back(world)
    await edited(world, replicas=3)
    assert (world.get("Deployment", "support")["spec"]["replicas"], applied(world)) == (3, good)


async def test_without_auto_rollback_the_cause_is_told_and_nothing_else_happens() -> None:
    world = World()
    await serving(world)
    await edited(world, **BAD, rollout={"autoRollback": False})
    bad = applied(world)
    world.pod("p2", ready=False, main=(USAGE,))
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert applied(world) == bad
    assert condition(status, "Stalled") == ("True", "EngineCrashed")
    assert condition(status, "RolledBack")[0] == "False"
    await edited(world, rollout={"autoRollback": True})
    assert applied(world) != bad


async def test_a_first_revision_that_starts_too_slowly_is_told() -> None:
    world = World()
    world.deployment(rollout={"progressDeadline": "10m"})
    await world.run("LLMDeployment", "support")
    world.pod("p1", ready=False)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "Stalled")[0] == "False", "who has just begun to look does not judge"
    await world.clock.advance(30)
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Stalled") == ("True", "StartTooSlow")
    assert "spec.rollout.progressDeadline" in message(status, "Stalled")
    assert condition(status, "RolledBack")[0] == "False"


async def test_a_lost_status_is_made_again_from_the_pods_that_serve() -> None:
    world = World()
    good = await rolled_back(world)
    world.cluster.seed({**world.get("LLMDeployment", "support"), "status": {}})
    await world.run("LLMDeployment", "support")  # tried once more, and the failed pod is still there
    assert applied(world) == good
    assert world.status("LLMDeployment", "support")["rollout"]["failed"]["revision"] == 2


async def test_ten_edits_in_a_row_end_with_the_last_and_keep_what_is_good() -> None:
    world = World()
    await serving(world)
    good = applied(world)
    for length in range(100, 114):
        await edited(world, engine={"maxModelLen": length})
    assert "--max-model-len=113" in arguments(world)
    status = world.status("LLMDeployment", "support")
    assert status["rollout"]["lastGood"] == 1
    stored = {key.name for key in world.cluster.objects if key.kind == "ControllerRevision"}
    assert f"support-{good}" in stored
    assert len(stored) <= 12
    world.pod("p2", ready=False, main=(USAGE,))
    await world.run("LLMDeployment", "support")
    assert applied(world) == good, "the template of before the ten edits is still there"


async def test_no_room_beside_the_only_pod_is_told_until_there_is_consent() -> None:
    world = World()
    await serving(world)
    await edited(world, engine={"maxModelLen": 256})
    world.pod("p2", ready=False, node="", main=(), unschedulable="0/1 nodes: Insufficient nvidia.com/gpu")
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Placed") == ("False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in message(status, "Placed")
    assert condition(status, "Reconciling") == ("True", "RolloutNeedsDowntime")
    assert ("LLMDeployment/support", "RolloutNeedsDowntime") in [(who, why) for who, why, _ in world.events.recorded]
    template = applied(world)
    await edited(world, rollout={"surge": 0})
    assert applied(world) == template, "consent is no new revision"
    assert world.get("Deployment", "support")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert condition(world.status("LLMDeployment", "support"), "Reconciling")[1] == "Unschedulable"


async def test_what_the_api_server_refuses_of_the_deployment_changes_nothing_at_all() -> None:
    world = World()
    await serving(world)
    world.cluster.fail = lambda verb, kind: Invalid("requests above limits") if (verb, kind) == ("apply", "Deployment") else None
    world.edit("LLMDeployment", "support", service={"port": 9000}, pod={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})
    await world.run("LLMDeployment", "support")
    assert [kind for _, kind, _ in world.writes()] == ["LLMDeployment"]
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Stalled") == ("True", "InvalidSpec")
    assert "requests above limits" in message(status, "Stalled")
    assert status["rollout"]["revision"] == 1
    assert world.get("Service", "support")["spec"]["ports"][0]["port"] == 8000


async def test_a_rank_whose_engines_crash_is_rolled_back_once_and_not_tried_in_a_loop() -> None:
    world = World()
    await serving(world)
    good = applied(world)
    world.adapter("wide", letter="b", rank=64)
    await world.run("LLMDeployment", "support")
    assert "--max-lora-rank=64" in arguments(world)
    oom = container("vllm", waiting=("CrashLoopBackOff", ""), ended=(137, ""), reason="OOMKilled", restarts=2)
    world.pod("p2", ready=False, main=(oom,))
    for _ in range(3):
        await world.run("LLMDeployment", "support")
        assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack") == ("True", "OutOfMemory")
    assert len(status["rollout"]["history"]) == 2
    assert condition(status, "AdaptersLoaded") == ("False", "AdapterFailed")
    await world.run("LoRAAdapter", "wide-1")
    refused = world.status("LoRAAdapter", "wide-1")
    assert condition(refused, "Stalled") == ("True", "RolledBack")
    for words in ("its rank is 64", "--max-lora-rank 16", "revision 2 failed (OutOfMemory) and was rolled back to revision 1"):
        assert words in message(refused, "Stalled")
        assert words in message(status, "AdaptersLoaded")
    world.delete("LoRAAdapter", "wide-1")
    world.pod("p2", terminating=True)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "RolledBack")[0] == "False"


async def test_a_surge_of_zero_that_is_taken_back_with_a_change_counts_no_more() -> None:
    world = World()
    world.deployment(replicas=3, rollout={"surge": 0})
    await world.run("LLMDeployment", "support")
    for name in ("p1", "p2", "p3"):
        world.pod(name)
    await world.run("LLMDeployment", "support")
    await edited(world, rollout={"surge": "auto"}, engine={"args": {"seed": 1}})
    assert world.get("Deployment", "support")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
