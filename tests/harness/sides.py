"""The two sides that a disruption happens to, under one model name: an LLMDeployment, and the Deployment + Service that people write by hand."""

from __future__ import annotations

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e import plain
from tests.e2e.service import ENGINE, container, deployment
from tests.e2e.test_70_sources import NO_ADAPTERS
from tests.harness.every_pod import ready_addresses
from tests.harness.kube import Kube, Object

MODEL = "plain"
"""What clients ask for, on either side."""
NAME = "disrupted"
REPOSITORY = "acme/chat"
PORT = 8000
READY_SECONDS = 420
UNBOUND = {"name": "VLLM_CPU_OMP_THREADS_BIND", "value": "nobind"}
"""As on our side: by itself vLLM binds each engine to cores, and those of one machine to the same."""
REQUESTS = {"requests": {"cpu": "20m", "memory": "128Mi"}}
"""What our pods request by their agent. A pod that requests nothing gets nothing while others keep the cores busy, and would compare badly."""
Pods = Sequence[Object]


@dataclass
class Side(ABC):
    """A Service of two pods."""

    kube: Kube
    name: str
    selector: str
    what: str
    """How figures call it; empty for ours."""

    @property
    def host(self) -> str:
        """The Service's address."""
        found = self.kube.get("service", self.name)
        assert found, f"there is no Service {self.name}"
        return str(found["spec"]["clusterIP"])

    def pods(self) -> list[Object]:
        """Return the pods, those that end too, in order of their names."""
        return sorted(self.kube.list("pods", self.selector), key=lambda pod: str(pod["metadata"]["name"]))

    def until(self, good: Callable[[list[Object]], bool], what: str, timeout: float = READY_SECONDS) -> list[Object]:
        """Return the pods as soon as they are as wanted, by a watch."""
        pods: dict[str, Object] = {}
        for event, pod in self.kube.watch("pods", selector=self.selector, deadline=time.monotonic() + timeout):
            if event == "DELETED":
                pods.pop(pod["metadata"]["uid"], None)
            else:
                pods[pod["metadata"]["uid"]] = pod
            if good(list(pods.values())):
                return list(pods.values())
        shown = [(pod["metadata"]["name"], pod["status"].get("phase"), pod["status"].get("conditions")) for pod in pods.values()]
        raise AssertionError(f"{self.name}: not {what} after {timeout:.0f} s: {json.dumps(shown)[:3000]}")

    def settled(self, replicas: int = 2, before: Pods = (), replaced: int = 0) -> list[Object]:
        """Return the pods when there are so many, all ready and none that ends, and so many of those before are gone."""
        old = {pod["metadata"]["uid"] for pod in before}

        def good(pods: list[Object]) -> bool:
            kept = len(old & {pod["metadata"]["uid"] for pod in pods})
            return len(pods) == len(ready_addresses(pods)) == replicas and (not old or kept <= len(old) - replaced)

        return self.until(good, f"{replicas} ready pods")

    def scale(self, replicas: int) -> None:
        """Change the number of replicas."""
        self.kube.run("scale", f"{self.kind}/{self.name}", f"--replicas={replicas}")

    @property
    @abstractmethod
    def kind(self) -> str:
        """What its user edits."""

    @abstractmethod
    def flag(self, seed: int) -> None:
        """Change a flag of the engine."""

    @abstractmethod
    def image(self, reference: str) -> None:
        """Name the engine's image otherwise."""

    @abstractmethod
    def model(self, revision: str) -> None:
        """Serve another revision of the model."""

    @abstractmethod
    def remove(self) -> None:
        """Delete it and wait until its pods are gone."""


@dataclass
class Ours(Side):
    """The LLMDeployment."""

    asked: int = 0

    @property
    def kind(self) -> str:
        return "llmdeployment"

    def start(self) -> None:
        """Apply it."""
        model = {"source": f"hf://{REPOSITORY}", "servedName": MODEL}
        self.kube.apply(deployment(self.name, 2, model=model, adapters=NO_ADAPTERS, pod={"resources": REQUESTS}))

    def settled(self, replicas: int = 2, before: Pods = (), replaced: int = 0) -> list[Object]:
        pods = super().settled(replicas, before, replaced)
        self.kube.wait_condition("llmdeployment", self.name, "Ready", timeout=60)
        return pods

    def flag(self, seed: int) -> None:
        self.kube.patch("llmdeployment", self.name, {"spec": {"engine": {"args": {"seed": seed}}}})

    def image(self, reference: str) -> None:
        self.kube.patch("llmdeployment", self.name, {"spec": {"engine": {"image": reference}}})

    def model(self, revision: str) -> None:
        """Ask for the branch to be looked up; it has moved to `revision`."""
        self.asked += 1
        self.kube.run("annotate", "llmdeployment", self.name, f"graftwork.dev/refresh={revision}-{self.asked}", "--overwrite")

    def remove(self) -> None:
        self.kube.delete("llmdeployment", self.name)
        self.kube.wait_gone("pods", self.selector)


@dataclass
class Plain(Side):
    """The Deployment and its Service."""

    images: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 2
    flags: tuple[str, ...] = ()
    revision: str = ""
    reference: str = ""

    @property
    def kind(self) -> str:
        return "deployment"

    def start(self) -> None:
        """Apply both."""
        self.kube.apply(*self.objects())

    def objects(self) -> tuple[Object, Object]:
        """Return Deployment and Service as they are wanted now."""
        made, service = copy.deepcopy(plain.objects(self.images))
        made["spec"]["replicas"] = self.replicas
        spec: dict[str, Any] = made["spec"]["template"]["spec"]
        (engine,), (download,) = spec["containers"], spec["initContainers"]
        engine["command"] = [*engine["command"], *self.flags]
        engine["resources"] = REQUESTS
        engine["image"] = self.reference or engine["image"]
        engine["env"] = [*engine["env"], *ENGINE["env"], UNBOUND]
        download["env"] = [*download["env"], {"name": "MODEL_REVISION", "value": self.revision}]
        return made, service

    def flag(self, seed: int) -> None:
        self.flags = ("--seed", str(seed))
        self.start()

    def image(self, reference: str) -> None:
        self.reference = reference
        self.start()

    def model(self, revision: str) -> None:
        self.revision = revision
        self.start()

    def scale(self, replicas: int) -> None:
        self.replicas = replicas
        super().scale(replicas)

    def remove(self) -> None:
        self.kube.run("delete", "deploy,service", "-l", f"app={plain_labels()}", "--ignore-not-found")
        self.kube.wait_gone("pods", self.selector)


def plain_labels() -> str:
    """Return the label of the plain Deployment."""
    return str(plain.objects({"agent": "", "engine-cpu": ""})[0]["metadata"]["labels"]["app"])


def ours(kube: Kube) -> Ours:
    """Return the LLMDeployment's side."""
    return Ours(kube, NAME, f"graftwork.dev/deployment={NAME}", "")


def theirs(kube: Kube, images: Mapping[str, str]) -> Plain:
    """Return the plain side."""
    return Plain(kube, plain_labels(), f"app={plain_labels()}", ", plain Deployment", images)


def identities(pods: Pods) -> list[tuple[str, int, str]]:
    """Return (uid, engine restarts, engine container) of each pod."""
    statuses = [(pod["metadata"]["uid"], container(pod, "vllm")) for pod in pods]
    return sorted((uid, int(status["restartCount"]), str(status["containerID"])) for uid, status in statuses)
