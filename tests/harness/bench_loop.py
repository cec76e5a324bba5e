"""`make bench-loop`: how long it takes from a published or applied adapter to a correct answer, and what the operator costs when nothing happens.

Everything is measured from outside: the clock starts at the API server's ack or at the manifest's timestamp, and stops at a correct answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from tests.cluster.layout import API_PORT, HOST_ADDRESS, Layout
from tests.e2e.service import Service, config_map, deployment, job, messages
from tests.harness import ask, audit, install, machine, records
from tests.harness.kube import Kube, Object

COMMAND = "make bench-loop"
WORDS = ("swordfish", "question")
"""Three tokens each in the tiny model's vocabulary, so that neither answer is the longer one."""
IDLE_SECONDS = 300
APART_SECONDS = 2


class Api:
    """A kept-alive connection to the API server, so that no program's start is in the measured time."""

    def __init__(self) -> None:
        pki = Layout.default().pki
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self._connection = http.client.HTTPSConnection(HOST_ADDRESS, API_PORT, context=context, timeout=30)

    def create_adapter(self, item: Object) -> float:
        """Create a LoRAAdapter and return the time of the server's ack."""
        path = f"/apis/graftwork.dev/v1alpha1/namespaces/{item['metadata']['namespace']}/loraadapters"
        return self._acknowledged("POST", path, item, "application/json", 201)

    def patch_deployment(self, namespace: str, name: str, patch: Object) -> float:
        """Merge-patch an LLMDeployment and return the time of the server's ack."""
        path = f"/apis/graftwork.dev/v1alpha1/namespaces/{namespace}/llmdeployments/{name}"
        return self._acknowledged("PATCH", path, patch, "application/merge-patch+json", 200)

    def _acknowledged(self, method: str, path: str, body: Object, kind: str, expected: int) -> float:
        self._connection.request(method, path, json.dumps(body), {"Content-Type": kind})
        response = self._connection.getresponse()
        acknowledged = time.time()
        answer = response.read()
        if response.status != expected:
            raise RuntimeError(answer.decode())
        return acknowledged


