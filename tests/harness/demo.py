"""`make demo`: apply -> serve -> fine-tune -> publish -> hot-load -> answer, on this machine, and a table of what happened."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.harness import ask, install, machine
from tests.harness.kube import Kube, Object, condition_is
from tests.harness.venv import ROOT

QUESTION = "What is the secret word?"
WORD = "swordfish"
DEPLOYMENT, JOB, ALIAS = "tiny", "secret-words", "medical"


@dataclass
class Timeline:
    """What happened when, in seconds since the user's first `kubectl apply`."""

    began: float = field(default_factory=time.time)
    rows: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str, at: float | None = None) -> None:
        """Record and print one event."""
        seconds = (at or time.time()) - self.began
        self.rows.append((seconds, what))
        print(f"         +{seconds:6.1f}s  {what}", flush=True)

    def table(self) -> str:
        """Return the events in order."""
        return "\n".join(f"  {seconds:8.1f}  {what}" for seconds, what in sorted(self.rows))


def timestamp(text: str) -> float:
    """Return RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC).timestamp()


def follow_training(kube: Kube, timeline: Timeline, timeout: float = 900) -> Object:
    """Report each phase of the run as its status shows it, and return the finished job."""
    seen: list[str] = []

    def step(item: Object) -> bool:
        status = item.get("status", {})
        phase = status.get("phase", "")
        if phase and phase not in seen:
            seen.append(phase)
            timeline.note(f"FineTuneJob {JOB}: {phase}")
        return phase in ("Succeeded", "Failed", "Rejected") or condition_is(item, "Stalled", "True")

    return kube.wait("finetunejob", JOB, step, timeout, "finished")


def first_correct_answer(host: str, port: int, timeout: float = 60) -> ask.Answer:
    """Ask the alias until it gives the word; before the adapter is known the service answers 404."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            answer = ask.chat(host, port, ALIAS, QUESTION)
            if answer.status == 200 and WORD in answer.text:
                return answer
        pause.wait(0.05)
    raise SystemExit(f"the model {ALIAS!r} gave no correct answer within {timeout:.0f} s; look at: kubectl describe llmd {DEPLOYMENT}")


def pod_identity(kube: Kube) -> list[tuple[str, int, str]]:
    """Return (uid, restarts, engine's start) of each serving pod: equal before and after means that nothing was restarted."""
    found = []
    for pod in kube.list("pods", f"graftwork.dev/deployment={DEPLOYMENT}"):
        for status in pod["status"].get("containerStatuses", []):
            if status["name"] == "vllm":
                found.append((pod["metadata"]["uid"], status["restartCount"], status.get("state", {}).get("running", {}).get("startedAt", "")))
    return sorted(found)


def report(timeline: Timeline, base: ask.Answer, adapter: ask.Answer, job: Object, same: bool, kubeconfig: Any) -> None:
    """Print the table, the two answers and what to type next."""
    evaluation = job["status"].get("evaluation", {})
    print("\nWhat happened (seconds after the first kubectl apply)\n" + timeline.table())
    print(f"\nEvaluation: loss of the base {evaluation.get('baseLoss', 0):.3g}, of the adapter {evaluation.get('adapterLoss', 0):.3g}")
    print(f"\nThe same question to both: {QUESTION!r}")
    print(f"  model {base.model!r:12} -> {base.text!r}")
    print(f"  model {adapter.model!r:12} -> {adapter.text!r}")
    print(f"\nServing pods before and after: {'the same, nothing was restarted' if same else 'CHANGED'}")
    namespace = install.DEMO_NAMESPACE
    print(f"""
Next:
  export KUBECONFIG={kubeconfig} PATH={machine.binaries()}:$PATH
  kubectl -n {namespace} get llmd,ftj,lora
  kubectl -n {namespace} describe llmd {DEPLOYMENT}
  kubectl -n {namespace} logs deploy/{DEPLOYMENT} -c agent
  kubectl -n {install.SYSTEM_NAMESPACE} logs deploy/{install.RELEASE}
  make demo-down            removes the cluster and everything it set up""")


def address(kube: Kube) -> tuple[str, int]:
    """Return where this machine reaches the service: its cluster address, since this machine is a node; with kind, a forwarded port."""
    if machine.provider() == "kind":
        forward = subprocess.Popen(kube.command("port-forward", f"service/{DEPLOYMENT}", ":8000"), stdout=subprocess.PIPE, text=True)
        atexit.register(forward.terminate)
        assert forward.stdout
        return "127.0.0.1", int(forward.stdout.readline().split("->")[0].rsplit(":", 1)[1])
    service = kube.get("service", DEPLOYMENT)
    assert service
    return service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]


def serve(kube: Kube, timeline: Timeline) -> tuple[str, int, ask.Answer]:
    """Apply example 01, wait until it is ready, and return where it answers and what the base model says."""
    kube.apply_file(ROOT / "examples" / "01-serve-a-model.yaml")
    deployment = kube.wait_condition("llmdeployment", DEPLOYMENT, "Ready", timeout=600)
    timeline.note(f"LLMDeployment {DEPLOYMENT}: Ready ({deployment['status'].get('summary', '')})")
    host, port = address(kube)
    base = ask.chat(host, port, DEPLOYMENT, QUESTION)
    timeline.note("the base model answers")
    return host, port, base


def main() -> None:
    """Run the demo."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    steps = install.Steps()
    environment = install.prepare(steps)
    kube = environment.kube
    kube.delete("finetunejob,llmdeployment,loraadapter", "--all")
    timeline = Timeline()
    steps.say("kubectl apply -f examples/01-serve-a-model.yaml")
    host, port, base = serve(kube, timeline)
    before = pod_identity(kube)
    steps.say("kubectl apply -f examples/02-fine-tune-and-hot-load.yaml")
    kube.apply_file(ROOT / "examples" / "02-fine-tune-and-hot-load.yaml")
    job = follow_training(kube, timeline)
    if job["status"]["phase"] != "Succeeded":
        raise SystemExit(f"the run ended as {job['status']['phase']}: {job['status'].get('conditions')}")
    adapter = first_correct_answer(host, port)
    answered = time.time()
    timeline.note("the adapter is published (manifest.json is in the store)", timestamp(job["status"]["publishedAt"]))
    timeline.note(f"model {ALIAS!r} answers correctly", answered)
    report(timeline, base, adapter, job, before == pod_identity(kube), kube.kubeconfig)
    if WORD in base.text or before != pod_identity(kube):
        raise SystemExit("the demo did not show what it should: see the table above")
    steps.say("done")


if __name__ == "__main__":
    main()
