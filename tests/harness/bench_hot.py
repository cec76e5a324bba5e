"""Phases of `make bench-adapters`: how soon every pod answers for a new adapter, after a rollback, and after an unload by hand."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.service import Service
from tests.harness import processes, records
from tests.harness.bench_loop import Api, seconds
from tests.harness.bench_stage import NAME, TAUGHT, Stage, agent_status, create_all, rest
from tests.harness.every_pod import EveryPod
from tests.harness.kept import Kept
from tests.harness.kube import Object

TOKEN = "graftwork/run/token"
BURST_SECONDS = 240
KNOWN = 20


def one_pod(stage: Stage) -> None:
    """Measure with one pod: adapters one at a time, then all at once."""
    _new_adapters(stage, 1)


def three_pods(stage: Stage) -> None:
    """Measure with three pods: the same, and how fast each agent acts."""
    _new_adapters(stage, 3)


def _new_adapters(stage: Stage, replicas: int) -> None:
    service, count = stage.serving(replicas), stage.sizes.adapters
    pods = "1 pod" if replicas == 1 else f"{replicas} pods"
    acknowledged, took = _spaced(stage, service, count)
    what = f"LoRAAdapter acknowledged -> correct answer of every pod, {pods}, {count} adapters 2 s apart"
    stage.save(
        records.summary(f"LoRAAdapter acknowledged -> correct answer of every pod, p99, {pods}, {count} adapters 2 s apart", took, "s", 1),
        *stages(what, acknowledged, [agent_status(host) for host in stage.hosts(service)]),
    )
    stage.save(
        records.summary(
            f"question about an adapter that is long loaded -> correct answer of every pod, p99, {pods}", _known(stage, service), "s", None
        )
    )
    if replicas > 1:
        per_pod = [seen_to_load(agent_status(host), count) for host in stage.hosts(service)]
        stage.save(slowest(f"agent sees the hash -> load call sent, p99 of the slowest of {pods}", per_pod, 0.15))
    service = stage.serving(replicas)
    took = [_at_once(stage, service, count)]
    stage.save(records.summary(f"{count} LoRAAdapters at once -> the last answers correctly on every pod, {pods}", took, "s", None))
    per_pod = [seen_to_load(agent_status(host), count) for host in stage.hosts(service)]  # an engine loads one after the other: most of them wait
    stage.save(slowest(f"{count} LoRAAdapters at once: agent sees the hash -> load call sent, p99 of the slowest of {pods}", per_pod, None))


def _spaced(stage: Stage, service: Service, count: int) -> tuple[dict[str, float], list[float]]:
    """Apply adapters one at a time; return when each alias was acknowledged, and the seconds from there to the last pod's correct answer."""
    api, took, acks = Api(), [], {}
    with EveryPod(stage.hosts(service), service.port) as pods:
        for item, word in stage.copies([f"hot-{number}" for number in range(count)]):
            acks[item["spec"]["alias"]] = acknowledged = api.create_adapter(item)
            took.append(pods.last_correct(item["spec"]["alias"], word) - acknowledged)
            print(f"{item['metadata']['name']}: ack -> correct everywhere {took[-1]:.3f} s", flush=True)
            stage.kube.wait_condition("loraadapter", item["metadata"]["name"], "Ready", timeout=60)
            rest()
    return acks, took


def _known(stage: Stage, service: Service) -> list[float]:
    """Ask every pod at once for what they have long had; return the seconds until the last has answered correctly."""
    took = []
    with EveryPod(stage.hosts(service), service.port) as pods:
        for (alias, word), _ in zip(itertools.cycle(TAUGHT.items()), range(KNOWN), strict=False):
            began = time.time()
            took.append(pods.last_correct(alias, word) - began)
            rest()
    return took


def stages(what: str, acknowledged: Mapping[str, float], statuses: Sequence[Object]) -> list[records.Figure]:
    """Return where the time goes: the medians from the ack to the moment at which the last agent has seen it, and the last engine listed it."""
    seen: dict[str, float] = {}
    loaded: dict[str, float] = {}
    for row in (row for status in statuses for row in status["adapters"] if row["alias"] in acknowledged):
        for moments, value in ((seen, row["seenAt"]), (loaded, row["loadedAt"])):
            if value:
                moments[row["alias"]] = max(moments.get(row["alias"], 0.0), seconds(value) - acknowledged[row["alias"]])
    found = ((f"{what}: until the last agent sees the hash, median", seen), (f"{what}: until the last engine lists it, median", loaded))
    return [
        records.Figure(name, round(statistics.median(moments.values()), 3), "s", None, [round(moment, 3) for moment in moments.values()])
        for name, moments in found
    ]


def _at_once(stage: Stage, service: Service, count: int) -> float:
    """Return the seconds from the first request to the API server until the last of the adapters answers correctly on every pod."""
    copies = stage.copies([f"hot-{number}" for number in range(count)])
    with EveryPod(stage.hosts(service), service.port) as pods:
        began = create_all([item for item, _ in copies])
        return pods.last_of([(item["spec"]["alias"], word) for item, word in copies], BURST_SECONDS) - began


