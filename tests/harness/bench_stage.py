"""What the phases of `make bench-adapters` share: the deployment in the shape that a phase needs, two taught adapters, and copies of them."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.service import Service, config_map, deployment, job, messages
from tests.harness import ask, install, plain, records
from tests.harness.bench_loop import APART_SECONDS, WORDS, Api
from tests.harness.every_pod import ready_addresses
from tests.harness.install import Environment
from tests.harness.kube import Kube, Object, condition, condition_is

RECORD = "adapters"
NAME = "tiny"
AGENT_PORT = 9901
LABEL, LABELS = "bench=adapters", {"bench": "adapters"}
TAUGHT = {f"bench-{index}": word for index, word in enumerate(WORDS)}
ROOM = 64
"""adapters.maxLoaded of every phase but the one with more adapters than that."""
READY_SECONDS = 600


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    adapters: int = 50
    many: int = 100
    pairs: int = 12
    flips: int = 10


@dataclass(frozen=True)
class Stage:
    """The prepared cluster, and how the figures are recorded."""

    environment: Environment
    recorder: records.Recorder
    sizes: Sizes

    @property
    def kube(self) -> Kube:
        """A client in the tests' namespace."""
        return self.environment.kube.within(install.TEST_NAMESPACE)

    def save(self, *figures: records.Figure) -> None:
        """Write figures as soon as they are known."""
        self.recorder.save(*figures)

    def serving(self, replicas: int = 1, max_loaded: int = ROOM) -> Service:
        """Return the service when it has so many ready pods, each with the two taught adapters and no copies of them."""
        kube = self.kube
        kube.delete("loraadapter", "-l", LABEL)
        kube.apply(deployment(NAME, replicas, adapters={"maxLoaded": max_loaded}))

        def as_wanted(item: Object) -> bool:
            return condition_is(item, "Ready", "True") and item["status"].get("readyReplicas") == replicas

        kube.wait("llmdeployment", NAME, as_wanted, READY_SECONDS, f"Ready with {replicas} pods")
        found = kube.get("service", NAME)
        assert found
        service = Service(kube, found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"])
        _until(lambda: len(kube.list("pods", f"graftwork.dev/deployment={NAME}")) == replicas, f"{replicas} pods and none that ends")
        self._teach(service)
        _until(lambda: all(_only_taught(agent_status(host)) for host in self.hosts(service)), "agents with the two taught adapters only")
        rest()
        return service

    def hosts(self, service: Service) -> list[str]:
        """Return the addresses of the ready pods."""
        return ready_addresses(service.pods())

    def _teach(self, service: Service) -> None:
        missing = {alias: word for alias, word in TAUGHT.items() if not self._published(alias)}
        for alias, word in missing.items():  # side by side: a run of seconds waits mostly for its imports
            self.kube.delete("finetunejob", alias)
            self.kube.apply(config_map(alias, messages(word)), job(alias, alias, f"configMap://{alias}/train.jsonl"))
        for alias in missing:
            done = service.finished(alias)
            if done["status"]["phase"] != "Succeeded":
                raise AssertionError(f"FineTuneJob {alias}: {done['status']}")
            self.kube.wait_condition("loraadapter", done["status"]["adapter"], "Ready", timeout=60)

    def _published(self, alias: str) -> list[Object]:
        """Return the versions of an alias, newest first."""
        found = [each for each in self.kube.list("loraadapter") if each["spec"]["alias"] == alias]
        return sorted(found, key=lambda each: -int(each["spec"]["version"]))

    def source(self, alias: str) -> str:
        """Return where a taught adapter lies."""
        return str(self._published(alias)[0]["spec"]["source"])

    def copies(self, names: Sequence[str]) -> list[tuple[Object, str]]:
        """Return a LoRAAdapter per alias, with the word that it answers.

        The files are those of the taught adapters in turns, so an alias that is routed to another adapter answers with the wrong word.
        """
        return [(copy_of(origin, name, 1), word) for name, (origin, word) in zip(names, itertools.cycle(self._origins()), strict=False)]

    def versions(self, alias: str) -> list[tuple[Object, str]]:
        """Return versions 1 and 2 of one alias, each with the word that it answers."""
        return [(copy_of(origin, alias, number), word) for number, (origin, word) in enumerate(self._origins(), start=1)]

    def _origins(self) -> list[tuple[Object, str]]:
        return [(self._published(alias)[0], word) for alias, word in TAUGHT.items()]

    def remove(self) -> None:
        """Delete everything that a run leaves in the namespace."""
        self.kube.delete("finetunejob,loraadapter,llmdeployment", "--all")
        plain.remove(self.kube)


def copy_of(origin: Object, alias: str, version: int) -> Object:
    """Return a LoRAAdapter of another alias with the same files."""
    return {
        "apiVersion": origin["apiVersion"],
        "kind": origin["kind"],
        "metadata": {"name": f"{alias}-{version}", "namespace": origin["metadata"]["namespace"], "labels": LABELS},
        "spec": {**origin["spec"], "alias": alias, "owner": alias, "version": version},
    }


def create_all(items: Sequence[Object]) -> float:
    """Create LoRAAdapters one right after the other; return the time before the first."""
    api = Api()
    began = time.time()
    for item in items:
        api.create_adapter(item)
    return began


def agent_status(host: str) -> dict[str, Any]:
    """Return what a pod's agent says."""
    code, text = ask.get(host, AGENT_PORT, "/status")
    if code != 200:
        raise AssertionError(f"the agent of {host} answered /status with {code}: {text[:200]}")
    found: dict[str, Any] = json.loads(text)
    return found


def reasons(adapters: Sequence[Object]) -> str:
    """Return how many adapters are in which state, for the message of a failure."""
    seen = [condition(each, "Ready").get("reason", "no condition") for each in adapters]
    return ", ".join(f"{seen.count(reason)} {reason}" for reason in sorted(set(seen)))


def rest() -> None:
    """Leave the pods alone for a while: a kubelet works on one pod about once a second."""
    threading.Event().wait(APART_SECONDS)


def _only_taught(status: dict[str, Any]) -> bool:
    rows = status["adapters"]
    return {row["alias"] for row in rows} == set(TAUGHT) and all(row["state"] == "Loaded" for row in rows)


def _until(true: Callable[[], bool], what: str, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not there after {timeout:.0f} s: {what}")
        threading.Event().wait(0.5)
