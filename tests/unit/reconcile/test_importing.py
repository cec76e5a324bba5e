"""An adapter from elsewhere: its Job, its end, and what is served by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork.api.status import LoRAAdapterStatus
from graftwork.config import Config

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import STORE, World
from tests.unit.status.seen import condition, container, message

DIGEST = "sha256:" + "c" * 64
ENGINE = "legal--cccccccccccc"
FAILED = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit 65", "lastTransitionTime": "2026-11-21T13:00:00Z"}
GAVE_UP = {**FAILED, "reason": "BackoffLimitExceeded", "message": "tried"}
COMPLETE = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-21T13:00:00Z"}


def word(digest: str = DIGEST, **fields: Any) -> str:
    twelve = digest.removeprefix("sha256:")[:12]
    result = {
        "apiVersion": "graftwork.dev/import-result/v1",
        "outcome": "Succeeded",
        "reason": "Imported",
        "message": "",
        "adapter": {"source": f"store://ml/legal/{twelve}", "digest": digest, "rank": 8, "sizeBytes": 4711},
        "resolved": {"source": "hf://acme/legal-lora", "revision": "8a1c"},
        "base": {"source": "Qwen/Qwen3-8B", "fingerprint": ""},
        "importedAt": "2026-11-21T13:00:00.000000Z",
    }
    return json.dumps({**result, **fields})


def failure(reason: str, text: str, version: str = "result/v1") -> str:
    return json.dumps({"apiVersion": f"graftwork.dev/{version}", "outcome": "Failed", "reason": reason, "message": text})


def end(world: World, condition: dict[str, Any], name: str = "legal-1") -> None:
    """Let the Job end as the Job controller says it."""
    job = world.get("Job", f"{name}-import")
    world.cluster.seed({**job, "status": {"conditions": [condition]}})


async def importing(world: World, **spec: Any) -> None:
    """Bring about an import that runs."""
    world.brought(**spec)
    await world.run("LoRAAdapter", "legal-1")


async def brought(world: World, text: str = "") -> None:
    world.import_pod(phase="Succeeded", main=(container("import", ended=(0, text or word())),))
    await world.run("LoRAAdapter", "legal-1")


async def test_alias_version_and_source_are_enough_and_nothing_is_decided_before_the_digest_is_known() -> None:
    world = World()
    await serving(world)
    await importing(world)
    job = world.get("Job", "legal-1-import")
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-legal-1"
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Reconciling") == ("True", "Importing")
    assert "digest" not in status
    await world.run("LLMDeployment", "support")
    assert ENGINE not in world.content()
    world.writes()
    await world.run("LoRAAdapter", "legal-1")
    assert world.writes() == []


async def test_what_was_imported_is_pinned_told_and_served_and_its_job_goes() -> None:
    world = World()
    await serving(world)
    await importing(world)
    await brought(world)
    status = world.status("LoRAAdapter", "legal-1")
    LoRAAdapterStatus.model_validate(status)
    assert (status["digest"], status["source"], status["rank"]) == (DIGEST, "store://ml/legal/cccccccccccc", 8)
    assert status["resolved"] == {"source": "hf://acme/legal-lora", "revision": "8a1c"}
    assert status["baseModel"] == {"source": "Qwen/Qwen3-8B"}
    assert (status["sizeBytes"], status["importedAt"]) == (4711, "2026-11-21T13:00:00.000000Z")
    assert ("LoRAAdapter/legal-1", "Imported", f"imported hf://acme/legal-lora at revision 8a1c as {DIGEST}") in world.events.recorded
    assert world.find("Job", "legal-1-import") is None
    await world.run("LLMDeployment", "support")
    (entry,) = json.loads(world.content())["adapters"]
    assert (entry["engineName"], entry["source"], entry["baseFingerprint"]) == (ENGINE, "store://ml/legal/cccccccccccc", "")
    world.agent("p1", ENGINE)
    await world.run("LoRAAdapter", "legal-1")
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Ready") == ("True", "Loaded")
    assert "not verified by a fingerprint (its files name Qwen/Qwen3-8B)" in message(status, "Ready")
    assert (status["digest"], status["sizeBytes"]) == (DIGEST, 4711)
    assert world.find("Job", "legal-1-import") is None, "what is pinned is not imported again"


@pytest.mark.parametrize(
    ("container_name", "exit_code", "text", "reason", "words"),
    [
        ("download", 65, failure("SourceDenied", "hf://acme/legal-lora answers 401"), "SourceDenied", "answers 401"),
        ("download", 64, failure("SourceNotFound", "no such repository"), "SourceNotFound", "no such repository"),
        ("import", 65, failure("NotFinite", "q_proj has 3 NaN", "import-result/v1"), "NotFinite", "3 NaN"),
        ("import", 65, "Traceback\nKeyError: 'r'", "ImportFailed", "KeyError: 'r'"),
    ],
)
async def test_a_definitive_failure_is_stalled_with_the_reason_of_the_result(
    container_name: str, exit_code: int, text: str, reason: str, words: str
) -> None:
    world = World()
    await importing(world)
    ended = container(container_name, ended=(exit_code, text))
    world.import_pod(phase="Failed", **({"init": (ended,)} if container_name == "download" else {"main": (ended,)}))
    end(world, FAILED)
    result = await world.run("LoRAAdapter", "legal-1")
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Stalled") == ("True", reason)
    assert words in message(status, "Stalled")
    assert "delete Job legal-1-import" in message(status, "Stalled")
    assert result.requeue_after_seconds is None
    assert world.find("Job", "legal-1-import"), "it stays for whoever wants to read its log"


async def test_a_source_that_does_not_answer_is_tried_again_for_ever_without_stalling() -> None:
    world = World()
    await importing(world)
    world.import_pod(phase="Failed", init=(container("download", ended=(70, failure("SourceUnreachable", "no route to hub"))),))
    await world.run("LoRAAdapter", "legal-1")
    status = world.status("LoRAAdapter", "legal-1")
    assert (condition(status, "Ready"), condition(status, "Stalled")[0]) == (("False", "SourceUnreachable"), "False")
    assert "no route to hub (attempt 2 of 7 follows)" in message(status, "Ready")
    end(world, GAVE_UP)
    result = await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Stalled")[0] == "False"
    assert result.requeue_after_seconds == 600
    first = world.get("Job", "legal-1-import")["metadata"]["uid"]
    await world.clock.advance(601)
    await world.run("LoRAAdapter", "legal-1")
    assert world.find("Job", "legal-1-import") is None
    await world.run("LoRAAdapter", "legal-1")
    assert world.get("Job", "legal-1-import")["metadata"]["uid"] != first


async def test_a_lost_result_is_imported_again() -> None:
    world = World()
    await importing(world)
    end(world, COMPLETE)
    result = await world.run("LoRAAdapter", "legal-1")
    assert world.find("Job", "legal-1-import") is None
    assert result.requeue_after_seconds == 1.0
    await world.run("LoRAAdapter", "legal-1")
    assert world.find("Job", "legal-1-import")


async def test_another_digest_than_the_pinned_one_is_refused_with_both() -> None:
    world = World()
    pinned = "sha256:" + "d" * 64
    await importing(world, digest=pinned)
    await brought(world)
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Stalled") == ("True", "DigestMismatch")
    assert pinned in message(status, "Stalled")
    assert DIGEST in message(status, "Stalled")
    assert "digest" not in status


async def test_a_result_for_another_place_in_the_store_is_not_believed() -> None:
    world = World()
    await importing(world)
    stranger = {"source": "store://ml/medical/cccccccccccc", "digest": DIGEST, "rank": 8, "sizeBytes": 1}
    await brought(world, word(adapter=stranger))
    assert condition(world.status("LoRAAdapter", "legal-1"), "Stalled") == ("True", "ImportFailed")


async def test_a_status_that_was_lost_is_read_again_from_the_job_that_has_ended() -> None:
    world = World()
    await importing(world)
    world.import_pod(phase="Succeeded", main=(container("import", ended=(0, word())),))
    world.cluster.fail = lambda verb, kind: None
    obj = world.get("LoRAAdapter", "legal-1")
    world.cluster.seed({key: value for key, value in obj.items() if key != "status"})
    await world.run("LoRAAdapter", "legal-1")
    assert world.status("LoRAAdapter", "legal-1")["digest"] == DIGEST


async def test_a_spoiled_status_is_not_believed() -> None:
    world = World()
    await importing(world)
    obj = world.get("LoRAAdapter", "legal-1")
    world.cluster.seed({**obj, "status": {"digest": "sha256:xyz", "source": "store://ml/legal/x", "rank": 8}})
    await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Importing")


async def test_an_account_that_is_not_allowed_makes_no_job() -> None:
    world = World()
    await importing(world, source="s3://foreign/legal", serviceAccountName="admin")
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Stalled") == ("True", "ServiceAccountNotAllowed")
    assert world.find("Job", "legal-1-import") is None
    allowing = World(Config.model_validate({**STORE.model_dump(), "allowed_service_accounts": ["admin"]}))
    await importing(allowing, source="s3://foreign/legal", serviceAccountName="admin")
    assert allowing.get("Job", "legal-1-import")["spec"]["template"]["spec"]["serviceAccountName"] == "admin"


async def test_a_deletion_while_it_is_imported_waits_for_nobody() -> None:
    world = World()
    await serving(world)
    await importing(world)
    world.delete("LoRAAdapter", "legal-1")
    await world.run("LoRAAdapter", "legal-1")
    assert world.get("LoRAAdapter", "legal-1")["metadata"]["finalizers"] == []


async def test_a_pod_that_cannot_start_is_named() -> None:
    world = World()
    await importing(world)
    world.import_pod(unschedulable="0/2 nodes are available")
    await world.run("LoRAAdapter", "legal-1")
    status = world.status("LoRAAdapter", "legal-1")
    assert condition(status, "Ready") == ("False", "Unschedulable")
    assert "0/2 nodes" in message(status, "Ready")


async def test_a_job_that_may_make_no_pod_says_so_and_where_to_look() -> None:
    world = World()
    await importing(world)
    job = world.get("Job", "legal-1-import")
    world.cluster.seed({**job, "metadata": {**job["metadata"], "creationTimestamp": "2026-11-21T13:00:00Z"}})
    await world.clock.advance(5)
    result = await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Importing")
    assert result.requeue_after_seconds == 15
    await world.clock.advance(15)
    result = await world.run("LoRAAdapter", "legal-1")
    status = world.status("LoRAAdapter", "legal-1")
    assert (condition(status, "Ready"), condition(status, "Stalled")[0]) == (("False", "PodsRefused"), "False")
    assert "kubectl describe job legal-1-import" in message(status, "Ready")
    assert result.requeue_after_seconds == 30
    world.import_pod(phase="Running", init=(container("download", running=True),))
    await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Importing")


async def test_a_job_that_was_resumed_a_moment_ago_is_not_blamed_for_the_time_of_its_suspension() -> None:
    world = World()
    await importing(world)
    job = world.get("Job", "legal-1-import")
    world.cluster.seed(
        {**job, "metadata": {**job["metadata"], "creationTimestamp": "2026-11-21T12:00:00Z"}, "status": {"startTime": "2026-11-21T13:00:00Z"}}
    )
    await world.clock.advance(5)
    result = await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Importing")
    assert result.requeue_after_seconds == 15


async def test_a_job_that_is_being_deleted_is_missed_no_pod() -> None:
    world = World()
    await importing(world)
    job = world.get("Job", "legal-1-import")
    times = {"creationTimestamp": "2026-11-21T12:00:00Z", "deletionTimestamp": "2026-11-21T13:00:00Z"}
    world.cluster.seed({**job, "metadata": {**job["metadata"], **times}})
    await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Importing")


async def test_a_job_of_that_name_that_is_somebody_elses_is_left_alone() -> None:
    world = World()
    world.cluster.seed({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "ml", "name": "legal-1-import", "labels": {}}, "spec": {}})
    await importing(world)
    assert condition(world.status("LoRAAdapter", "legal-1"), "Stalled") == ("True", "NameTaken")
