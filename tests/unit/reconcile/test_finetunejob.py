from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork import names
from graftwork.cluster.protocol import PeerView
from graftwork.config import Config
from graftwork.errors import AlreadyExists, Forbidden, Invalid, Unavailable

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import STORE, World
from tests.unit.status.seen import condition, container, message, pod_object
from tests.unit.status.test_training import RESULT

BASE_MODEL = {"baseModel": {"source": "s3://models/tiny"}}


def job(world: World, name: str = "tickets", **spec: Any) -> None:
    fields = {"dataset": {"source": "s3://data/train.jsonl"}, "publish": {"alias": "medical", "labels": {"team": "support"}}}
    world.add("FineTuneJob", name, {**fields, **(BASE_MODEL if "deploymentRef" not in spec else {}), **spec})


def trainer(world: World, status: dict[str, Any], *, name: str = "r1", phase: str = "Running", **fields: Any) -> None:
    """Put the run's pod with this state of its trainer."""
    owner = world.get("Job", "tickets-run-1")["metadata"]["uid"]
    labels = {names.LABEL_JOB: "tickets"}
    world.cluster.seed(pod_object(name, ready=False, phase=phase, labels=labels, owner=owner, main=(status,), **fields))


def end_job(world: World, kind: str, reason: str) -> None:
    live = world.get("Job", "tickets-run-1")
    conditions = [{"type": kind, "status": "True", "reason": reason, "lastTransitionTime": "2026-11-21T12:59:59Z"}]
    world.cluster.seed({**live, "status": {"conditions": conditions}})


def ended(code: int, text: str, **fields: Any) -> dict[str, Any]:
    return container("trainer", ended=(code, text), **fields)


async def published(world: World, **result: Any) -> None:
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, ended(0, json.dumps({**RESULT, **result})), phase="Succeeded")
    await world.run("FineTuneJob", "tickets")


async def test_the_job_is_made_once() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    assert ("create", "Job", "tickets-run-1") in world.writes()
    await world.run("FineTuneJob", "tickets")
    assert world.writes() == []
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], status["run"]) == ("Pending", 1)


async def test_a_finished_run_becomes_a_lora_adapter_and_is_never_made_again() -> None:
    world = World()
    await published(world)
    adapter = world.get("LoRAAdapter", "medical-1")
    assert adapter["metadata"]["labels"] == {"team": "support", names.LABEL_PUBLISHED_BY: "uid-tickets"}
    assert "ownerReferences" not in adapter["metadata"]
    assert adapter["spec"]["owner"] == "tickets"
    assert adapter["spec"]["digest"] == RESULT["adapter"]["digest"]  # type: ignore[index]
    assert adapter["spec"]["baseModel"] == {"source": "s3://models/tiny", "fingerprint": "sha256:" + "1" * 64}
    assert adapter["spec"]["lineage"]["metrics"]["adapterLoss"] == 0.4
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], status["adapter"]) == ("Succeeded", "medical-1")
    assert condition(status, "Ready") == ("True", "Published")
    for kind, name in (("Job", "tickets-run-1"), ("Pod", "r1"), ("LoRAAdapter", "medical-1")):
        await world.cluster.delete(kind, "ml", name)
    world.writes()
    world.edit("FineTuneJob", "tickets", retry={"limit": 9})
    await world.run("FineTuneJob", "tickets")
    assert world.writes() == [("patch_status", "FineTuneJob", "tickets")]
    assert world.status("FineTuneJob", "tickets")["observedGeneration"] == 2
    await world.run("FineTuneJob", "tickets")
    assert world.writes() == []


async def test_the_version_is_the_next_one_of_the_alias() -> None:
    world = World()
    world.adapter(version=7)
    await published(world)
    assert world.status("FineTuneJob", "tickets")["adapter"] == "medical-8"


async def test_a_name_that_is_taken_by_another_alias_moves_to_the_next_version() -> None:
    world = World()
    world.add("LoRAAdapter", "medical-1", {"alias": "legal", "version": 1})
    await published(world)
    assert world.status("FineTuneJob", "tickets")["adapter"] == "medical-2"


