"""`kubectl drain` of a node under streaming load: no request is lost, while a plain Deployment on the same cluster loses some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import DEPLOYMENT_READY_SECONDS, Service
from tests.harness import install
from tests.harness.kube import Kube
from tests.harness.load import Load


@pytest.fixture
def two_replicas(taught: Service, kube: Kube) -> Iterator[Service]:
    """The service on both nodes."""
    kube.run("scale", "llmdeployment/tiny", "--replicas=2")
    kube.wait("llmdeployment", "tiny", lambda item: item.get("status", {}).get("readyReplicas") == 2, DEPLOYMENT_READY_SECONDS, "two ready replicas")
    yield taught
    kube.run("scale", "llmdeployment/tiny", "--replicas=1")
    kube.wait("llmdeployment", "tiny", lambda item: item.get("status", {}).get("replicas") == 1, 180, "one replica")


def test_a_drained_node_loses_no_request(two_replicas: Service, kube: Kube, system: Kube) -> None:
    nodes = {pod["spec"]["nodeName"] for pod in two_replicas.pods()}
    assert len(nodes) == 2, "the replicas must lie on different nodes"
    (keep,) = {pod["spec"]["nodeName"] for pod in system.list("pods", "app.kubernetes.io/component=store")}
    (drained,) = nodes - {keep}
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
