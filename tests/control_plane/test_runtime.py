"""The operator's client, diff, Events and Lease against the real API server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from graftwork import errors
from graftwork.clock import SystemClock
from graftwork.cluster import client as client_module
from graftwork.cluster.client import Cluster
from graftwork.cluster.connect import connect
from graftwork.cluster.events import EventRecorder
from graftwork.cluster.lease import Lease
from graftwork.cluster.mirror import Mirror
from graftwork.config import LeaseConfig
from graftwork.reconcile.children import owned
from graftwork.reconcile.diff import needs_apply

from tests.control_plane.api_server import ApiServer
from tests.control_plane.objects import Objects

CONTAINER: dict[str, Any] = {
    "name": "vllm",
    "image": "vllm:1",
    "args": [],
    "command": ["python3", "-m", "vllm"],
    "env": [
        {"name": "EMPTY", "value": ""},
        {"name": "FIRST", "value": "1"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "k", "optional": True}}},
    ],
    "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi", "nvidia.com/gpu": 1}, "requests": {"cpu": 0.5, "nvidia.com/gpu": 1}},
    "ports": [{"name": "http", "containerPort": 8000}],
    "readinessProbe": {"httpGet": {"path": "/graftwork/ready", "port": "http"}, "initialDelaySeconds": 0, "periodSeconds": 5},
    "volumeMounts": [{"name": "bin", "mountPath": "/bin2", "readOnly": False}, {"name": "run", "mountPath": "/run2", "subPath": ""}],
}
POD_SPEC: dict[str, Any] = {
    "enableServiceLinks": False,
    "automountServiceAccountToken": False,
    "hostNetwork": False,
    "nodeSelector": {},
    "tolerations": [],
    "imagePullSecrets": [],
    "initContainers": [{"name": "install", "image": "agent:1"}, {"name": "agent", "image": "agent:1", "restartPolicy": "Always"}],
    "containers": [CONTAINER],
    "volumes": [
        {"name": "bin", "emptyDir": {}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
        {"name": "config", "configMap": {"name": "x", "optional": False}},
        {
            "name": "info",
            "downwardAPI": {"items": [{"path": "hash", "fieldRef": {"fieldPath": "metadata.annotations['graftwork.dev/adapters-hash']"}}]},
        },
    ],
}
LABELS = {"graftwork.dev/deployment": "one"}
CHILDREN: dict[str, dict[str, Any]] = {
    "Deployment": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one", "labels": LABELS},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": LABELS},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": LABELS, "annotations": {}}, "spec": POD_SPEC},
        },
    },
    "Service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one"},
        "spec": {"selector": LABELS, "ports": [{"name": "http", "port": 8000, "targetPort": "http"}], "publishNotReadyAddresses": False},
    },
    "ConfigMap": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"adapters.json": "{}", "empty": ""}},
    "PodDisruptionBudget": {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "one"},
        "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": LABELS}},
    },
}


@pytest.fixture
async def cluster(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
    made = Cluster(await connect(), Mirror())
    yield made
    await made.close()


@pytest.fixture
def owner(objects: Objects) -> dict[str, Any]:
    return objects.made("LLMDeployment")


# --- diff before apply


@pytest.mark.parametrize("kind", CHILDREN)
async def test_what_was_applied_needs_no_apply_and_another_one_would_change_nothing(cluster: Cluster, owner: dict[str, Any], kind: str) -> None:
    child = owned(owner, CHILDREN[kind])
    applied = await cluster.apply(child)
    assert not needs_apply(child, applied)
    assert not needs_apply(child, cluster._mirror.get(kind, applied["metadata"]["namespace"], "one") or {})  # type: ignore[union-attr]
    assert (await cluster.apply(child))["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]


def changed(path: list[str | int], value: Any) -> dict[str, Any]:
    child = copy.deepcopy(CHILDREN["Deployment"])
    *parents, last = path
    target: Any = child
    for step in parents:
        target = target[step]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return child


TEMPLATE: list[str | int] = ["spec", "template", "spec"]
CHANGES: dict[str, tuple[list[str | int], Any]] = {
    "a value": ([*TEMPLATE, "containers", 0, "image"], "vllm:2"),
    "a removed probe": ([*TEMPLATE, "containers", 0, "readinessProbe"], None),
    "a removed variable": ([*TEMPLATE, "containers", 0, "env"], CONTAINER["env"][:2]),
    "a removed volume mount": ([*TEMPLATE, "containers", 0, "volumeMounts"], CONTAINER["volumeMounts"][:1]),
    "no args any more": ([*TEMPLATE, "containers", 0, "command"], ["python3"]),
    "init containers in another order": ([*TEMPLATE, "initContainers"], POD_SPEC["initContainers"][::-1]),
    "a new false": ([*TEMPLATE, "shareProcessNamespace"], False),
    "a quantity": ([*TEMPLATE, "containers", 0, "resources", "limits", "memory"], "2Gi"),
    "a removed label": (["metadata", "labels"], {}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_needs_an_apply_and_is_settled_by_one(cluster: Cluster, owner: dict[str, Any], change: str) -> None:
    applied = await cluster.apply(owned(owner, CHILDREN["Deployment"]))
    child = owned(owner, changed(*CHANGES[change]))
    assert needs_apply(child, applied)
    assert not needs_apply(child, await cluster.apply(child))


async def test_a_change_by_somebody_else_needs_an_apply(cluster: Cluster, owner: dict[str, Any], admin: httpx.Client) -> None:
    child = owned(owner, CHILDREN["ConfigMap"])
    await cluster.apply(child)
    path = f"/api/v1/namespaces/{owner['metadata']['namespace']}/configmaps/one"
    theirs = admin.patch(path, json={"data": {"adapters.json": "[]"}}, headers={"Content-Type": "application/merge-patch+json"}).json()
    assert needs_apply(child, theirs)
    assert (await cluster.apply(child))["data"]["adapters.json"] == "{}"


async def test_what_somebody_else_added_stays_and_needs_no_apply(cluster: Cluster, owner: dict[str, Any], admin: httpx.Client) -> None:
    child = owned(owner, CHILDREN["Deployment"])
    await cluster.apply(child)
    path = f"/apis/apps/v1/namespaces/{owner['metadata']['namespace']}/deployments/one"
    restart = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}
    theirs = admin.patch(path, json=restart, headers={"Content-Type": "application/merge-patch+json"}).json()
    assert not needs_apply(child, theirs)


# --- the client


async def test_status_is_replaced_as_a_whole_and_only_if_nothing_changed(cluster: Cluster, owner: dict[str, Any]) -> None:
    metadata = owner["metadata"]
    address = ("LLMDeployment", metadata["namespace"], metadata["name"])
    first = await cluster.patch_status(*address, {"replicas": 1, "summary": "x"}, metadata["resourceVersion"])
    second = await cluster.patch_status(*address, {"replicas": 2}, first["metadata"]["resourceVersion"])
    assert second["status"] == {"replicas": 2}
    with pytest.raises(errors.Conflict):
        await cluster.patch_status(*address, {"replicas": 3}, metadata["resourceVersion"])
    assert (await cluster.get(*address) or {})["status"] == {"replicas": 2}
    assert second["metadata"]["generation"] == metadata["generation"]


async def test_finalizers_are_set_only_if_nothing_changed(cluster: Cluster, owner: dict[str, Any]) -> None:
    with_one = await cluster.set_finalizers("LLMDeployment", owner, ["graftwork.dev/finalizer"])
    assert with_one["metadata"]["finalizers"] == ["graftwork.dev/finalizer"]
    with pytest.raises(errors.Conflict):
        await cluster.set_finalizers("LLMDeployment", owner, [])
    assert "finalizers" not in (await cluster.set_finalizers("LLMDeployment", with_one, []))["metadata"]


async def test_errors_have_their_types_and_say_what_was_asked(cluster: Cluster, namespace: str) -> None:
    config_map = {**CHILDREN["ConfigMap"], "metadata": {"name": "one", "namespace": namespace}}
    assert await cluster.get("ConfigMap", namespace, "one") is None
    await cluster.create(config_map)
    with pytest.raises(errors.AlreadyExists, match=f"create ConfigMap {namespace}"):
        await cluster.create(config_map)
    with pytest.raises(errors.NotFound):
        await cluster.patch_status("LLMDeployment", namespace, "none", {}, "1")
    with pytest.raises(errors.NotFound):
        await cluster.annotate_pod(namespace, "none", {"a": "b"})
    with pytest.raises(errors.Invalid, match="must be between 1 and 65535"):
        await cluster.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": namespace}, "spec": {"ports": [{"port": 99999}]}}
        )


async def test_delete_is_content_when_the_object_is_gone_and_spares_a_successor(cluster: Cluster, namespace: str) -> None:
    config_map = {**CHILDREN["ConfigMap"], "metadata": {"name": "one", "namespace": namespace}}
    made = await cluster.create(config_map)
    await cluster.delete("ConfigMap", namespace, "one", uid="another")
    assert await cluster.get("ConfigMap", namespace, "one")
    await cluster.delete("ConfigMap", namespace, "one", uid=made["metadata"]["uid"])
    await cluster.delete("ConfigMap", namespace, "one", uid=made["metadata"]["uid"])
    assert await cluster.get("ConfigMap", namespace, "one") is None


async def test_an_annotation_of_a_pod_is_set_and_removed(cluster: Cluster, namespace: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace, "annotations": {"kept": "1"}}}
    await cluster.create({**pod, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    assert (await cluster.annotate_pod(namespace, "p", {"a": "b"}))["metadata"]["annotations"] == {"kept": "1", "a": "b"}
    assert (await cluster.annotate_pod(namespace, "p", {"a": None}))["metadata"]["annotations"] == {"kept": "1"}


async def test_a_long_listing_is_complete(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    for number in range(5):
        metadata = {"name": f"m{number}", "namespace": namespace, "labels": {"odd": str(number % 2)}}
        await cluster.create({**CHILDREN["ConfigMap"], "metadata": metadata})
    assert [obj["metadata"]["name"] for obj in await cluster.list("ConfigMap", namespace)] == ["m0", "m1", "m2", "m3", "m4"]
    assert [obj["metadata"]["name"] for obj in await cluster.list("ConfigMap", namespace, {"odd": "1"})] == ["m1", "m3"]
    assert (await cluster.list("ConfigMap", namespace))[0]["kind"] == "ConfigMap"


async def test_what_was_written_is_in_the_mirror_when_the_write_returns(cluster: Cluster, owner: dict[str, Any]) -> None:
    mirror = cluster._mirror
    assert mirror is not None
    namespace = owner["metadata"]["namespace"]
    applied = await cluster.apply(owned(owner, CHILDREN["ConfigMap"]))
    known = mirror.get("ConfigMap", namespace, "one")
    assert known is not None
    assert known["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]


async def test_a_late_not_found_does_not_hide_a_successor(cluster: Cluster, owner: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = cluster._mirror
    assert mirror is not None
    metadata = owner["metadata"]
    mirror.put(owner)
    successor = {**owner, "metadata": {**metadata, "uid": "second", "resourceVersion": str(int(metadata["resourceVersion"]) + 9)}}

    async def late(*_: Any, **__: Any) -> Any:
        mirror.remove("LLMDeployment", metadata["namespace"], metadata["name"], metadata["uid"], metadata["resourceVersion"])
        mirror.put(successor)
        raise errors.NotFound("gone")

    monkeypatch.setattr(cluster, "_send", late)
    with pytest.raises(errors.NotFound):
        await cluster.patch_status("LLMDeployment", metadata["namespace"], metadata["name"], {}, metadata["resourceVersion"])
    known = mirror.get("LLMDeployment", metadata["namespace"], metadata["name"])
    assert known
    assert known["metadata"]["uid"] == "second"


async def test_an_api_server_that_is_not_there_is_unavailable(api_server: ApiServer, cluster: Cluster, namespace: str) -> None:
    cluster.configuration.host = "https://127.0.0.1:1"
    with pytest.raises(errors.Unavailable, match="does not answer"):
        await cluster.get("ConfigMap", namespace, "one")
    with pytest.raises(errors.Unavailable, match="does not answer"):
        await cluster.create({**CHILDREN["ConfigMap"], "metadata": {"name": "one", "namespace": namespace}})


async def test_nothing_is_written_once_the_lease_has_expired(cluster: Cluster, namespace: str) -> None:
    config_map = {**CHILDREN["ConfigMap"], "metadata": {"name": "one", "namespace": namespace}}
    await cluster.create(config_map)
    cluster.may_write = lambda: False
    for write in (cluster.apply({**config_map, "data": {}}), cluster.delete("ConfigMap", namespace, "one"), cluster.annotate_pod(namespace, "p", {})):
        with pytest.raises(errors.LeaseLost):
            await write
    assert (await cluster.get("ConfigMap", namespace, "one") or {})["data"] == CHILDREN["ConfigMap"]["data"]


async def test_an_event_is_accepted_and_shown_for_its_object(cluster: Cluster, owner: dict[str, Any], api_server: ApiServer) -> None:
    recorder = EventRecorder(cluster, SystemClock(), "operator-1")
    task = asyncio.create_task(recorder.run())
    recorder.record(owner, "NotServing", "no pod answers", warning=True)
    await recorder.drain()
    task.cancel()
    shown = api_server.run("kubectl", "describe", "llmdeployment", "one", "-n", owner["metadata"]["namespace"]).stdout
    assert "Warning  NotServing" in shown
    assert "no pod answers" in shown


# --- the Lease


async def test_a_lease_passes_from_one_to_the_other_and_the_loser_knows(cluster: Cluster, namespace: str) -> None:
    config = LeaseConfig(name="operator", namespace=namespace, duration_seconds=3, renew_seconds=0.2)
    first, second = (Lease(cluster, SystemClock(), config, holder) for holder in ("a", "b"))
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    keeping = asyncio.create_task(first.keep())
    done, _ = await asyncio.wait({waiting, keeping}, timeout=1)
    assert not done
    await cluster.merge("Lease", namespace, "operator", {"spec": {"holderIdentity": ""}})
    with pytest.raises(errors.LeaseLost):
        await keeping
    await asyncio.wait_for(waiting, 10)
    assert second.held
    assert ((await cluster.get("Lease", namespace, "operator")) or {})["spec"]["holderIdentity"] == "b"


async def test_two_that_take_a_free_lease_at_once_are_told_apart(cluster: Cluster, namespace: str) -> None:
    config = LeaseConfig(name="operator", namespace=namespace, duration_seconds=60, renew_seconds=1)
    leases = [Lease(cluster, SystemClock(), config, holder) for holder in "abcd"]
    tasks = [asyncio.create_task(lease.acquire()) for lease in leases]
    done, pending = await asyncio.wait(tasks, timeout=2)
    for task in pending:
        task.cancel()
    assert len(done) == 1
    assert sum(lease.held for lease in leases) == 1
