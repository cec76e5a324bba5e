"""A phase of `make bench-adapters`: one more adapter under load, by a restart with `--lora-modules` as usual, and by a LoRAAdapter."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.e2e.service import Service
from tests.harness import plain, records
from tests.harness.bench_stage import NAME, TAUGHT, Stage
from tests.harness.load import Load

CLIENTS = 4
LOAD_SECONDS = 360
ANSWER_SECONDS = 240
BEFORE, AFTER = 12, 12
"""Complete requests before the change, and after the last pod that it ends is gone."""


@dataclass(frozen=True)
class Change:
    """What one more adapter cost."""

    seconds: float
    lost: int
    complete: int


def usual(stage: Stage) -> None:
    """Add an adapter in both ways, under the same load."""
    service = stage.serving()
    one = by_restart(stage, service)
    plain.remove(stage.kube)
    require_loss(one)
    other = by_adapter(stage, service)
    stage.save(*figures("restart with --lora-modules (1 replica)", one, None), *figures("LoRAAdapter", other, 0))


def require_loss(restart: Change) -> None:
    """Void a run in which the plain way lost nothing: then this load would not have seen ours lose something either."""
    if not restart.lost:
        raise AssertionError(
            f"the plain Deployment lost none of {restart.complete} requests during its restart, so the comparison proves nothing; "
            "nothing of it is recorded: run it again (ONLY=usual)"
        )


def by_restart(stage: Stage, service: Service) -> Change:
    """Change the plain Deployment's command line; the load ends when the old pod is gone."""
    (pod,) = service.pods()
    first, second = TAUGHT
    host = plain.start(stage.kube, pod, {first: stage.source(first)})
    changed = plain.objects(pod, {name: stage.source(name) for name in TAUGHT})
    with Load(host, plain.PORT, [NAME, first], clients=CLIENTS, seconds=LOAD_SECONDS) as load:
        load.wait_for(BEFORE)
        began = time.time()
        stage.kube.apply(*changed)
        Service(stage.kube, host, plain.PORT, plain.NAME).until_answer(second, TAUGHT[second], timeout=ANSWER_SECONDS)
        took = time.time() - began
        plain.finished(stage.kube)
        load.wait_for(AFTER)
    return _change("restart", took, load)


def by_adapter(stage: Stage, service: Service) -> Change:
    """Apply a LoRAAdapter with kubectl."""
    first = next(iter(TAUGHT))
    ((item, word),) = stage.copies(["usual"])
    with Load(service.host, service.port, [NAME, first], clients=CLIENTS, seconds=LOAD_SECONDS) as load:
        load.wait_for(BEFORE)
        began = time.time()
        stage.kube.apply(item)
        service.until_answer("usual", word, timeout=ANSWER_SECONDS)
        took = time.time() - began
        stage.kube.wait_condition("loraadapter", item["metadata"]["name"], "Ready", timeout=60)
        load.wait_for(AFTER)
    return _change("LoRAAdapter", took, load)


def _change(how: str, took: float, load: Load) -> Change:
    tally = load.tally
    print(f"{how}: {took:.1f} s, {len(tally.failures)} of {tally.complete + len(tally.failures)} requests lost: {tally.failures[:3]}", flush=True)
    return Change(took, len(tally.failures), tally.complete)


def figures(how: str, change: Change, limit: float | None) -> list[records.Figure]:
    """Return seconds and lost requests of one way; `limit` is for the latter."""
    asked = change.lost + change.complete
    seconds = records.Figure(
        f"one more adapter under load, {how}: kubectl apply -> correct answer", round(change.seconds, 2), "s", None, [round(change.seconds, 3)]
    )
    lost = records.Figure(f"one more adapter under load, {how}: lost requests", change.lost, "requests", limit, [change.lost])
    share = records.Figure(f"one more adapter under load, {how}: requests in that time", asked, "requests", None, [asked])
    return [seconds, lost, share]