def seen_to_load(status: Object, count: int) -> list[float]:
    """Return, for every copy that one agent loaded, the seconds from seeing the hash that announces it to sending the load call."""
    rows = [row for row in status["adapters"] if row["state"] == "Loaded" and row["alias"] not in TAUGHT]
    took = [seconds(row["loadSentAt"]) - seconds(row["seenAt"]) for row in rows if row["loadSentAt"] and row["seenAt"]]
    if len(took) != count:
        raise AssertionError(f"the agent of {status['pod']} tells the times of {len(took)} adapters and not of {count}")
    return took


def slowest(figure: str, per_pod: list[list[float]], limit: float | None) -> records.Figure:
    """Return the p99 of the pod where it is largest, with the samples of all."""
    value = max(records.percentile(samples, 0.99) for samples in per_pod)
    return records.Figure(figure, round(value, 4), "s", limit, [round(sample, 4) for samples in per_pod for sample in samples])


def rollback(stage: Stage) -> None:
    """Pin an alias to its older version and let it go again, several times."""
    service, api = stage.serving(), Api()
    (first, older), (second, newer) = stage.versions("flip")
    back, forth = [], []
    with EveryPod(stage.hosts(service), service.port) as pods:
        for item, word in ((first, older), (second, newer)):
            api.create_adapter(item)
            stage.kube.wait_condition("loraadapter", item["metadata"]["name"], "Ready", timeout=60)
            pods.last_correct("flip", word)
        try:
            for _ in range(stage.sizes.flips):
                rest()
                back.append(pods_follow(stage, api, pods, "flip-1", older))
                rest()
                forth.append(pods_follow(stage, api, pods, "", newer))
                stage.kube.wait_condition("loraadapter", "flip-2", "Ready", timeout=60)
        finally:
            api.patch_deployment(stage.kube.namespace, NAME, {"spec": {"adapters": {"aliases": None}}})
    stage.save(
        records.summary("alias pinned to its older version -> its answer, the slowest", back, "s", 1, share=1),
        records.summary("pin removed -> the newer version's answer, the slowest", forth, "s", None, share=1),
    )


def pods_follow(stage: Stage, api: Api, pods: EveryPod, adapter: str, word: str) -> float:
    """Pin the alias `flip` (nothing: let it go), and return the seconds from the ack until every pod answers with the word."""
    aliases = [{"name": "flip", "adapter": adapter}] if adapter else []
    acknowledged = api.patch_deployment(stage.kube.namespace, NAME, {"spec": {"adapters": {"aliases": aliases}}})
    took = pods.last_correct("flip", word) - acknowledged
    print(f"flip -> {adapter or 'newest'}: {took:.3f} s", flush=True)
    stage.kube.wait_condition("llmdeployment", NAME, "Ready", timeout=60)
    return took


def unloaded(stage: Stage) -> None:
    """Unload an adapter behind the agent's back, as somebody in the pod could, and see when the engine has it again."""
    service = stage.serving()
    (pod,) = service.pods()
    engine = Kept(pod["status"]["podIP"], service.port, {"X-Graftwork-Token": token(pod["metadata"]["uid"])})
    alias = next(iter(TAUGHT))
    name = agent_status(pod["status"]["podIP"])["routes"][alias]
    took = []
    for number in range(stage.sizes.flips):
        took.append(_back_after_unload(engine, name))
        print(f"{name}: unloaded -> listed {took[-1]:.3f} s", flush=True)
        threading.Event().wait(1 + 0.37 * number % 1)  # the agent looks once a second: begin at another moment of that second each time
    engine.close()
    service.until_answer(alias, TAUGHT[alias])
    stage.save(records.summary("adapter unloaded by hand -> back in the engine's list, the slowest", took, "s", 2, share=1))


def token(uid: str) -> str:
    """Return a pod's secret, which the host's root can read and nobody outside the pod else."""
    agents = processes.of_pod(uid, "graftwork_agent")
    if not agents:
        raise AssertionError(f"pod {uid} has no agent on this machine")
    return Path(f"/proc/{agents[0]}/root/{TOKEN}").read_text().strip()


def _back_after_unload(engine: Kept, name: str, timeout: float = 30) -> float:
    status, raw = engine.send("POST", "/v1/unload_lora_adapter", json.dumps({"lora_name": name}).encode())
    began = time.monotonic()
    if status != 200:
        raise AssertionError(f"the engine answered the unload of {name} with {status}: {raw[:200]!r}")
    if name in _listed(engine):
        raise AssertionError(f"{name} is still listed right after its unload, so nothing can be measured")
    while name not in _listed(engine):
        if time.monotonic() - began > timeout:
            raise AssertionError(f"{name} is not back after {timeout:.0f} s")
        threading.Event().wait(0.01)
    return time.monotonic() - began


def _listed(engine: Kept) -> list[str]:
    status, raw = engine.send("GET", "/v1/models")
    if status != 200:
        raise AssertionError(f"the engine answered /v1/models with {status}: {raw[:200]!r}")
    return [str(card["id"]) for card in json.loads(raw)["data"]]
