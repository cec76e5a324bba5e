"""A second replica, and a node that goes, under load.

Kept-alive clients reach the second pod. A node that is lost costs what was sent to it before anybody knew. `kubectl drain` of it loses no
request; test_55_plain.py has the same drain without Graftwork.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.kept import Kept, until_asked
from tests.e2e.service import DEPLOYMENT_READY_SECONDS, QUESTION, Service, container
from tests.harness import ask, install, machine
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
