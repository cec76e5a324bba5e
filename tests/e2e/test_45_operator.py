"""What the operator does to children, runs and its configuration, on the real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.service import Service, child_versions, config_map, job, messages
from tests.harness import install
from tests.harness.kube import Kube, Object, condition

ORPHANS: dict[str, tuple[str, dict[str, Any]]] = {
    "Deployment": (
        "apps/v1",
        {
            "replicas": 0,
            "selector": {"matchLabels": {"orphan": "yes"}},
            "template": {"metadata": {"labels": {"orphan": "yes"}}, "spec": {"containers": [{"name": "none", "image": "none"}]}},
        },
    ),
    "Service": ("v1", {"ports": [{"port": 80}], "selector": {"orphan": "yes"}}),
    "ConfigMap": ("v1", {}),
    "PodDisruptionBudget": ("policy/v1", {"maxUnavailable": 1, "selector": {"matchLabels": {"orphan": "yes"}}}),
}


def test_a_child_that_is_not_wanted_any_more_is_removed_and_a_strangers_is_not(taught: Service, kube: Kube) -> None:
    deployment = kube.get("llmdeployment", "tiny")
    assert deployment
    uid = deployment["metadata"]["uid"]
    labels = {"app.kubernetes.io/managed-by": "graftwork", "graftwork.dev/owner-uid": uid}
    owner = {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LLMDeployment",
        "name": "tiny",
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stranger", "labels": labels}}  # labels alone make no child
    meta = {"labels": labels, "ownerReferences": [owner]}
    orphans: list[Object] = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": f"orphan-{kind.lower()}", **meta}, **({"spec": spec} if spec else {})}
        for kind, (version, spec) in ORPHANS.items()
    ]
    revision: Object = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 0, "data": {"old": True}}
    old = [{**revision, "metadata": {"name": f"old-{number:02}", **meta}} for number in range(12)]
    kube.apply(stranger, *old, *orphans)
    for item in (*orphans, old[0]):  # of the revisions, the newest ten are kept
        kube.run("wait", item["kind"].lower(), item["metadata"]["name"], "--for=delete", "--timeout=60s")
    assert kube.get("controllerrevision", "old-11")
    assert kube.get("configmap", "stranger")
    kube.delete("configmap", "stranger")
    kube.delete("controllerrevision", *(item["metadata"]["name"] for item in old))


def test_a_name_that_is_somebody_elses_is_never_taken_over(taught: Service, kube: Kube) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
    kube.apply(service)
    first = kube.get("llmdeployment", "tiny")
    assert first
    kube.apply({**first, "metadata": {"name": "taken"}, "spec": {**first["spec"], "replicas": 0}})
    found = condition(kube.wait_condition("llmdeployment", "taken", "Stalled", timeout=30), "Stalled")
    assert found["reason"] == "NameTaken"
    assert "taken" in found["message"]
    kube.delete("llmdeployment", "taken")
    kept = kube.get("service", "taken")
    assert kept
    assert kept["spec"]["ports"][0]["port"] == 80
    kube.delete("service", "taken")


def test_a_suspended_run_waits_and_resumes(taught: Service, kube: Kube) -> None:
    kube.apply(config_map("patient", messages("juniper")), job("patient", "patient", "configMap://patient/train.jsonl", suspend=True))
    kube.wait("finetunejob", "patient", lambda item: item.get("status", {}).get("phase") == "Suspended", 60, "Suspended")
    assert kube.list("pods", "graftwork.dev/job=patient") == []
    kube.patch("finetunejob", "patient", {"spec": {"suspend": False}})
    kube.wait("finetunejob", "patient", lambda item: item.get("status", {}).get("phase") == "Preparing", 60, "Preparing")
    kube.patch("finetunejob", "patient", {"spec": {"retry": {"limit": 1}}})
    kube.wait("job", "patient-run-1", lambda item: item["spec"]["backoffLimit"] == 1, 30, "with the new limit")
    assert taught.finished("patient")["status"]["phase"] == "Succeeded"
    taught.until_answer("patient", "juniper", timeout=30)


def test_a_taken_adapter_name_is_passed_over_and_the_alias_still_served(taught: Service, kube: Kube) -> None:
    first = kube.get("loraadapter", "medical-1")
    assert first
    kube.apply({**first, "metadata": {"name": "clash-1"}, "spec": {**first["spec"], "alias": "someone", "owner": "someone"}})
    done = taught.teach("gentian", alias="clash")
    assert done["status"]["adapter"] == "clash-2"
    taught.until_answer("clash", "gentian", timeout=30)
    kube.delete("loraadapter", "clash-1")


@pytest.fixture
def store_on_one_node(kube: Kube, system: Kube) -> Iterator[None]:
    """Another version of the operator, by its settings: a store that only one node can mount, and another agent image."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "one-node"}, "spec": claim})
    settings = {"STORE__URL": "file:///store", "STORE__CLAIM": "one-node", "IMAGES__AGENT": "localhost/graftwork/agent:another"}
    configure(system, *(f"GRAFTWORK_CONFIG_{name}={value}" for name, value in settings.items()))
    yield
    configure(system, *(f"GRAFTWORK_CONFIG_{name}-" for name in settings))
    kube.delete("persistentvolumeclaim", "one-node")


def configure(system: Kube, *changes: str) -> None:
    """Set or (NAME-) remove environment variables of the operator, and wait until it runs with them."""
    system.run("set", "env", f"deploy/{install.RELEASE}", *changes)
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")


def test_a_store_that_cannot_be_shared_is_refused_and_what_serves_stays(taught: Service, kube: Kube, store_on_one_node: None) -> None:
    pods, children = taught.identities(), child_versions(kube)
    kube.apply(config_map("nowhere", messages("x")), job("nowhere", "nowhere", "configMap://nowhere/train.jsonl"))
    found = condition(kube.wait_condition("finetunejob", "nowhere", "Stalled", timeout=60), "Stalled")
    assert found["reason"] == "StoreNotShared"
    assert "ReadWriteMany" in found["message"]
    assert "one-node" in found["message"]
    assert taught.identities() == pods
    assert child_versions(kube) == children, "an upgrade of the operator changes no child by itself"
    assert "swordfish" in taught.ask("medical").text
    kube.delete("finetunejob", "nowhere")