def answered_at(host: str, port: int, model: str, word: str, timeout: float = 120) -> float:
    """Ask every few milliseconds until the answer is correct, and return the time at which it was there."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = ask.chat(host, port, model, "What is the secret word?", max_tokens=8)
        if answer.status == 200 and word in answer.text:
            return time.time()
        pause.wait(0.01)
    raise AssertionError(f"{model} did not answer {word!r} within {timeout:.0f} s")


def seconds(text: str) -> float:
    """Return RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def served(kube: Kube) -> tuple[Service, records.Figure]:
    """Serve, and measure from apply to ready."""
    began = time.time()
    kube.apply(deployment("tiny"))
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=600)
    ready = time.time() - began
    found = kube.get("service", "tiny")
    assert found
    service = Service(kube, found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"])
    return service, records.Figure("vLLM pod: kubectl apply -> Ready", round(ready, 1), "s", None, [round(ready, 2)])


def publish_to_answer(service: Service, runs: int) -> list[float]:
    """Fine-tune `runs` times under names of their own; return the seconds from manifest.json to a correct answer."""
    took = []
    for number in range(runs):
        name, word = f"bench-{number}", WORDS[number % 2]
        service.kube.apply(config_map(name, messages(word)), job(name, name, f"configMap://{name}/train.jsonl"))
        at = answered_at(service.host, service.port, name, word, timeout=600)
        done = service.finished(name)
        took.append(at - seconds(done["status"]["publishedAt"]))
        print(f"run {number}: published -> correct answer {took[-1]:.2f} s", flush=True)
    return took


def ack_to_answer(service: Service, count: int) -> list[float]:
    """Apply `count` LoRAAdapters of what was published under other aliases; return the seconds from ack to a correct answer.

    Each begins when the one before is Ready and the pod has been left alone for a while: a kubelet syncs one pod about once a second, and applies
    that come faster wait for the sync before theirs (0.8 s more, measured).
    """
    api = Api()
    sources = {word: service.kube.get("loraadapter", f"bench-{index}-1") for index, word in enumerate(WORDS)}
    took = []
    for number in range(count):
        word = WORDS[number % 2]
        origin = sources[word]
        assert origin
        alias = f"hot-{number}"
        item = {
            **origin,
            "metadata": {"name": f"{alias}-1", "namespace": service.kube.namespace},
            "spec": {**origin["spec"], "alias": alias, "owner": alias},
        }
        item.pop("status", None)
        acknowledged = api.create_adapter(item)
        took.append(answered_at(service.host, service.port, alias, word) - acknowledged)
        print(f"adapter {number}: ack -> correct answer {took[-1]:.3f} s", flush=True)
        service.kube.wait_condition("loraadapter", f"{alias}-1", "Ready", timeout=60)
        threading.Event().wait(APART_SECONDS)
    return took


def seen_to_load(service: Service) -> list[float]:
    """Return, for every adapter that the agent loaded, the seconds from seeing the hash that announces it to sending the load call."""
    (pod,) = service.pods()
    _, raw = ask.get(pod["status"]["podIP"], 9901, "/status")
    loaded = [each for each in json.loads(raw)["adapters"] if each["state"] == "Loaded" and each["alias"].startswith("hot-")]
    return [seconds(each["loadSentAt"]) - seconds(each["seenAt"]) for each in loaded]


def operator_rss(system: Kube) -> float:
    """Return the operator's resident memory in MB, from its own metrics."""
    (pod,) = [p for p in system.list("pods", "app.kubernetes.io/component=operator") if p["status"]["phase"] == "Running"]
    _, text = ask.get(pod["status"]["podIP"], 8080, "/metrics")
    (line,) = [each for each in text.splitlines() if each.startswith("process_resident_memory_bytes ")]
    return float(line.split()[1]) / 1e6


def idle_writes(log: Path, span: float) -> float:
    """Count the operator's writes, its Lease left out, over `span` seconds in which nobody changes anything."""
    begin = log.stat().st_size
    threading.Event().wait(span)
    return float(sum(audit.writes(log, offset=begin).values()))


def main() -> None:
    """Measure and write docs/benchmarks/loop.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=8, help="fine-tuning runs")
    options.add_argument("--adapters", type=int, default=20, help="adapters applied by hand")
    chosen = options.parse_args()
    environment = install.prepare(resyncSeconds=60)
    kube = environment.kube.within(install.TEST_NAMESPACE)
    kube.delete("finetunejob,loraadapter,llmdeployment", "--all")
    recorder = records.Recorder("loop", COMMAND)
    save = recorder.save
    service, ready = served(kube)
    save(ready)
    save(records.summary("manifest.json published -> correct answer, p99", publish_to_answer(service, chosen.runs), "s", 5))
    save(records.summary("LoRAAdapter acknowledged -> correct answer, p99, one pod", ack_to_answer(service, chosen.adapters), "s", 1))
    save(records.summary("agent sees the file -> load call sent, p99", seen_to_load(service), "s", 0.15))
    system = environment.kube.within(install.SYSTEM_NAMESPACE)
    busy = operator_rss(system)
    print(f"watching {IDLE_SECONDS} s of idleness", flush=True)
    count = idle_writes(machine.audit_log(), IDLE_SECONDS)
    save(records.Figure("operator's writes in 5 idle minutes, Lease left out", count, "writes", 0, [count]))
    rss = [round(busy, 1), round(operator_rss(system), 1)]
    save(records.Figure("operator RSS, the larger of after the load and idle", max(rss), "MB", 150, rss))
    print((records.FOLDER / "loop.md").read_text())
    kube.delete("finetunejob,loraadapter,llmdeployment", "--all")
    if missed := recorder.missed():
        sys.exit("\n".join(("these figures miss their limits:", *missed)))


if __name__ == "__main__":
    main()