async def test_names_that_others_take_at_the_same_time_are_tried_a_few_times_and_told() -> None:
    world, tries = World(), []

    def taken(verb: str, kind: str) -> AlreadyExists | None:
        if (verb, kind) != ("create", "LoRAAdapter"):
            return None
        tries.append(verb)
        return AlreadyExists("it exists")

    world.cluster.fail = taken
    world.add("LoRAAdapter", "medical-2", {"alias": "legal", "version": 1})
    await published(world)
    status = world.status("FineTuneJob", "tickets")
    assert len(tries) == 5
    assert (status["phase"], condition(status, "Ready"), condition(status, "Stalled")[0]) == ("Publishing", ("False", "NameTaken"), "False")
    assert "medical-1, medical-3, medical-4, medical-5, medical-6 are taken" in message(status, "Ready")
    assert "finishedAt" not in status
    world.cluster.fail = lambda verb, kind: None
    await world.run("FineTuneJob", "tickets")
    assert (world.status("FineTuneJob", "tickets")["phase"], world.status("FineTuneJob", "tickets")["adapter"]) == ("Succeeded", "medical-1")


@pytest.mark.parametrize("error", [Forbidden("exceeded quota: jobs"), Invalid("denied by a policy: jobs")])
async def test_a_run_that_may_not_be_made_says_so_and_is_tried_again(error: Forbidden | Invalid) -> None:
    world = World()
    job(world)
    world.cluster.fail = lambda verb, kind: error if (verb, kind) == ("create", "Job") else None
    result = await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    refused = isinstance(error, Forbidden)
    assert condition(status, "Ready") == ("False", "ReconcileFailed" if refused else "InvalidSpec")
    assert condition(status, "Stalled")[0] == ("False" if refused else "True")
    assert str(error) in message(status, "Ready")
    assert result.requeue_after_seconds == (30.0 if refused else 15.0)
    world.cluster.fail = lambda verb, kind: None
    await world.run("FineTuneJob", "tickets")
    assert world.find("Job", "tickets-run-1")


@pytest.mark.parametrize("error", [Forbidden("no right to create"), Invalid("denied by a policy")])
async def test_what_may_not_be_published_waits_with_its_figures_and_is_published_later(error: Forbidden | Invalid) -> None:
    world = World()
    world.cluster.fail = lambda verb, kind: error if (verb, kind) == ("create", "LoRAAdapter") else None
    await published(world)
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], condition(status, "Ready"), condition(status, "Reconciling")[0]) == ("Publishing", ("False", "ReconcileFailed"), "True")
    assert str(error) in message(status, "Ready")
    assert status["evaluation"]["verdict"] == "Passed"
    assert (await world.run("FineTuneJob", "tickets")).requeue_after_seconds == 30.0
    world.cluster.fail = lambda verb, kind: None
    await world.run("FineTuneJob", "tickets")
    assert world.status("FineTuneJob", "tickets")["phase"] == "Succeeded"


async def test_a_change_that_may_not_reach_the_job_says_so_and_the_run_goes_on() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, container("trainer", running=True))
    world.edit("FineTuneJob", "tickets", retry={"limit": 9})
    world.cluster.fail = lambda verb, kind: Forbidden("no right to patch") if (verb, kind) == ("apply", "Job") else None
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], condition(status, "Ready")) == ("Preparing", ("False", "ReconcileFailed"))
    assert "no right to patch" in message(status, "Ready")


async def test_a_crash_between_publishing_and_the_status_publishes_once() -> None:
    world = World()
    await published(world)
    obj = world.get("FineTuneJob", "tickets")
    world.cluster.seed({key: value for key, value in obj.items() if key != "status"})
    world.restart()
    world.writes()
    await world.run("FineTuneJob", "tickets")
    assert [verb for verb, kind, _ in world.writes() if kind == "LoRAAdapter"] == []
    assert world.status("FineTuneJob", "tickets")["adapter"] == "medical-1"


