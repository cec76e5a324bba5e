"""A second replica, and a node that goes, under load.

Kept-alive clients reach the second pod. A node that is lost costs what was sent to it before anybody knew. `kubectl drain` of it loses no
request, while a plain Deployment + Service on the same cluster loses some.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.kept import Kept, until_asked
from tests.e2e.service import DEPLOYMENT_READY_SECONDS, QUESTION, Service, container
from tests.harness import ask, install, machine
from tests.harness.install import Environment
from tests.harness.kube import Kube, Object
from tests.harness.load import Load

ENDPOINT_SECONDS = 120  # a node counts as lost when it has said nothing for 50 s, the controller manager's default
RULES_REQUESTS = 20  # complete ones, a few seconds: kube-proxy writes its rules within a second of the change, and says so to nobody


@pytest.fixture(scope="class")
def kept(taught: Service) -> Iterator[Kept]:
    """Clients whose connections are older than the second replica."""
    with Kept(taught.host, taught.port, official_model="medical", plain_model="tiny") as clients:
        yield clients


@pytest.fixture(scope="class")
def two_replicas(taught: Service, kept: Kept, kube: Kube) -> Iterator[Service]:
    """The service on both nodes."""
    kube.run("scale", "llmdeployment/tiny", "--replicas=2")
    kube.wait("llmdeployment", "tiny", lambda item: item.get("status", {}).get("readyReplicas") == 2, DEPLOYMENT_READY_SECONDS, "two ready replicas")
    yield taught
    kube.run("scale", "llmdeployment/tiny", "--replicas=1")
    kube.wait("llmdeployment", "tiny", lambda item: item.get("status", {}).get("replicas") == 1, 180, "one replica")


class TestTwoReplicas:
    """One on each node. What is lost comes back as it was, so the drain finds the same two pods."""

    def test_clients_that_keep_their_connections_reach_the_new_pod(self, two_replicas: Service, kept: Kept) -> None:
        pods = two_replicas.pods()
        assert len(pods) == 2
        reached = until_asked(pods, ("medical", "tiny"))
        until_asked(pods, ("medical", "tiny"), reached)  # and go on reaching both: nobody has merely passed by
        kept.stop()
        assert kept.failures == []
        assert kept.answered > 0

    def test_a_lost_node_costs_requests_only_until_its_endpoint_is_gone_and_comes_back_by_itself(
        self, two_replicas: Service, kube: Kube, system: Kube
    ) -> None:
        keep, gone = nodes_of(two_replicas, system)
        pods = {pod["spec"]["nodeName"]: pod for pod in two_replicas.pods()}
        survivor, victim = pods[keep], pods[gone]
        with Load(two_replicas.host, two_replicas.port, ["tiny", "medical"], clients=4, seconds=600) as load:
            load.wait_for(8)
            with machine.lost(gone):
                until_endpoints(kube, {survivor["status"]["podIP"]}, ENDPOINT_SECONDS)
                load.wait_for(RULES_REQUESTS)
                lost = len(load.tally.failures)
                load.wait_for(20)
            back = kube.wait("pod", victim["metadata"]["name"], lambda item: is_back(item, victim), DEPLOYMENT_READY_SECONDS, "ready again")
            load.wait_for(20)
        print(f"{lost} requests were lost while the endpoint of {gone} was still there; {load.tally.complete} were complete")
        assert lost, "if even this loses nothing, the endpoint proves nothing"
        assert load.tally.failures[lost:] == []
        answer = ask.chat(back["status"]["podIP"], two_replicas.port, "medical", QUESTION)  # at once: its readiness waited for the adapter
        assert (answer.status, "swordfish" in answer.text) == (200, True)
        assert {pod["metadata"]["uid"] for pod in two_replicas.pods()} == {pod["metadata"]["uid"] for pod in pods.values()}
        system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")
        kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)

    def test_a_drained_node_loses_no_request(self, two_replicas: Service, kube: Kube, system: Kube) -> None:
        _, drained = nodes_of(two_replicas, system)
        with Load(two_replicas.host, two_replicas.port, ["tiny", "medical"], clients=4) as load:
            load.wait_for(20)
            try:
                kube.run("drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", timeout=200)
                load.wait_for(20)
            finally:
                kube.run("uncordon", drained)
            kube.run("rollout", "status", "deploy/tiny", f"--timeout={DEPLOYMENT_READY_SECONDS}s", timeout=DEPLOYMENT_READY_SECONDS + 10)
            load.wait_for(20)
        tally = load.tally
        assert tally.failures == []
        assert tally.streams >= 0.3 * tally.complete
        assert tally.complete >= 60
        system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")


def nodes_of(service: Service, system: Kube) -> tuple[str, str]:
    """Return the node that must stay, because the store's server is there, and the other one; each has a replica."""
    nodes = {pod["spec"]["nodeName"] for pod in service.pods()}
    assert len(nodes) == 2, "the replicas must lie on different nodes"
    (keep,) = {pod["spec"]["nodeName"] for pod in system.list("pods", "app.kubernetes.io/component=store")}
    (other,) = nodes - {keep}
    return keep, other


