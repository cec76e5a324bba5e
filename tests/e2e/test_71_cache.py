"""A shared cache: filled once, read by pods of both nodes, pruned only of what nobody uses; a full disk is named while the old revision serves."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from graftwork.plan import cache

from tests.cluster.storage import SHARED_CLASS
from tests.e2e.service import DEPLOYMENT_READY_SECONDS, Service, deployment
from tests.e2e.test_60_import import opaque, secrets_of
from tests.e2e.test_70_sources import LOOK_SECONDS, NO_ADAPTERS, TOKEN_SECRET, Hub, hub
from tests.harness import machine
from tests.harness.kube import Kube, Object, condition

__all__ = ["hub"]

pytestmark = pytest.mark.skipif(machine.provider() == "kind", reason="the nodes share no folder of this machine")

NAME, BY_HAND = "cached", "by-hand"
SOURCE = {"source": "hf://acme/gated", "credentialsSecret": TOKEN_SECRET}
FILL_SECONDS = 120


@dataclass(frozen=True)
class Disk:
    """A small disk of this machine that both nodes mount, because both are this machine."""

    folder: Path

    def resize(self, size: int) -> None:
        """Make it larger or smaller, with what is on it."""
        mount("-o", f"remount,size={size}", str(self.folder))

    def models(self) -> set[str]:
        """Return the keys of the revisions that are on it."""
        return {path.name for path in (self.folder / "models").iterdir() if not path.name.startswith(".")}

    def used(self) -> int:
        """Return how many bytes of it are used."""
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def mount(*arguments: str) -> None:
    """Run mount."""
    done = subprocess.run(("mount", *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def volume(folder: Path, namespace: str) -> Object:
    """Return a volume that is made by hand for the claim of the cache."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"e2e-{NAME}"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": BY_HAND,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": f"{NAME}-cache"},
        },
    }


def key(revision: str) -> str:
    """Return under which name a revision of the repository lies in the claim."""
    return cache.key(SOURCE["source"], revision)


