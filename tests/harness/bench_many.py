"""A phase of `make bench-adapters`: more adapters on one engine than it has slots: the agent's memory, and a request whose adapter has no slot."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

from tests.harness import processes, records
from tests.harness.bench_stage import LABEL, Stage, agent_status, create_all, reasons
from tests.harness.every_pod import EveryPod
from tests.harness.kept import Kept
from tests.harness.kube import Object

MAX_LOADED = 16
LOADED_SECONDS = 240
MEMORY_LIMIT_MB = 80
TAUGHT_COUNT = 2


def many(stage: Stage) -> None:
    """Load them all, ask each, and read the agent's memory before and after."""
    count = stage.sizes.many
    service = stage.serving(max_loaded=MAX_LOADED)
    (pod,) = service.pods()
    host, uid = pod["status"]["podIP"], pod["metadata"]["uid"]
    copies = stage.copies([f"many-{number}" for number in range(count - TAUGHT_COUNT)])
    began = create_all([item for item, _ in copies])
    took = _all_loaded(stage, host, count) - began
    slots, cached = flag(pod, "--max-loras"), flag(pod, "--max-cpu-loras")
    if slots >= len(copies):
        raise AssertionError(
            f"the engine has {slots} slots for {len(copies)} adapters that are asked in turns, so none of them would ever lose its own"
        )
    stage.save(
        records.Figure(f"{count} adapters on one engine: all applied at once -> all loaded", round(took, 1), "s", None, [round(took, 2)]),
        records.Figure(f"{count} adapters on one engine: slots (--max-loras)", slots, "adapters", None, [slots]),
        records.Figure(f"{count} adapters on one engine: CPU cache (--max-cpu-loras)", cached, "adapters", None, [cached]),
    )
    after_load = agent_memory(uid)
    with EveryPod([host], service.port) as engine:  # each with its word; also brings the engine's order of use into ours
        engine.last_of([(item["spec"]["alias"], word) for item, word in copies], 120)
    cold, warm = _cold_and_warm(host, service.port, [item["spec"]["alias"] for item, _ in copies])
    where = "in the CPU cache" if cached >= count else "that may have to be read from the disk"
    stage.save(
        _median(f"{count} adapters on one engine: one-token answer of an adapter {where} and in no slot, median", cold),
        _median(f"{count} adapters on one engine: one-token answer of an adapter in a slot, median", warm),
        *_memory_figures(count, [after_load, agent_memory(uid)]),
    )


def _all_loaded(stage: Stage, host: str, count: int) -> float:
    """Return the time at which the engine listed them all."""
    deadline = time.monotonic() + LOADED_SECONDS
    while time.monotonic() < deadline:
        states = Counter(row["state"] for row in agent_status(host)["adapters"])
        if states["Loaded"] >= count:
            return time.time()
        threading.Event().wait(0.5)
    found = reasons(stage.kube.list("loraadapter", LABEL))
    raise AssertionError(f"not {count} adapters loaded after {LOADED_SECONDS} s: {dict(states)} in the agent; LoRAAdapters: {found}")


def _cold_and_warm(host: str, port: int, aliases: list[str]) -> tuple[list[float], list[float]]:
    """Ask every adapter twice, in the order of last use: the first finds it in no slot, because all others were asked since; the second does."""
    client = Kept(host, port)
    cold, warm = [], []
    for alias in aliases:
        cold.append(_one_token(client, alias))
        warm.append(_one_token(client, alias))
    client.close()
    return cold, warm


def _one_token(client: Kept, model: str) -> float:
    body = json.dumps({"model": model, "prompt": "The secret word is", "max_tokens": 1, "temperature": 0}).encode()
    began = time.perf_counter()
    status, raw = client.send("POST", "/v1/completions", body)
    took = time.perf_counter() - began
    if status != 200:
        raise AssertionError(f"{model} answered {status}: {raw[:200]!r}")
    return took


def _median(figure: str, samples: list[float]) -> records.Figure:
    return records.Figure(figure, round(statistics.median(samples), 4), "s", None, [round(sample, 4) for sample in samples])


def _memory_figures(count: int, seen: list[tuple[float, float]]) -> list[records.Figure]:
    now, peak = [round(rss, 1) for rss, _ in seen], [round(highest, 1) for _, highest in seen]
    return [
        records.Figure(f"{count} adapters on one engine: agent RSS, all its processes together", max(now), "MB", MEMORY_LIMIT_MB, now),
        records.Figure(
            f"{count} adapters on one engine: agent's largest RSS since its start, all its processes together", max(peak), "MB", None, peak
        ),
    ]


def agent_memory(uid: str) -> tuple[float, float]:
    """Return the resident memory of the agent's processes (supervisor and agent) together, in MB: now, and the largest since they began.

    What they share is counted once for each, so the sum is no less than what the container really holds.
    """
    pids = processes.of_pod(uid, "graftwork_agent")
    if not pids:
        raise AssertionError(f"pod {uid} has no agent on this machine")
    found = [resident(Path(f"/proc/{pid}/status").read_text()) for pid in pids]
    return sum(now for now, _ in found), sum(peak for _, peak in found)


def resident(status: str) -> tuple[float, float]:
    """Return VmRSS and VmHWM of /proc/<pid>/status, in MB (10^6 bytes)."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return _megabytes(fields["VmRSS"]), _megabytes(fields["VmHWM"])


def _megabytes(text: str) -> float:
    number, unit = text.split()
    if unit != "kB":
        raise ValueError(f"{text!r} is not in kB")
    return int(number) * 1024 / 1e6


def flag(pod: Object, name: str) -> int:
    """Return the number that a flag of the engine's command line has."""
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == "vllm"]
    (value,) = [each.partition("=")[2] for each in container["args"] if each.partition("=")[0] == name]
    return int(value)
