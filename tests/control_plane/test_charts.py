"""The charts on a real API server: every object is valid, keys survive an upgrade, the rights are what the rules say, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from graftwork.config import load

from tests.control_plane.api_server import ApiServer
from tests.control_plane.conftest import ROOT
from tests.control_plane.schemas import write_schemas

SYSTEM = "graftwork-system"
OPERATOR = f"system:serviceaccount:{SYSTEM}:graftwork"
GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}", "system:authenticated")
EVERYTHING = {
    "store": {"embedded": {"enabled": True, "namespaces": ["ml"], "buckets": ["graftwork", "models"]}},
    "argocd": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "prometheus": {"url": "http://prometheus.monitoring:9090"},
    "imagePullSecrets": ["registry"],
    "tolerations": [{"operator": "Exists"}],
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "serving", "namespace": "ml", "labels": {"graftwork.dev/deployment": "support"}, "annotations": {"kept": "1"}},
    "spec": {"automountServiceAccountToken": False, "containers": [{"name": "vllm", "image": "vllm:1"}]},
}


def helm(server: ApiServer, *arguments: str, values: dict[str, Any] | None = None, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    more = ["--values", "-"] if values is not None else []
    done = server.run("helm", *arguments, *more, input=json.dumps(values or {}), cwd=ROOT)
    assert (done.returncode == 0) is succeeds, done.stderr
    return done


@pytest.fixture(scope="module")
def installed(api_server: ApiServer) -> Iterator[httpx.Client]:
    """The chart `graftwork` with everything switched on; yields an administrator's client."""
    with api_server.client() as admin:
        for name in (SYSTEM, "ml"):
            admin.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
        helm(api_server, "install", "graftwork", "charts/graftwork", "-n", SYSTEM, values=EVERYTHING)
        yield admin
        helm(api_server, "uninstall", "graftwork", "-n", SYSTEM, "--ignore-not-found")


@pytest.fixture(scope="module")
def operator(api_server: ApiServer, installed: httpx.Client) -> Iterator[httpx.Client]:
    """A client with the operator's account."""
    with api_server.client(OPERATOR, GROUPS) as client:
        yield client


@pytest.fixture(scope="module")
def pod(installed: httpx.Client, operator: httpx.Client) -> str:
    """The path of a serving pod, once the admission policy is in force (the API server learns of it by a watch)."""
    installed.post("/api/v1/namespaces/ml/pods", json=POD).raise_for_status()
    path = "/api/v1/namespaces/ml/pods/serving"
    deadline = time.monotonic() + 30
    while patch(operator, f"{path}?dryRun=All", {"metadata": {"labels": {"probe": "1"}}}).status_code == 200:
        assert time.monotonic() < deadline, "the admission policy did not come into force"
    return path