async def test_a_result_that_came_while_the_operator_was_away_is_read() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, ended(0, json.dumps(RESULT)), phase="Succeeded")
    end_job(world, "Complete", "")
    world.restart()
    await world.run("FineTuneJob", "tickets")
    assert world.status("FineTuneJob", "tickets")["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("code", "text", "kind", "expected"),
    [
        (0, json.dumps(RESULT), "Complete", ("Succeeded", "Published")),
        (64, json.dumps({**RESULT, "outcome": "Failed", "reason": "DatasetInvalid", "message": "line 7"}), "Failed", ("Failed", "DatasetInvalid")),
    ],
)
async def test_a_job_that_is_known_to_have_ended_before_its_pod_is_ends_as_the_pod_says(
    code: int, text: str, kind: str, expected: tuple[str, str]
) -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, container("trainer", running=True))
    await world.run("FineTuneJob", "tickets")
    mirror, world.cluster.mirror = world.cluster.mirror, None
    trainer(world, ended(code, text), phase="Succeeded" if code == 0 else "Failed")  # the watch of pods has not told yet
    world.cluster.mirror = mirror
    end_job(world, kind, "")
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], condition(status, "Ready")[1]) == expected


async def test_what_was_published_stays_a_success_when_its_pod_went_before_the_status_was_written() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, ended(0, json.dumps(RESULT)), phase="Succeeded")
    world.cluster.fail = lambda verb, kind: Unavailable("no answer") if verb == "patch_status" else None
    with pytest.raises(Unavailable):
        await world.run("FineTuneJob", "tickets")
    world.cluster.fail = lambda verb, kind: None
    await world.cluster.delete("Pod", "ml", "r1")
    end_job(world, "Complete", "")
    world.restart()
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], status["adapter"]) == ("Succeeded", "medical-1")


async def test_a_pod_of_an_earlier_job_of_the_same_name_is_not_read() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    labels = {names.LABEL_JOB: "tickets"}
    world.cluster.seed(pod_object("old", ready=False, phase="Succeeded", labels=labels, owner="gone", main=(ended(0, json.dumps(RESULT)),)))
    await world.run("FineTuneJob", "tickets")
    assert world.status("FineTuneJob", "tickets")["phase"] == "Pending"


async def test_a_rejected_run_publishes_nothing() -> None:
    world = World()
    await published(world, outcome="Rejected", reason="BelowGate", adapter=None, message="0.01 is below 0.02")
    assert world.status("FineTuneJob", "tickets")["phase"] == "Rejected"
    assert world.find("LoRAAdapter", "medical-1") is None


async def test_wrong_data_fails_with_the_file_and_the_line() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    text = json.dumps({"apiVersion": "graftwork.dev/result/v1", "outcome": "Failed", "reason": "DatasetInvalid", "message": "train.jsonl line 7"})
    trainer(world, ended(64, text), phase="Failed")
    await world.run("FineTuneJob", "tickets")
    assert world.status("FineTuneJob", "tickets")["phase"] == "Pending"
    end_job(world, "Failed", "PodFailurePolicy")
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert status["phase"] == "Failed"
    assert condition(status, "Stalled") == ("True", "DatasetInvalid")
    assert "train.jsonl line 7" in message(status, "Stalled")


async def test_live_progress_is_shown() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    trainer(world, container("trainer", running=True))
    await world.run("FineTuneJob", "tickets")
    assert [pod.name for pods in world.trainers.watched.values() for pod in pods] == ["r1"]
    world.trainers.views["uid-r1"] = PeerView({"phase": "Training", "step": 48, "steps": 120, "loss": 0.8}, True, world.clock.now())
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert (status["phase"], status["progressText"]) == ("Training", "48/120")


async def test_what_may_change_reaches_the_job_and_nothing_else_does() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    world.edit("FineTuneJob", "tickets", suspend=True, timeLimit="2h", retry={"limit": 5})
    world.writes()
    sent: list[dict[str, Any]] = []
    apply = world.cluster.apply

    async def recorded(obj: dict[str, Any]) -> dict[str, Any]:
        sent.append(obj)
        known = world.get("Job", "tickets-run-1")
        return await apply({**known, "spec": {**known["spec"], **obj["spec"]}})

    world.cluster.apply = recorded  # type: ignore[method-assign]
    await world.run("FineTuneJob", "tickets")
    await world.run("FineTuneJob", "tickets")
    assert [item["spec"] for item in sent] == [{"suspend": True, "backoffLimit": 5, "activeDeadlineSeconds": 7200}]
    assert world.status("FineTuneJob", "tickets")["phase"] == "Suspended"


