"""Static stability: with the operator, the API server or any one process gone, serving goes on and heals by itself."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.adapters import Bucket, Published, engine_name
from tests.e2e.outage import restart_operator, store_back
from tests.e2e.service import DEPLOYMENT_READY_SECONDS, Service, child_versions, container
from tests.harness import ask, install, machine, processes
from tests.harness.kube import Kube, Object
from tests.harness.load import Load


@pytest.fixture
def without_operator(system: Kube) -> Iterator[None]:
    """The operator scaled to 0 for the length of a test."""
    system.run("scale", f"deploy/{install.RELEASE}", "--replicas=0")
    system.wait_gone("pods", "app.kubernetes.io/component=operator")
    yield
    system.run("scale", f"deploy/{install.RELEASE}", "--replicas=1")
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s")


DEADLINE_SECONDS = 10  # instead of two minutes, by the file that the agent reads: nobody is there who would write another
LOOK_SECONDS = 0.1


@pytest.fixture
def distant(kube: Kube, taught: Service, swordfish: Published, bucket: Bucket) -> Iterator[Object]:
    """A second alias, loaded, with files of its own."""
    item = swordfish.variant(bucket, "distant", 1, namespace=kube.namespace)
    kube.apply(item)
    taught.until_answer("distant", "swordfish")
    yield item
    kube.delete("loraadapter", "distant-1")


def test_without_operator_and_store_a_killed_engine_comes_back_with_the_adapters_that_the_pod_has(
    taught: Service, distant: Object, without_operator: None, without_store: None, kube: Kube, system: Kube
) -> None:
    """And a pod that lacks one is ready at the deadline nevertheless: like a new pod whose model comes from elsewhere than from the store."""
    pod = taught.pod()
    uid, before = pod["metadata"]["uid"], container(pod, "vllm")["restartCount"]
    shorten_deadline(taught, kube)
    lose_files(uid, engine_name(distant))
    processes.kill(uid, "serve --supervised")  # the agent that comes after knows only what lies on the disk
    processes.kill(uid, "vllm serve")
    assert unready_seconds(pod["status"]["podIP"], taught.port) >= DEADLINE_SECONDS - 1
    wait_for_restart(kube, pod["metadata"]["name"], "vllm", before)
    taught.until_answer("medical", "swordfish", timeout=30)
    refused = taught.ask("distant")
    assert refused.status == 503, refused.body
    assert int({name.lower(): value for name, value in refused.headers.items()}["retry-after"]) >= 1
    store_back(system)
    taught.until_answer("distant", "swordfish", timeout=90)
    (after,) = taught.pods()
    assert (after["metadata"]["uid"], container(after, "vllm")["restartCount"]) == (uid, before + 1)


def shorten_deadline(service: Service, kube: Kube) -> None:
    """Change `requiredDeadlineSeconds` as the operator would: the file, then the pod's annotation; return when the agent has read it."""
    config = kube.get("configmap", f"{service.name}-adapters")
    assert config
    document = {**json.loads(config["data"]["adapters.json"]), "requiredDeadlineSeconds": DEADLINE_SECONDS}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    its_hash = hashlib.sha256(text.encode()).hexdigest()
    kube.patch("configmap", f"{service.name}-adapters", {"data": {"adapters.json": text}})
    kube.run("annotate", "pod", service.pod()["metadata"]["name"], f"graftwork.dev/adapters-hash={its_hash}", "--overwrite")
    service.until_agent(lambda status: status["observedHash"] == its_hash, 90, f"of the file with a deadline of {DEADLINE_SECONDS} s")


def lose_files(uid: str, engine_name: str) -> None:
    """Remove an adapter's files from a pod's disk, as for a pod that never had them."""
    (agent, *_) = processes.of_pod(uid, "graftwork_agent")
    folder = Path(f"/proc/{agent}/root/graftwork/adapters") / engine_name
    assert (folder / "adapter_config.json").is_file()
    shutil.rmtree(folder)


def unready_seconds(address: str, port: int, timeout: float = 180) -> float:
    """Return how long the engine that comes next says that it is not ready yet; it must say why it waits."""
    began = time.monotonic()
    listens = 0.0
    while time.monotonic() - began < timeout:
        with contextlib.suppress(OSError, http.client.HTTPException):  # nobody listens
            status, raw = ask.get(address, port, "/graftwork/ready", timeout=5)
            if status == 200 and listens:
                return time.monotonic() - listens
            if status != 200:
                assert json.loads(raw)["reason"] in ("NoRouting", "AdaptersLoading"), raw
                listens = listens or time.monotonic()
        threading.Event().wait(LOOK_SECONDS)  # readiness of a port is no event for this process
    raise AssertionError(f"the engine at {address}:{port} is not ready after {timeout:.0f} s")


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
    restart_operator(system)
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