@pytest.fixture(scope="module")
def schemas(admin: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where kubeconform finds the schemas of this API server."""
    return write_schemas(admin, tmp_path_factory.mktemp("schemas"))


def patch(client: httpx.Client, path: str, body: Any) -> httpx.Response:
    return client.patch(path, json=body, headers={"Content-Type": "application/merge-patch+json"})


@pytest.mark.parametrize("chart", ["graftwork", "graftwork-crds"])
def test_chart_passes_lint(bare_api_server: ApiServer, chart: str) -> None:
    helm(bare_api_server, "lint", "--strict", f"charts/{chart}")


@pytest.mark.parametrize("chart", ["graftwork", "graftwork-crds"])
def test_chart_passes_its_unit_tests(bare_api_server: ApiServer, chart: str) -> None:
    done = bare_api_server.run("helm-unittest", f"charts/{chart}", cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"watchNamespaces": ["ml", "demo"]}], ids=["defaults", "everything", "namespaced"])
def test_every_rendered_object_is_valid(api_server: ApiServer, schemas: str, values: dict[str, Any]) -> None:
    rendered = helm(api_server, "template", "graftwork", "charts/graftwork", "-n", SYSTEM, values=values).stdout
    done = api_server.run("kubeconform", "-strict", "-summary", "-schema-location", schemas, input=rendered)
    assert done.returncode == 0, done.stdout
    assert "Skipped: 0" in done.stdout


def test_validity_check_would_notice_an_unknown_field(api_server: ApiServer, schemas: str) -> None:
    broken = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {}, template: {spec: {container: []}}}\n"
    done = api_server.run("kubeconform", "-strict", "-schema-location", schemas, input=broken)
    assert done.returncode == 1
    assert "container" in done.stdout


def test_crds_chart_renders_the_committed_crds(bare_api_server: ApiServer) -> None:
    rendered = list(yaml.safe_load_all(helm(bare_api_server, "template", "x", "charts/graftwork-crds").stdout))
    committed = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert [item["spec"] for item in rendered if item] == [item["spec"] for item in committed]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, ""),
        (EVERYTHING, "s3://graftwork/store"),
        ({"watchNamespaces": ["ml"], "store": {"url": "file:///store", "claim": "shared"}, "allowedServiceAccounts": ["reader"]}, "file:///store"),
    ],
    ids=["defaults", "everything", "claim"],
)
def test_operator_accepts_the_configuration_that_the_chart_writes(
    bare_api_server: ApiServer, tmp_path: Path, values: dict[str, Any], url: str
) -> None:
    rendered = helm(bare_api_server, "template", "graftwork", "charts/graftwork", "-n", SYSTEM, values=values).stdout
    (config,) = [item for item in yaml.safe_load_all(rendered) if item and "config.yaml" in item.get("data", {})]
    (tmp_path / "config.yaml").write_text(config["data"]["config.yaml"])
    loaded = load({"GRAFTWORK_CONFIG": str(tmp_path / "config.yaml")})
    assert loaded.lease.namespace == SYSTEM
    assert loaded.store.url == url
    assert loaded.store.retain_seconds == 7 * 86_400
    assert loaded.allowed_service_accounts == tuple(values.get("allowedServiceAccounts", ()))


# --- what the operator may do


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/secrets"),
        ("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/graftwork-store"),
        ("GET", "/api/v1/nodes"),
        ("POST", "/api/v1/namespaces/ml/pods"),
        ("DELETE", "/api/v1/namespaces/ml/pods/serving"),
        ("POST", "/api/v1/namespaces/ml/pods/serving/exec?command=sh"),
        ("POST", "/api/v1/namespaces/ml/serviceaccounts"),
        ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/another"),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/ml/leases/graftwork-operator"),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
        ("DELETE", "/apis/graftwork.dev/v1alpha1/namespaces/ml/llmdeployments/support"),
        ("POST", "/apis/graftwork.dev/v1alpha1/namespaces/ml/finetunejobs"),
        ("PATCH", "/apis/graftwork.dev/v1alpha1/namespaces/ml/llmdeployments/support"),
    ],
)
def test_operator_may_not(operator: httpx.Client, method: str, path: str) -> None:
    answer = operator.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 403, answer.text


def test_operator_may_read_and_renew_its_lease(operator: httpx.Client) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/graftwork-operator"
    assert "holderIdentity" not in operator.get(path).raise_for_status().json().get("spec", {})
    patch(operator, path, {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}).raise_for_status()


def test_operator_may_make_children_and_watch_its_kinds(operator: httpx.Client) -> None:
    for plural in ("llmdeployments", "finetunejobs", "loraadapters"):
        operator.get(f"/apis/graftwork.dev/v1alpha1/{plural}").raise_for_status()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "support-adapters", "namespace": "ml"}, "data": {"adapters.json": "{}"}}
    operator.patch(
        "/api/v1/namespaces/ml/configmaps/support-adapters?fieldManager=graftwork&force=true",
        content=json.dumps(config),
        headers={"Content-Type": "application/apply-patch+yaml"},
    ).raise_for_status()


# --- the admission policy


def test_operator_may_change_its_annotation_of_a_pod(operator: httpx.Client, pod: str) -> None:
    for value in ("a" * 64, "b" * 64, None):
        patch(operator, pod, {"metadata": {"annotations": {"graftwork.dev/adapters-hash": value}}}).raise_for_status()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"spec": {"containers": [{"name": "vllm", "image": "evil:1"}]}}, "may not change the spec of a pod"),
        ({"spec": {"activeDeadlineSeconds": 1}}, "may not change the spec of a pod"),
        ({"metadata": {"labels": {"graftwork.dev/deployment": "other"}}}, "may not change the labels of a pod"),
        ({"metadata": {"labels": None}}, "may not change the labels of a pod"),
        ({"metadata": {"annotations": {"other": "1"}}}, "may change no annotation of a pod but graftwork.dev/adapters-hash"),
        ({"metadata": {"annotations": {"kept": "2"}}}, "may change no annotation of a pod but graftwork.dev/adapters-hash"),
        ({"metadata": {"annotations": {"kept": None}}}, "may change no annotation of a pod but graftwork.dev/adapters-hash"),
        ({"metadata": {"annotations": None}}, "may change no annotation of a pod but graftwork.dev/adapters-hash"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "may not change the finalizers of a pod"),
        (
            {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]}},
            "may not change the owners of a pod",
        ),
    ],
    ids=str,
)
def test_operator_may_change_nothing_else_of_a_pod(operator: httpx.Client, pod: str, body: dict[str, Any], what: str) -> None:
    answer = patch(operator, pod, body)
    assert answer.status_code == 422, answer.text
    assert what in answer.json()["message"]


def test_policy_holds_against_nobody_else(installed: httpx.Client, pod: str) -> None:
    patch(installed, pod, {"metadata": {"labels": {"someone": "else"}}}).raise_for_status()


# --- life of the release


def test_keys_of_the_store_survive_an_upgrade(api_server: ApiServer, installed: httpx.Client) -> None:
    def secret(namespace: str) -> dict[str, str]:
        return dict(installed.get(f"/api/v1/namespaces/{namespace}/secrets/graftwork-store").raise_for_status().json()["data"])

    before = secret(SYSTEM)
    assert secret("ml") == before
    helm(api_server, "upgrade", "graftwork", "charts/graftwork", "-n", SYSTEM, values={**EVERYTHING, "logLevel": "debug"})
    assert secret(SYSTEM) == before
    assert secret("ml") == before


def test_uninstall_leaves_nothing(api_server: ApiServer, installed: httpx.Client) -> None:
    kinds = "deployments,services,secrets,configmaps,serviceaccounts,leases,roles,rolebindings,networkpolicies,persistentvolumeclaims"
    cluster = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    ours = ["-A", "-l", "app.kubernetes.io/name=graftwork", "-o", "name"]
    assert len(api_server.run("kubectl", "get", f"{kinds},{cluster}", *ours).stdout.split()) >= 15
    helm(api_server, "uninstall", "graftwork", "-n", SYSTEM)
    assert api_server.run("kubectl", "get", f"{kinds},{cluster}", *ours).stdout.split() == []
