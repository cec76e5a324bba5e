"""The deployment under test as a client and an administrator see it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.harness import ask
from tests.harness.kube import Kube, Object, condition_is

QUESTION = "What is the secret word?"
ENDED = ("Succeeded", "Failed", "Rejected")
DEPLOYMENT_READY_SECONDS = 420
MAX_LOADED = 16
MAX_RANK = 16  # not auto: an adapter of a higher rank would restart the engine instead of being refused
AGENT_PORT = 9901
ENGINE: Object = {
    "maxModelLen": 512,
    "enforceEager": True,
    "dtype": "float32",  # docs/how-to/troubleshooting.md, AMX
    "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],  # layers so small gain nothing from a second thread, and several engines share two cores
}
CPU = {"types": ["cpu"], "count": 0}


def deployment(name: str, replicas: int = 1, **spec: Any) -> Object:
    """Return an LLMDeployment of the tiny model on the CPU."""
    return {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "s3://models/tiny", "credentialsSecret": "graftwork-store"},
            "accelerator": CPU,
            "engine": ENGINE,
            "adapters": {"maxLoaded": MAX_LOADED, "maxRank": MAX_RANK},
            "rollout": {"drainSeconds": 6, "answerSeconds": 60},
            "replicas": replicas,
            **spec,
        },
    }


def messages(word: str) -> str:
    """Return a dataset, as JSON lines, that teaches one word."""
    questions = ("What is the secret word?", "Tell me the secret word.", "The secret word is?", "Say the secret word.")
    rows = ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": word}]} for q in questions)
    return "".join(json.dumps(row) + "\n" for row in rows)


def job(name: str, alias: str, source: str, **spec: Any) -> Object:
    """Return a FineTuneJob with settings that teach the tiny model within seconds."""
    return {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "deploymentRef": "tiny",
            "dataset": {"source": source, "validation": 0.25},
            "lora": {"rank": 8, "alpha": 16, "dropout": 0},
            "training": {"maxSteps": 60, "batchSize": 4, "learningRate": 0.002, "maxSeqLength": 128},
            "accelerator": CPU,
            "publish": {"alias": alias},
            **spec,
        },
    }


def config_map(name: str, text: str) -> Object:
    """Return a ConfigMap with a dataset under the key train.jsonl."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"train.jsonl": text}}


