"""Static stability: with the operator, the API server or any one process gone, serving goes on and heals by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import DEPLOYMENT_READY_SECONDS, Service, child_versions, container
from tests.harness import install, machine, processes
from tests.harness.kube import Kube
from tests.harness.load import Load


@pytest.fixture
def without_operator(system: Kube) -> Iterator[None]:
    """The operator scaled to 0 for the length of a test."""
    system.run("scale", f"deploy/{install.RELEASE}", "--replicas=0")
    system.wait_gone("pods", "app.kubernetes.io/component=operator")
    yield
    system.run("scale", f"deploy/{install.RELEASE}", "--replicas=1")
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")


def test_without_the_operator_a_killed_engine_comes_back_with_its_adapters(taught: Service, without_operator: None, kube: Kube) -> None:
    pod = taught.pods()[0]
    before = container(pod, "vllm")["restartCount"]
    processes.kill(pod["metadata"]["uid"], "vllm serve")
    wait_for_restart(kube, pod["metadata"]["name"], "vllm", before)
    taught.until_answer("medical", "swordfish", timeout=30)
    assert taught.pods()[0]["metadata"]["uid"] == pod["metadata"]["uid"]


def test_without_the_operator_a_deleted_pod_is_replaced_and_loads_its_adapters_before_it_is_ready(
    taught: Service, without_operator: None, kube: Kube
) -> None:
    old = taught.pods()[0]
    kube.delete("pod", old["metadata"]["name"])
    kube.run("rollout", "status", "deploy/tiny", f"--timeout={DEPLOYMENT_READY_SECONDS}s", timeout=DEPLOYMENT_READY_SECONDS + 10)
    (new,) = taught.pods()
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    answer = taught.ask("medical")  # at once: readiness waited for the adapter
    assert (answer.status, "swordfish" in answer.text) == (200, True)


def test_a_killed_agent_returns_and_no_request_is_lost(taught: Service, kube: Kube) -> None:
    pods, engines = taught.identities(), taught.engine_starts()
    (pod,) = taught.pods()
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=2) as load:
        load.wait_for(4)
        processes.kill(pod["metadata"]["uid"], "serve --supervised")
        taught.teach("hollyhock", alias="garden")  # loaded by the agent that came after
        load.wait_for(4)
    assert load.tally.failures == []
    assert (taught.identities(), taught.engine_starts()) == (pods, engines)
    taught.until_answer("garden", "hollyhock", timeout=30)


def test_with_the_api_server_stopped_both_models_go_on_answering(taught: Service) -> None:
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=2) as load:
        machine.stop("apiserver")
        try:
            load.wait_for(10)
        finally:
            machine.start("apiserver")
    assert load.tally.failures == []


def test_the_operator_picks_up_where_it_was_and_changes_nothing(taught: Service, system: Kube, kube: Kube) -> None:
    versions = child_versions(kube)
    system.run("rollout", "restart", f"deploy/{install.RELEASE}")
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=180s", timeout=190)
    taught.teach("bluebell", alias="flower")  # proof that it works again, after a full pass over everything
    after = child_versions(kube)
    assert {key: after[key] for key in versions if not key.startswith("ConfigMap/tiny-adapters")} == {
        key: versions[key] for key in versions if not key.startswith("ConfigMap/tiny-adapters")
    }


def wait_for_restart(kube: Kube, pod: str, name: str, before: int) -> None:
    """Wait until the container was restarted and its pod is ready again."""

    def back(item: dict) -> bool:  # type: ignore[type-arg]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
        return container(item, name)["restartCount"] > before and ready

    kube.wait("pod", pod, back, DEPLOYMENT_READY_SECONDS, f"{name} restarted and ready")