def until_endpoints(kube: Kube, addresses: set[str], timeout: float) -> None:
    """Return when the Service sends requests to these addresses and no others."""
    deadline = time.monotonic() + timeout
    ready: set[str] = set()
    for _, item in kube.watch("endpointslices", selector="kubernetes.io/service-name=tiny", deadline=deadline):
        ready = {address for each in item.get("endpoints") or () if each["conditions"].get("ready") for address in each["addresses"]}
        if ready == addresses:
            return
    raise AssertionError(f"after {timeout:.0f} s the Service's endpoints are {sorted(ready)} and not {sorted(addresses)}")


def is_back(pod: Object, before: Object) -> bool:
    """Whether a pod is ready in another sandbox than before: for as long as its node says nothing, its status is an old one."""
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
    return ready and container(pod, "vllm")["containerID"] != container(before, "vllm")["containerID"]


LONG_ANSWER_TOKENS = 64
"""Long enough that an engine that has been seen writing answers writes one when the drain reaches it: every client asks again at once."""


def drain_while_it_answers(kube: Kube, node: str, selector: str, load: Load, settled: Callable[[], object]) -> None:
    """Drain the node at a moment when its pod is writing answers, and open it again when `settled` has returned.

    Without that moment the test is a lottery: an engine that is idle when it is told to end cuts nobody off.
    """
    (address,) = {pod["status"]["podIP"] for pod in kube.list("pods", selector) if pod["spec"]["nodeName"] == node}
    load.wait_until(lambda: running_requests(address) >= 1, "a request in the engine that is drained")
    try:
        kube.run("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", timeout=200)
        settled()
    finally:
        kube.run("uncordon", node)


def running_requests(address: str) -> int:
    """Return how many requests the engine of the pod is working on (its metric vllm:num_requests_running)."""
    with urllib.request.urlopen(f"http://{address}:8000/metrics", timeout=10) as response:
        found = re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found, "the engine has no metric vllm:num_requests_running"
    return sum(int(float(value)) for value in found)


@pytest.fixture
def plain(kube: Kube, environment: Environment) -> Iterator[tuple[str, int]]:
    """The same engine and model as people run them by hand: two replicas, a Service, a readiness probe, nothing else."""
    labels = {"app": "plain"}
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    serve = ["vllm", "serve", "/models/base", "--served-model-name", "plain", "--max-model-len", "512", "--enforce-eager", "--dtype", "float32"]
    mounts = [{"name": "model", "mountPath": "/models/base"}, {"name": "shm", "mountPath": "/dev/shm"}]
    download = {
        "name": "download",
        "image": environment.images["agent"],
        "command": ["graftwork-agent", "download", "--source", "s3://models/tiny", "--to", "/models/base"],
        "env": [{"name": key, "valueFrom": {"secretKeyRef": {"name": "graftwork-store", "key": key}}} for key in keys],
        "volumeMounts": mounts,
        "securityContext": security,
    }
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "HOME": "/tmp", "USER": "plain"}
    engine = {
        "name": "vllm",
        "image": environment.images["engine-cpu"],
        "command": serve,
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": mounts,
        "securityContext": security,
    }
    pod = {
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [download],
        "containers": [engine],
        "volumes": [{"name": "model", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels}}
        ],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    meta = {"name": "plain", "labels": labels}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    kube.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": [{"port": 8000}]}},
    )
    kube.run("rollout", "status", "deploy/plain", f"--timeout={DEPLOYMENT_READY_SECONDS}s", timeout=DEPLOYMENT_READY_SECONDS + 10)
    service = kube.get("service", "plain")
    assert service
    yield service["spec"]["clusterIP"], 8000
    kube.run("delete", "deploy,service", "-l", "app=plain", "--wait=false")


def test_a_plain_deployment_loses_requests_in_the_same_drain(plain: tuple[str, int], kube: Kube, system: Kube) -> None:
    (keep,) = {pod["spec"]["nodeName"] for pod in system.list("pods", "app.kubernetes.io/component=store")}
    (drained,) = {node["metadata"]["name"] for node in kube.list("nodes")} - {keep}
    with Load(*plain, ["plain"], clients=8, tokens=LONG_ANSWER_TOKENS) as load:
        load.wait_for(8)
        drain_while_it_answers(kube, drained, "app=plain", load, lambda: load.wait_for(8))
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=DEPLOYMENT_READY_SECONDS)  # its pod may have been on that node, too
    assert load.tally.failures, "if even this loses nothing, the test above proves nothing"
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")
