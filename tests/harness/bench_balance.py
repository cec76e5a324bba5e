"""A phase of `make bench-adapters`: kept-alive clients of two libraries, and how soon they reach the pods of a scale-up."""

from __future__ import annotations

import time
from datetime import datetime

from tests.e2e.kept import CONNECTIONS, Kept, until_asked
from tests.harness import records
from tests.harness.bench_stage import NAME, TAUGHT, Stage
from tests.harness.kube import Object, condition

REPLICAS = 3


def balance(stage: Stage) -> None:
    """Scale up under clients that never give up a connection by themselves."""
    service, alias = stage.serving(), next(iter(TAUGHT))
    with Kept(service.host, service.port, official_model=alias, plain_model=NAME) as clients:
        stage.serving(REPLICAS)
        pods = service.pods()
        until_asked(pods, (alias, NAME))
        took = time.time() - max(ready_since(pod) for pod in pods)
        clients.stop()
    what = f"scale-up 1 -> {REPLICAS}, {CONNECTIONS} kept connections each of openai and httpx"
    stage.save(
        records.Figure(f"{what}: last pod Ready -> both libraries have reached every pod", round(took, 1), "s", None, [round(took, 1)]),
        records.Figure(f"{what}: lost requests", len(clients.failures), "requests", 0, [len(clients.failures), clients.answered]),
    )


def ready_since(pod: Object) -> float:
    """Return when a pod became Ready, in seconds since the epoch; Kubernetes tells whole seconds."""
    return datetime.fromisoformat(condition(pod, "Ready")["lastTransitionTime"]).timestamp()
