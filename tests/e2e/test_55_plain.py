"""What the drain of test_40_drain.py costs without Graftwork: a plain Deployment + Service on the same cluster loses requests.

The Deployment starts beside test_50_idle.py.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.service import DEPLOYMENT_READY_SECONDS
from tests.harness import install
from tests.harness.kube import Kube
from tests.harness.load import Load

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
def plain(kube: Kube, plain_begun: None) -> Iterator[tuple[str, int]]:
    """Address and port of the plain Service, whose pods are ready."""
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