@pytest.fixture(scope="module")
def disk(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A disk of 256 MiB, and a volume on it for the cache."""
    folder = tmp_path_factory.mktemp("disk")
    mount("-t", "tmpfs", "-o", "size=256m,mode=0777", "graftwork-e2e", str(folder))
    kube.apply(volume(folder, kube.namespace))
    yield Disk(folder)
    kube.delete("persistentvolume", f"e2e-{NAME}")
    subprocess.run(("umount", "--lazy", str(folder)), check=True)


@pytest.fixture(scope="module")
def begun(kube: Kube, hub: Hub, disk: Disk) -> Iterator[Hub]:
    """Two replicas of the gated repository in a shared cache that keeps one revision, and one without pods of the cluster's shared class."""
    kube.apply(opaque(TOKEN_SECRET, HF_TOKEN=hub.token))
    settings = {"mode": "Shared", "storageClass": BY_HAND, "keep": 1}
    kube.apply(
        deployment(NAME, 2, model=SOURCE, adapters=NO_ADAPTERS, cache=settings),
        deployment("auto-cached", 0, model={"source": "hf://acme/open"}, adapters=NO_ADAPTERS, cache={"storageClass": SHARED_CLASS}),
    )
    yield hub
    kube.delete("llmdeployment", NAME, "auto-cached")
    kube.delete("secret", TOKEN_SECRET)
    kube.wait_gone("persistentvolumeclaims", "app.kubernetes.io/managed-by=graftwork")


@pytest.fixture(scope="module")
def served(kube: Kube, begun: Hub) -> Service:
    """The two replicas when they are Ready."""
    return Service.ready(kube, NAME)


def of(kube: Kube, name: str = NAME) -> Object:
    """Return an LLMDeployment."""
    found = kube.get("llmdeployment", name)
    assert found
    return found


def test_while_it_is_filled_the_status_says_how_much_there_is_to_bring(kube: Kube, begun: Hub) -> None:
    def filling(item: Object) -> bool:
        found = (item.get("status") or {}).get("cache") or {}
        return found.get("phase") not in (None, "Cached") and found.get("bytesTotal", 0) > 0

    item = kube.wait("llmdeployment", NAME, filling, LOOK_SECONDS, "the fill's progress")
    assert condition(item, "ModelCached")["status"] == "False"
    assert kube.get("deployment", NAME) is None, "pods are made when it is there"


def test_one_fill_serves_pods_of_both_nodes_which_have_no_credentials(kube: Kube, served: Service, begun: Hub, disk: Disk) -> None:
    pods = served.pods()
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert served.ask(NAME).status == 200
    revision = begun.commit("acme/gated")
    for pod in pods:
        assert cache.mounted(pod["spec"], f"{NAME}-cache") == key(revision)
        for each in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            assert TOKEN_SECRET not in secrets_of(pod, each)
    found = of(kube)["status"]["cache"]
    assert (found["mode"], found["phase"], found["key"]) == ("Shared", "Cached", key(revision))
    assert found["bytesDone"] == found["bytesTotal"] > 0
    assert disk.models() == {key(revision)}
    assert begun.token not in json.dumps(of(kube))


def test_auto_shares_by_a_class_that_the_configuration_names(kube: Kube, begun: Hub) -> None:
    item = kube.wait_condition("llmdeployment", "auto-cached", "ModelCached", timeout=FILL_SECONDS)
    assert item["status"]["cache"]["mode"] == "Shared"
    claim = kube.get("persistentvolumeclaim", "auto-cached-cache")
    assert claim
    assert (claim["status"]["phase"], claim["spec"]["storageClassName"]) == ("Bound", SHARED_CLASS)


def test_a_full_disk_is_named_and_heals_while_the_old_revision_serves(kube: Kube, served: Service, begun: Hub, disk: Disk) -> None:
    kube.patch("llmdeployment", NAME, {"spec": {"replicas": 1}})
    kube.wait("llmdeployment", NAME, lambda item: item["status"]["replicas"] == 1, LOOK_SECONDS, "one pod")
    first, before = begun.commit("acme/gated"), served.identities()
    second = begun.moved("acme/gated", "notes.txt", b"the second revision")
    disk.resize(disk.used() + 256 * 1024)
    kube.run("annotate", "llmdeployment", NAME, "graftwork.dev/refresh=second")

    item = kube.wait(
        "llmdeployment", NAME, lambda item: condition(item, "Stalled").get("reason") == "DiskFull", FILL_SECONDS, "the full disk to be named"
    )
    assert "spec.cache.size" in condition(item, "Stalled")["message"]
    assert set(served.identities()) <= set(before)
    assert served.ask(NAME).status == 200
    assert key(first) in disk.models()

    disk.resize(256 * 1024 * 1024)
    kube.wait(
        "llmdeployment", NAME, lambda item: item["status"]["cache"]["key"] == key(second) and condition(item, "ModelCached")["status"] == "True",
        FILL_SECONDS, "the next attempt",
    )  # fmt: skip
    assert disk.models() == {key(first), key(second)}, "what a pod uses stays, though only one revision is kept"
    kube.wait("llmdeployment", NAME, lambda item: item["status"]["rollout"].get("lastGood") == 2, DEPLOYMENT_READY_SECONDS, "the second revision")


def test_what_nobody_uses_any_more_goes_with_the_next_fill(kube: Kube, served: Service, begun: Hub, disk: Disk) -> None:
    second = begun.commit("acme/gated")
    serving = {pod["metadata"]["name"] for pod in served.pods()}
    for pod in kube.list("pods", f"graftwork.dev/deployment={NAME}"):
        if pod["metadata"]["name"] not in serving:  # it mounts its revision until it is gone
            kube.run("wait", "--for=delete", f"pod/{pod['metadata']['name']}", f"--timeout={FILL_SECONDS}s")
    third = begun.moved("acme/gated", "notes.txt", b"the third revision")
    kube.run("annotate", "llmdeployment", NAME, "graftwork.dev/refresh=third", "--overwrite")
    kube.wait(
        "llmdeployment", NAME, lambda item: item["status"]["cache"]["key"] == key(third) and condition(item, "ModelCached")["status"] == "True",
        FILL_SECONDS, "the third revision",
    )  # fmt: skip
    assert disk.models() == {key(second), key(third)}
    assert served.ask(NAME).status == 200