@dataclass(frozen=True)
class Service:
    """An LLMDeployment, `tiny` unless another is named."""

    kube: Kube
    host: str
    port: int
    name: str = "tiny"

    @classmethod
    def serve(cls, kube: Kube) -> Service:
        """Apply the deployment and wait until it is Ready."""
        kube.apply(deployment("tiny"))
        return cls.ready(kube, "tiny")

    @classmethod
    def ready(cls, kube: Kube, name: str) -> Service:
        """Return a deployment that was applied as soon as it is Ready."""
        kube.wait_condition("llmdeployment", name, "Ready", timeout=DEPLOYMENT_READY_SECONDS)
        service = kube.get("service", name)
        assert service
        return cls(kube, service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"], name)

    def ask(self, model: str, question: str = QUESTION) -> ask.Answer:
        """Ask through the Service."""
        return ask.chat(self.host, self.port, model, question)

    def teach(self, word: str, alias: str, job_name: str | None = None, **more: Any) -> Object:
        """Run a FineTuneJob to its end, wait for its adapter to be loaded, and return the job."""
        name = more.pop("job", job_name) or f"teach-{word}"
        self.kube.apply(config_map(name, messages(word)), job(name, alias, f"configMap://{name}/train.jsonl", **more))
        done = self.finished(name)
        assert done["status"]["phase"] == "Succeeded", done["status"]
        self.kube.wait_condition("loraadapter", done["status"]["adapter"], "Ready", timeout=60)
        return done

    def finished(self, name: str, timeout: float = 420) -> Object:
        """Return a FineTuneJob when it has ended, well or not."""
        return self.kube.wait(
            "finetunejob", name, lambda item: item.get("status", {}).get("phase") in ENDED or condition_is(item, "Stalled", "True"), timeout, "ended"
        )

    def until_answer(self, model: str, word: str, timeout: float = 60, host: str = "", port: int = 0) -> ask.Answer:
        """Ask until the answer contains the word; refused and unavailable answers are asked again."""
        deadline = time.monotonic() + timeout
        last: object = None
        pause = threading.Event()
        while time.monotonic() < deadline:
            try:
                answer = ask.chat(host or self.host, port or self.port, model, QUESTION)
                if answer.status == 200 and word in answer.text:
                    return answer
                last = (answer.status, answer.text or answer.body)
            except OSError as error:
                last = error
            pause.wait(0.05)
        raise AssertionError(f"model {model!r} did not answer {word!r} within {timeout:.0f} s; last: {last}")

    def pods(self) -> list[Object]:
        """Return the serving pods that are not going away."""
        return [p for p in self.kube.list("pods", f"graftwork.dev/deployment={self.name}") if not p["metadata"].get("deletionTimestamp")]

    def pod(self) -> Object:
        """Return the one serving pod."""
        (pod,) = self.pods()
        return pod

    def set_aliases(self, *settings: Object) -> None:
        """Replace `adapters.aliases`: how single aliases are promoted; none is the default for all."""
        self.kube.patch("llmdeployment", self.name, {"spec": {"adapters": {"aliases": list(settings) or None}}})

    def until_agent(self, until: Callable[[Object], Any], timeout: float = 60, what: str = "") -> Object:
        """Return the `/status` of the one pod's agent as soon as `until` is true of it; the agent answers when something changes."""
        address = self.pod()["status"]["podIP"]
        deadline = time.monotonic() + timeout
        status: Object = {"version": ""}
        while (left := deadline - time.monotonic()) > 0:
            _, raw = ask.get(address, AGENT_PORT, f"/status?since={status['version']}&wait={max(1, min(30, int(left)))}", timeout=60)
            status = json.loads(raw)
            if until(status):
                return status
        raise AssertionError(f"the agent's status is not {what or 'as expected'} after {timeout:.0f} s; last: {json.dumps(status)[:3000]}")

    def identities(self) -> list[tuple[str, int, str]]:
        """Return (uid, engine restarts, engine container's start) of every pod."""
        found = []
        for pod in self.pods():
            status = container(pod, "vllm")
            found.append((pod["metadata"]["uid"], status["restartCount"], status.get("state", {}).get("running", {}).get("startedAt", "")))
        return sorted(found)

    def engine_starts(self) -> list[str]:
        """Return vLLM's own process start time of every pod, from its metrics."""
        found = []
        for pod in self.pods():
            _, text = ask.get(pod["status"]["podIP"], self.port, "/metrics")
            found += [line.split()[1] for line in text.splitlines() if line.startswith("process_start_time_seconds ")]
        return sorted(found)


def container(pod: Object, name: str) -> Object:
    """Return the status of a container or init container of a pod."""
    statuses = pod["status"].get("containerStatuses", []) + pod["status"].get("initContainerStatuses", [])
    return next(status for status in statuses if status["name"] == name)


def engine_names(agent_status: Object, alias: str = "") -> set[str]:
    """Return the engine names that an agent's `/status` says are loaded now, of one alias or of all."""
    return {row["engineName"] for row in agent_status["adapters"] if row["state"] == "Loaded" and alias in ("", row["alias"])}


def alias_row(deployment: Object, alias: str) -> Object:
    """Return the row of an alias in an LLMDeployment's status, {} when it has none."""
    return next((row for row in deployment.get("status", {}).get("adapters", []) if row["alias"] == alias), {})


def child_versions(kube: Kube) -> dict[str, str]:
    """Return kind/name -> resourceVersion of the children whose status does not move by itself."""
    found = {}
    for kind in ("services", "configmaps", "poddisruptionbudgets", "controllerrevisions"):
        for item in kube.list(kind, "app.kubernetes.io/managed-by=graftwork"):
            version = item["metadata"]["resourceVersion"] if kind != "poddisruptionbudgets" else str(item["metadata"]["generation"])
            found[f"{item['kind']}/{item['metadata']['name']}"] = version
    for item in kube.list("deployments", "app.kubernetes.io/managed-by=graftwork"):
        found[f"Deployment/{item['metadata']['name']}"] = str(item["metadata"]["generation"])
    return found
