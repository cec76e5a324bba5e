"""A model of a hub: looked up once per text, frozen to its commit, and served from there on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork import names
from graftwork.api.status import LLMDeploymentStatus
from graftwork.errors import Invalid

from tests.unit.reconcile.world import World
from tests.unit.status.seen import BASE, condition, container, message, pod_object

SOURCE = "hf://acme/tiny"
COMMIT, NEWER = "a" * 40, "b" * 40
FAILED = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit 65", "lastTransitionTime": "2026-11-21T13:00:00Z"}
GAVE_UP = {**FAILED, "reason": "BackoffLimitExceeded", "message": "tried"}
COMPLETE = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-21T13:00:00Z"}


def word(revision: str = COMMIT, **fields: Any) -> str:
    result = {
        "apiVersion": "graftwork.dev/inspect-result/v1",
        "outcome": "Succeeded",
        "reason": "ModelResolved",
        "message": "",
        "resolved": {"source": SOURCE, "revision": revision},
        "files": {"count": 3, "bytes": 700, "largestBytes": 600, "digest": "sha256:" + "e" * 64},
        "model": {
            "fingerprint": BASE,
            "architecture": "Qwen3ForCausalLM",
            "parameters": 300,
            "weightsBytes": 600,
            "maxModelLen": 2048,
            "layers": 2,
            "kvLoraRank": None,
            "quantization": "",
            "task": "generate",
        },
        "inspectedAt": "2026-11-21T13:00:00.000000Z",
    }
    return json.dumps({**result, **fields})


def failure(reason: str, text: str) -> str:
    return json.dumps({"apiVersion": "graftwork.dev/inspect-result/v1", "outcome": "Failed", "reason": reason, "message": text})


def jobs(world: World) -> list[dict[str, Any]]:
    return [item for key, item in world.cluster.objects.items() if key.kind == "Job" and "inspect" in key.name]


def job(world: World) -> dict[str, Any]:
    """Return the newest Job: the one that is not of an earlier text."""
    return max(jobs(world), key=lambda item: int(item["metadata"]["resourceVersion"]))


def inspect_pod(world: World, ended: tuple[int, str] | None = None, pod: str = "i1", **fields: Any) -> None:
    labels, owner = {names.LABEL_INSPECTS: "support"}, job(world)["metadata"]["uid"]
    main = (container("inspect", ended=ended),) if ended else fields.pop("main", ())
    phase = "Pending" if not ended else "Failed" if ended[0] else "Succeeded"
    world.cluster.seed(pod_object(pod, labels=labels, owner=owner, ready=False, **{"phase": phase, "main": main, **fields}))


def end(world: World, condition: dict[str, Any]) -> None:
    """Let the Job end as the Job controller says it."""
    world.cluster.seed({**job(world), "status": {"conditions": [condition]}})


async def removed(world: World) -> None:
    """Let the time of the Job run out, as ttlSecondsAfterFinished does."""
    for item in jobs(world):
        await world.cluster.delete("Job", "ml", item["metadata"]["name"])
    world.writes()


async def asked(world: World, **model: Any) -> None:
    world.deployment(model={"source": SOURCE, **model})
    await world.run("LLMDeployment", "support")


async def answered(world: World, revision: str = COMMIT, pod: str = "i1") -> None:
    inspect_pod(world, (0, word(revision)), pod)
    await world.run("LLMDeployment", "support")


async def resolved(world: World, **model: Any) -> None:
    await asked(world, **model)
    await answered(world)


def status(world: World) -> dict[str, Any]:
    return world.status("LLMDeployment", "support")


def refresh(world: World, text: str) -> None:
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({**obj, "metadata": {**obj["metadata"], "annotations": {names.ANNOTATION_REFRESH: text}}})


def download(world: World) -> list[str]:
    template = world.get("Deployment", "support")["spec"]["template"]["spec"]
    (found,) = [item for item in template["initContainers"] if item["name"] == "download"]
    args: list[str] = found["args"]
    return args


async def test_before_the_commit_is_known_there_is_everything_but_pods() -> None:
    world = World()
    await asked(world)
    assert world.find("Deployment", "support") is None
    assert [world.find(kind, name) is not None for kind, name in (("ConfigMap", "support-adapters"), ("Service", "support"))] == [True, True]
    assert condition(status(world), "ModelResolved") == ("False", "ModelResolving")
    assert condition(status(world), "Reconciling") == ("True", "ModelResolving")
    assert job(world)["metadata"]["ownerReferences"][0]["uid"] == "uid-support"
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_pods_of_the_look_are_never_taken_for_pods_that_serve() -> None:
    world = World()
    await asked(world)
    template = job(world)["spec"]["template"]["metadata"]["labels"]
    service = world.get("Service", "support")["spec"]["selector"]
    assert not service.items() <= template.items()
    inspect_pod(world, main=(container("inspect", running=True),), phase="Running")
    await world.run("LLMDeployment", "support")
    assert status(world)["replicas"] == 0


async def test_what_was_found_is_frozen_told_and_downloaded() -> None:
    world = World()
    await resolved(world)
    found = status(world)["model"]["resolved"]
    LLMDeploymentStatus.model_validate(status(world))
    assert (found["source"], found["revision"], found["facts"]["layers"], found["files"]["bytes"]) == (SOURCE, COMMIT, 2, 700)
    assert condition(status(world), "ModelResolved") == ("True", "ModelResolved")
    assert "--source" in download(world)
    assert f"{SOURCE}@{COMMIT}" in download(world)
    assert any(reason == "ModelResolved" and COMMIT in text for _, reason, text in world.events.recorded)
    (stored,) = [item for key, item in world.cluster.objects.items() if key.kind == "ControllerRevision"]
    assert stored["data"]["model"] == found
    await removed(world)
    await world.run("LLMDeployment", "support")
    assert world.writes() == [], "neither another look nor another status"


async def test_what_was_found_makes_pods_in_the_same_pass_and_one_status() -> None:
    world = World()
    await asked(world)
    world.writes()
    await answered(world)
    kinds = [kind for _, kind, _ in world.writes()]
    assert kinds == ["ControllerRevision", "Deployment", "LLMDeployment"]


async def test_a_refresh_looks_again_and_rolls_only_what_has_moved() -> None:
    world = World()
    await resolved(world)
    before = world.get("Deployment", "support")
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 2
    assert world.get("Deployment", "support") == before, "what serves goes on while it is looked up"
    assert status(world)["model"]["resolved"]["revision"] == COMMIT
    await answered(world, pod="i2")
    assert world.get("Deployment", "support") == before, "the same commit is the same revision"
    assert status(world)["rollout"]["revision"] == 1
    refresh(world, "2")
    await world.run("LLMDeployment", "support")
    await answered(world, NEWER, pod="i3")
    assert f"{SOURCE}@{NEWER}" in download(world)
    assert status(world)["rollout"]["revision"] == 2


async def test_an_annotation_that_goes_asks_for_nothing() -> None:
    world = World()
    await resolved(world)
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    await answered(world, NEWER, pod="i2")
    await removed(world)
    before = world.get("Deployment", "support")
    refresh(world, "")
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert world.get("Deployment", "support") == before
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    assert jobs(world) == [], "it was answered"
    refresh(world, "2")
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 1


async def test_an_annotation_that_goes_after_a_refusal_asks_for_nothing() -> None:
    world = World()
    await asked(world)
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    inspect_pod(world, (65, failure("SourceGated", "gated")))
    end(world, FAILED)
    await world.run("LLMDeployment", "support")
    await removed(world)
    refresh(world, "")
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert condition(status(world), "Stalled") == ("True", "SourceGated")


async def test_what_keeps_the_pod_from_starting_is_told_and_not_remembered() -> None:
    world = World()
    await asked(world)
    inspect_pod(world, main=(container("inspect", waiting=("CreateContainerConfigError", 'secret "hub" not found')),))
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "InvalidSpec")
    assert 'secret "hub" not found' in message(status(world), "Stalled")
    assert "refused" not in (status(world).get("model") or {})
    await answered(world)
    assert condition(status(world), "ModelResolved")[0] == "True"
    assert f"{SOURCE}@{COMMIT}" in download(world)


async def test_a_job_that_has_not_begun_follows_the_spec() -> None:
    world = World()
    await asked(world)
    inspect_pod(world, unschedulable="0/2 nodes: untolerated taint")
    first = job(world)["metadata"]["uid"]
    tolerated = {"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"gpu": "l4"}}
    world.edit("LLMDeployment", "support", model={"source": SOURCE}, pod=tolerated)
    result = await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert result.requeue_after_seconds == 1.0
    await world.run("LLMDeployment", "support")
    spec = job(world)["spec"]["template"]["spec"]
    assert job(world)["metadata"]["uid"] != first
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert "nodeSelector" not in spec
    inspect_pod(world, main=(container("inspect", running=True),), phase="Running")
    second = job(world)["metadata"]["uid"]
    world.edit("LLMDeployment", "support", model={"source": SOURCE}, pod={})
    await world.run("LLMDeployment", "support")
    assert job(world)["metadata"]["uid"] == second, "what runs is not disturbed"


async def test_a_job_that_admission_has_changed_is_not_made_again() -> None:
    world = World()
    await asked(world)
    live = job(world)
    spec = live["spec"]["template"]["spec"]
    (inspect,) = spec["containers"]
    changed = {**spec, "imagePullSecrets": [{"name": "mirror"}], "containers": [{**inspect, "image": "mirror.example.com/agent:1"}]}
    world.cluster.seed({**live, "spec": {**live["spec"], "template": {**live["spec"]["template"], "spec": changed}}})
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_another_name_of_the_same_commit_rolls_nothing() -> None:
    world = World()
    await resolved(world)
    before = world.get("Deployment", "support")
    world.edit("LLMDeployment", "support", model={"source": SOURCE, "revision": "v1"})
    await world.run("LLMDeployment", "support")
    assert any("hf://acme/tiny@v1" in item["spec"]["template"]["spec"]["containers"][0]["args"] for item in jobs(world))
    await answered(world, pod="i2")
    assert world.get("Deployment", "support")["spec"] == before["spec"]


async def test_a_status_that_was_lost_is_read_back_from_the_revision_that_serves() -> None:
    world = World()
    await resolved(world)
    await removed(world)
    before = status(world)["model"]["resolved"]
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({key: value for key, value in obj.items() if key != "status"})
    world.writes()
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert status(world)["model"]["resolved"] == before
    assert [kind for _, kind, _ in world.writes()] == ["LLMDeployment"]


@pytest.mark.parametrize("spoiled", [{"key": "x"}, {"revision": "main"}, {"facts": None}])
async def test_a_spoiled_status_is_not_believed(spoiled: dict[str, Any]) -> None:
    world = World()
    await resolved(world)
    obj = world.get("LLMDeployment", "support")
    model = {"resolved": {**obj["status"]["model"]["resolved"], **spoiled}}
    world.cluster.seed({**obj, "status": {**obj["status"], "model": model}})
    await world.run("LLMDeployment", "support")
    assert status(world)["model"]["resolved"]["revision"] == COMMIT
    assert f"{SOURCE}@{COMMIT}" in download(world)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SourceGated", "the repository is gated"),
        ("SourceDenied", "answers 401"),
        ("SourceNotFound", "no such repository"),
        ("RevisionNotFound", "no such revision"),
        ("SourceFileTooLarge", "50000000001 bytes"),
        ("UnsupportedFormat", "no *.safetensors"),
    ],
)
async def test_a_definitive_refusal_stalls_by_name_and_is_not_asked_again_before_something_changes(reason: str, words: str) -> None:
    world = World()
    await asked(world)
    inspect_pod(world, (65, failure(reason, words)))
    end(world, FAILED)
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", reason)
    assert condition(status(world), "ModelResolved") == ("False", reason)
    assert words in message(status(world), "Stalled")
    assert "graftwork.dev/refresh" in message(status(world), "Stalled")
    assert world.find("Deployment", "support") is None
    LLMDeploymentStatus.model_validate(status(world))
    await removed(world)
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert condition(status(world), "Stalled") == ("True", reason)
    refresh(world, "now")
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled")[0] == "False"
    await answered(world, pod="i2")
    assert f"{SOURCE}@{COMMIT}" in download(world)
    assert "refused" not in status(world)["model"]


async def test_a_refused_change_leaves_what_serves() -> None:
    world = World()
    await resolved(world)
    before = world.get("Deployment", "support")
    world.edit("LLMDeployment", "support", model={"source": SOURCE, "revision": "gone"}, replicas=3)
    await world.run("LLMDeployment", "support")
    inspect_pod(world, (65, failure("RevisionNotFound", "no such revision")), "i2")
    end(world, FAILED)
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "RevisionNotFound")
    assert world.get("Deployment", "support")["spec"]["template"] == before["spec"]["template"]
    world.edit("LLMDeployment", "support", model={"source": SOURCE})
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled")[0] == "False", "the text of before is known"
    assert world.get("Deployment", "support")["spec"]["template"] == before["spec"]["template"]


async def test_while_a_change_is_looked_up_the_rest_of_the_spec_is_followed() -> None:
    world = World()
    await resolved(world)
    world.pod()
    world.edit("LLMDeployment", "support", model={"source": SOURCE, "revision": "next"}, replicas=3, access={"networkPolicy": {}})
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "ModelResolved") == ("False", "ModelResolving")
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3
    assert f"{SOURCE}@{COMMIT}" in download(world)
    assert world.find("NetworkPolicy", "support") is not None
    assert condition(status(world), "Serving")[0] == "True"
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_a_bad_revision_is_rolled_back_while_the_next_one_is_looked_up() -> None:
    world = World()
    await resolved(world)
    world.pod()
    await world.run("LLMDeployment", "support")
    good = world.get("Deployment", "support")["spec"]["template"]
    world.edit("LLMDeployment", "support", model={"source": SOURCE}, engine={"args": {"seed": 1}})
    await world.run("LLMDeployment", "support")
    assert world.get("Deployment", "support")["spec"]["template"] != good
    world.edit("LLMDeployment", "support", model={"source": SOURCE, "revision": "next"}, engine={"args": {"seed": 1}})
    await world.run("LLMDeployment", "support")
    crash = container("vllm", waiting=("CrashLoopBackOff", ""), ended=(2, "vllm: error: bad flag"), restarts=1)
    world.pod("p2", ready=False, main=(crash,))
    await world.run("LLMDeployment", "support")
    assert world.get("Deployment", "support")["spec"]["template"] == good
    assert condition(status(world), "RolledBack")[0] == "True"
    failed = status(world)["rollout"]["failed"]
    await world.run("LLMDeployment", "support")
    assert status(world)["rollout"]["failed"] == failed, "it is not forgotten while it is not known what is asked for"
    await answered(world, NEWER, pod="i2")
    assert f"{SOURCE}@{NEWER}" in download(world)
    assert condition(status(world), "RolledBack")[0] == "False"


async def test_while_a_change_is_looked_up_adapters_still_come_and_go() -> None:
    world = World()
    await resolved(world)
    world.pod()
    world.edit("LLMDeployment", "support", model={"source": SOURCE, "revision": "next"})
    engine = world.adapter()
    await world.run("LLMDeployment", "support")
    assert engine in world.content()


async def test_a_hub_that_does_not_answer_is_tried_again_for_ever_without_stalling() -> None:
    world = World()
    await asked(world)
    inspect_pod(world, (70, failure("SourceUnreachable", "no route to hub")))
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Ready") == ("False", "SourceUnreachable")
    assert "attempt 2 of 7 follows" in message(status(world), "Ready")
    end(world, GAVE_UP)
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled")[0] == "False"
    assert "every 10 minutes" in message(status(world), "Ready")
    await removed(world)
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 1, "its Job is made again"
    await answered(world, pod="i2")
    assert condition(status(world), "ModelResolved")[0] == "True"


async def test_a_lost_result_is_looked_up_again() -> None:
    world = World()
    await asked(world)
    end(world, COMPLETE)
    result = await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert result.requeue_after_seconds == 1.0
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 1


@pytest.mark.parametrize(
    "text", [word(resolved={"source": "hf://acme/other", "revision": COMMIT}), word(resolved={"source": SOURCE, "revision": "main"}), "Traceback"]
)
async def test_a_result_that_is_not_of_this_source_is_not_believed(text: str) -> None:
    world = World()
    await asked(world)
    inspect_pod(world, (0, text))
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "InspectFailed")
    assert world.find("Deployment", "support") is None


async def test_a_pod_that_cannot_start_is_named() -> None:
    world = World()
    await asked(world)
    inspect_pod(world, unschedulable="0/2 nodes are available")
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Ready") == ("False", "Unschedulable")


async def test_a_job_that_may_make_no_pod_says_so_and_where_to_look() -> None:
    world = World()
    await asked(world)
    live = job(world)
    world.cluster.seed({**live, "metadata": {**live["metadata"], "creationTimestamp": "2026-11-21T13:00:00Z"}})
    await world.clock.advance(25)
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Ready") == ("False", "PodsRefused")
    assert f"kubectl describe job {live['metadata']['name']}" in message(status(world), "Ready")


async def test_a_source_of_a_claim_is_served_at_once_and_says_nothing_of_a_look() -> None:
    world = World()
    world.deployment()
    await world.run("LLMDeployment", "support")
    assert world.find("Deployment", "support")
    assert jobs(world) == []
    assert not [item for item in status(world)["conditions"] if item["type"] == "ModelResolved"]
    assert "model" not in status(world)


async def test_a_deployment_that_goes_to_a_claim_forgets_the_hub() -> None:
    world = World()
    await resolved(world)
    world.edit("LLMDeployment", "support", model={"source": "pvc://models/tiny"})
    await world.run("LLMDeployment", "support")
    template = world.get("Deployment", "support")["spec"]["template"]["spec"]
    assert [item["name"] for item in template["initContainers"] if item["name"] == "download"] == []
    assert "resolved" not in status(world).get("model", {})


async def test_a_spec_that_cannot_be_read_keeps_what_was_known() -> None:
    world = World()
    await resolved(world)
    before = status(world)["model"]["resolved"]
    world.edit("LLMDeployment", "support", engine={"args": {"port": 1}})
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "OwnedFlag")
    assert (condition(status(world), "ModelResolved"), status(world)["model"]["resolved"]) == (("True", "ModelResolved"), before)


async def test_a_deployment_that_the_api_server_refuses_is_looked_up_once() -> None:
    world = World()
    await asked(world)
    world.cluster.fail = lambda verb, kind: Invalid("no") if (verb, kind) == ("apply", "Deployment") else None
    await answered(world)
    await removed(world)
    assert status(world)["model"]["resolved"]["revision"] == COMMIT
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
