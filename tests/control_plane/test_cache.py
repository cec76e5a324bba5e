"""A shared cache on a real API server: the claim is admitted, written once, grown where its class allows that, and never shrunk."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from graftwork.plan import cache
from graftwork.status.conditions import find

from tests.control_plane.test_reconcile import Operator, make, operator

__all__ = ["operator"]

CASE, CLAIM, NAME = "serving-shared-hub", "tiny-cache", "tiny"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


@pytest.fixture
def files(admin: httpx.Client) -> Any:
    """The case's class, whose volumes may grow."""
    body = {"metadata": {"name": "shared-files"}, "provisioner": "efs.csi.aws.com", "allowVolumeExpansion": True}
    admin.post(CLASSES, json={"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **body}).raise_for_status()
    yield
    admin.delete(f"{CLASSES}/shared-files").raise_for_status()


@pytest.fixture
async def begun(operator: Operator, files: None) -> Operator:
    """The case's deployment, whose fill is asked for."""
    await make(operator, CASE)
    await operator.run("LLMDeployment", NAME)
    return operator


async def claim(operator: Operator) -> dict[str, Any]:
    found = await operator.cluster.get("PersistentVolumeClaim", operator.namespace, CLAIM)
    assert found
    return found


async def size(operator: Operator) -> str:
    return str((await claim(operator))["spec"]["resources"]["requests"]["storage"])


async def bound(operator: Operator, admin: httpx.Client) -> None:
    """Give the claim its volume, as a provisioner and the controllers do, since only such a claim may grow."""
    found, volume = await claim(operator), f"{operator.namespace}-{CLAIM}"
    spec = {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "18Gi"},
        "storageClassName": "shared-files",
        "nfs": {"server": "files.example.com", "path": "/"},
        "claimRef": {"namespace": operator.namespace, "name": CLAIM, "uid": found["metadata"]["uid"]},
    }
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec}
    admin.post("/api/v1/persistentvolumes", json=body).raise_for_status()
    path = f"/api/v1/namespaces/{operator.namespace}/persistentvolumeclaims/{CLAIM}"
    merge = {"Content-Type": "application/merge-patch+json"}
    admin.patch(path, json={"spec": {"volumeName": volume}}, headers=merge).raise_for_status()
    status = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "18Gi"}}
    admin.patch(f"{path}/status", json={"status": status}, headers=merge).raise_for_status()


async def resized(operator: Operator, wanted: str) -> None:
    await operator.cluster.merge("LLMDeployment", operator.namespace, NAME, {"spec": {"cache": {"size": wanted}}})
    await operator.run("LLMDeployment", NAME)


async def test_claim_and_job_are_admitted_owned_and_written_once(begun: Operator) -> None:
    before = await begun.versions()
    assert {name.split("/")[0] for name in before} >= {"PersistentVolumeClaim", "Job", "Service", "ConfigMap"}
    assert not [name for name in before if name.startswith(("Deployment/", "ControllerRevision/"))]
    assert (await claim(begun))["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"
    assert await size(begun) == "18Gi"
    for _ in range(2):
        await begun.run("LLMDeployment", NAME)
    assert await begun.versions() == before


async def test_a_claim_with_a_volume_grows_and_never_shrinks(begun: Operator, admin: httpx.Client) -> None:
    await bound(begun, admin)
    await resized(begun, "50Gi")
    assert await size(begun) == "50Gi"
    await resized(begun, "20Gi")
    assert await size(begun) == "50Gi"
    before = await begun.versions()
    await begun.run("LLMDeployment", NAME)
    assert await begun.versions() == before


async def test_when_it_is_filled_pods_are_admitted_that_only_read_it(begun: Operator, admin: httpx.Client, namespace: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    admin.patch(f"/api/v1/namespaces/{namespace}", json=label, headers={"Content-Type": "application/merge-patch+json"}).raise_for_status()
    (job,) = await begun.cluster.list("Job", namespace)
    now = "2026-11-21T13:00:00Z"
    done = {"status": "True", "lastTransitionTime": now, "lastProbeTime": now}
    conditions = [{"type": "SuccessCriteriaMet", **done}, {"type": "Complete", **done}]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions, "uncountedTerminatedPods": {}}
    answer = admin.patch(
        f"/apis/batch/v1/namespaces/{namespace}/jobs/{job['metadata']['name']}/status",
        json={"status": status},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert answer.status_code == 200, answer.text
    await begun.run("LLMDeployment", NAME)
    made = await begun.cluster.get("Deployment", namespace, NAME)
    assert made
    spec = made["spec"]["template"]["spec"]
    assert cache.mounted(spec, CLAIM) == cache.asked(job)[0]
    assert "HF_TOKEN" not in str(spec)
    spec.pop("priorityClassName")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", json=pod)
    assert answer.status_code == 201, answer.text
    found = await begun.cluster.get("LLMDeployment", namespace, NAME)
    assert found
    assert find(found["status"]["conditions"], "ModelCached")["status"] == "True"
    await begun.run("LLMDeployment", NAME)
    before = await begun.versions()
    assert not [name for name in before if name.startswith("Job/")], "it has nothing more to say"
    await begun.run("LLMDeployment", NAME)
    assert await begun.versions() == before