async def test_a_suspended_run_is_not_made() -> None:
    world = World()
    job(world, suspend=True)
    await world.run("FineTuneJob", "tickets")
    assert world.find("Job", "tickets-run-1") is None
    assert world.status("FineTuneJob", "tickets")["phase"] == "Suspended"


async def test_a_deployment_that_is_not_there_is_waited_for() -> None:
    world = World()
    job(world, deploymentRef="support")
    await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert condition(status, "Ready") == ("False", "DeploymentNotFound")
    assert condition(status, "Stalled")[0] == "False"
    world.deployment()
    await world.run("FineTuneJob", "tickets")
    assert world.get("Job", "tickets-run-1")
    assert condition(world.status("FineTuneJob", "tickets"), "Ready") == ("False", "Pending")


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"dataset": {"source": "hf://x/y"}}, "SourceInvalid", "spec.dataset.source is 'hf://x/y'"),
        ({"dataset": {"source": "configMap://words/train.jsonl"}}, "SourceNotFound", "no ConfigMap 'words'"),
        ({"dataset": {"source": "configMap://words2/train.jsonl"}}, "SourceNotFound", "it has other.jsonl"),
        ({"deploymentRef": "narrow", "lora": {"rank": 64}}, "RankTooHigh", "spec.lora.rank is 64, and adapters.maxRank"),
        ({"deploymentRef": "support", "publish": {"alias": "support"}}, "AliasTaken", "'support' is the served name"),
        ({"deploymentRef": "support", "publish": {"alias": "legal"}}, "AliasTaken", "belongs to lineage 'others'"),
    ],
)
async def test_what_cannot_come_to_anything_is_not_started(spec: dict[str, Any], reason: str, words: str) -> None:
    world = World()
    await serving(world)
    world.deployment("narrow", adapters={"maxRank": 16})
    world.adapter("legal", owner="others")
    await world.run("LLMDeployment", "support")
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ml", "name": "words2"}, "data": {"other.jsonl": ""}}
    world.cluster.seed(other)
    job(world, **spec)
    result = await world.run("FineTuneJob", "tickets")
    status = world.status("FineTuneJob", "tickets")
    assert condition(status, "Stalled") == ("True", reason)
    assert words in message(status, "Stalled")
    assert world.find("Job", "tickets-run-1") is None
    assert result.requeue_after_seconds == 15.0


async def test_another_job_may_continue_a_lineage() -> None:
    world = World()
    await serving(world)
    world.adapter(owner="words")
    await world.run("LLMDeployment", "support")
    job(world, deploymentRef="support", publish={"alias": "medical", "owner": "words"})
    await world.run("FineTuneJob", "tickets")
    trainer(world, ended(0, json.dumps(RESULT)), phase="Succeeded")
    await world.run("FineTuneJob", "tickets")
    adapter = world.get("LoRAAdapter", "medical-2")
    assert (adapter["spec"]["owner"], adapter["spec"]["lineage"]["job"]) == ("words", "tickets")


async def test_without_a_store_nothing_is_trained() -> None:
    world = World(Config.model_validate({**STORE.model_dump(), "store": {}}))
    job(world)
    await world.run("FineTuneJob", "tickets")
    assert condition(world.status("FineTuneJob", "tickets"), "Stalled") == ("True", "StoreNotConfigured")


async def test_a_job_that_somebody_deleted_while_it_ran_is_followed_by_another_run() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    await world.cluster.delete("Job", "ml", "tickets-run-1")
    await world.run("FineTuneJob", "tickets")
    assert world.get("Job", "tickets-run-2")
    assert world.status("FineTuneJob", "tickets")["run"] == 2


async def test_the_job_of_a_deleted_namesake_is_waited_for() -> None:
    world = World()
    job(world)
    await world.run("FineTuneJob", "tickets")
    obj = world.get("FineTuneJob", "tickets")
    await world.cluster.delete("FineTuneJob", "ml", "tickets")
    world.cluster.seed({**obj, "metadata": {**obj["metadata"], "uid": "uid-new"}, "status": {}})
    result = await world.run("FineTuneJob", "tickets")
    assert result.requeue_after_seconds == 1.0
    assert condition(world.status("FineTuneJob", "tickets"), "Stalled")[0] == "False"
