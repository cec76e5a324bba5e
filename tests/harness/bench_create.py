"""Phases of `make bench-serving` that need no engine: how soon an LLMDeployment has its children, what that writes, and many at once.

Both times and writes are read from the API server's audit log, so that nothing that watches uses the two cores or has a clock of its own. The pods
are never scheduled: their node selector fits no node.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.harness import records
from tests.harness.audit import Call, Tail
from tests.harness.bench_places import Place

NAMESPACE = "bench-serving"
COLLECTION = f"/apis/graftwork.dev/v1alpha1/namespaces/{NAMESPACE}/llmdeployments"
CHILDREN = {
    "configmaps": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "services": f"/api/v1/namespaces/{NAMESPACE}/services",
    "poddisruptionbudgets": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
    "controllerrevisions": f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions",
    "deployments": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
}
APART_SECONDS = 1.0
QUIET_SECONDS = 5.0
"""So long nothing of the operator's is in the log before its writes are counted: longer than it holds any back."""
CHILDREN_SECONDS = 120
SETTLE_SECONDS = 120
REMOVED_SECONDS = 180
POSTERS = 8

CREATE_LIMIT, WRITES_LIMIT, CHILDREN_LIMIT, PASS_LIMIT, RSS_LIMIT_MB = 0.15, 8, 20, 3, 150


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    created: int = 50
    edited: int = 10
    many: int = 300
    requests: int = 500
    """The least in each disruption, of each side."""
    disruptions: str = ""
    """Which, separated by commas; all of them when empty."""


@dataclass(frozen=True)
class Bench:
    """Where a run measures, how much, and how its figures are recorded."""

    place: Place
    recorder: records.Recorder
    sizes: Sizes = field(default_factory=Sizes)

    def save(self, *figures: records.Figure) -> None:
        """Write figures as soon as they are known, under names that say where they were measured."""
        self.recorder.save(*(records.Figure(each.figure + self.place.suffix, each.value, each.unit, each.limit, each.samples) for each in figures))

    @contextmanager
    def namespace(self) -> Iterator[Tail]:
        """Give an empty namespace and the log of what happens in it; remove it afterwards."""
        self._remove()
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        made = self.place.client.post("/api/v1/namespaces", json=namespace)
        if made.status_code not in (201, 409):  # where no controller removes namespaces, it is there and empty
            raise RuntimeError(made.text)
        try:
            yield Tail(self.place.audit_log, NAMESPACE)
        finally:
            self._remove()

    def create(self, name: str) -> None:
        """Create an LLMDeployment as a user does."""
        made = self.place.client.post(COLLECTION, json=manifest(name))
        if made.status_code != 201:
            raise RuntimeError(made.text)

    def settled(self, tail: Tail) -> list[Call]:
        """Return the log of the namespace once the operator has long written nothing."""
        deadline = time.monotonic() + SETTLE_SECONDS
        count, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            if time.monotonic() > deadline:
                raise AssertionError(f"the operator still writes after {SETTLE_SECONDS} s: {tail.calls[-5:]}")
            threading.Event().wait(0.2)
            found = len(writes_of(tail.read(), self.place.operator))
            if found != count:
                count, since = found, time.monotonic()
        return tail.calls

    def until_made(self, tail: Tail, names: Sequence[str]) -> None:
        """Wait until each of these LLMDeployments has all its children."""
        deadline = time.monotonic() + CHILDREN_SECONDS
        missing = set(names)
        while True:
            missing -= set(made_at(tail.read(), self.place.operator, sorted(missing)))
            if not missing:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"after {CHILDREN_SECONDS} s {len(missing)} of {len(names)} have not all their children: {sorted(missing)[:3]}")
            threading.Event().wait(0.02 if len(names) == 1 else 0.25)

    def _remove(self) -> None:
        """Delete everything in the namespace, and the namespace where a controller can."""
        client = self.place.client
        for path in (COLLECTION, *CHILDREN.values()):
            client.delete(path, params={"propagationPolicy": "Background"})
        if self.place.environment is None:
            return
        client.delete(f"/api/v1/namespaces/{NAMESPACE}")
        until(lambda: client.get(f"/api/v1/namespaces/{NAMESPACE}").status_code == 404, f"namespace {NAMESPACE} is gone", REMOVED_SECONDS)


def manifest(name: str) -> dict[str, Any]:
    """Return an LLMDeployment whose pods no node takes; its model lies on a claim, so nothing has to be looked up before the Deployment is made."""
    return {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"source": "pvc://models/tiny"},
            "accelerator": {"types": ["cpu"]},
            "pod": {"nodeSelector": {"bench.example/node": "none"}},
        },
    }


def create(bench: Bench) -> None:
    """Create LLMDeployments one after the other: until the last child is there, and how many writes each costs until nothing more happens."""
    names = [f"created-{number:03}" for number in range(bench.sizes.created)]
    with bench.namespace() as tail:
        for name in names:
            bench.create(name)
            bench.until_made(tail, [name])
            threading.Event().wait(APART_SECONDS)
        calls = bench.settled(tail)
    took = [took_seconds(calls, bench.place.operator, name) for name in names]
    counts = [float(len(writes_of(calls, bench.place.operator, name))) for name in names]
    _say_writes(calls, bench.place.operator, names[-1])
    bench.save(
        records.summary(
            "LLMDeployment (pvc://) received by the API server -> last of its 5 child objects written, p50", took, "s", CREATE_LIMIT, 0.5
        ),
        records.summary("LLMDeployment (pvc://) received by the API server -> last of its 5 child objects written, p99", took, "s", None),
        records.Figure("operator's writes per create, Events included, the most", max(counts), "writes", WRITES_LIMIT, counts),
    )


def edit(bench: Bench) -> None:
    """Apply the same again and annotate, which says nothing to the operator; then edit, which does."""
    names = [f"edited-{number:03}" for number in range(bench.sizes.edited)]
    operator = bench.place.operator
    with bench.namespace() as tail:
        for name in names:
            bench.create(name)
        bench.until_made(tail, names)
        before = len(writes_of(bench.settled(tail), operator))
        passes = value(bench.place.metrics(), "graftwork_reconcile_passes_total", kind="LLMDeployment")
        for name in names:
            _patch(bench, name, {"spec": manifest(name)["spec"]})
            _patch(bench, name, {"metadata": {"annotations": {"bench.example/note": "nothing"}}})
        until(
            lambda: value(bench.place.metrics(), "graftwork_reconcile_passes_total", kind="LLMDeployment") >= passes + len(names),
            "a pass of each that was annotated",
            30,
        )
        nothing = writes_of(bench.settled(tail), operator)[before:]
        for name in names:
            _patch(bench, name, {"spec": {"replicas": 2}})
        something = writes_of(bench.settled(tail), operator)[before + len(nothing) :]
    if len(something) < len(names):
        raise AssertionError(f"{len(names)} edits that change a Deployment were followed by {len(something)} writes: the count sees nothing")
    counts = [float(len(writes_of(nothing, operator, name))) for name in names]
    bench.save(
        records.Figure("operator's writes per edit that changes nothing (same manifest, annotation), the most", max(counts), "writes", 0, counts)
    )


def many(bench: Bench) -> None:
    """Create many at once: until all have their children, the longest passes, and the operator's memory."""
    count, operator = bench.sizes.many, bench.place.operator
    names = [f"many-{number:03}" for number in range(count)]
    with bench.namespace() as tail:
        before = bench.place.metrics()
        with _memory(bench.place) as seen, ThreadPoolExecutor(POSTERS) as pool:
            list(pool.map(bench.create, names))
            bench.until_made(tail, names)
            calls = bench.settled(tail)
        after = bench.place.metrics()
    made = made_at(calls, operator, names)
    began = min(call.received for call in _creations(calls))
    each = [round(made[name] - began, 2) for name in names]
    counts = [float(len(writes_of(calls, operator, name))) for name in names]
    idle = value(before, "process_resident_memory_bytes") / 1e6
    used = round(value(after, "process_cpu_seconds_total") - value(before, "process_cpu_seconds_total"), 2)
    bench.save(
        records.Figure(f"{count} LLMDeployments at once -> all child objects written", max(each), "s", CHILDREN_LIMIT, each),
        _slowest(f"{count} LLMDeployments at once: p99 of a reconcile pass, at most", "graftwork_reconcile_seconds", before, after, PASS_LIMIT),
        _slowest(f"{count} LLMDeployments at once: p99 from a wake to its pass, at most", "graftwork_wake_to_pass_seconds", before, after, None),
        records.Figure(f"{count} LLMDeployments at once: operator's writes per create, mean", statistics.mean(counts), "writes", None, counts),
        records.Figure(f"{count} LLMDeployments at once: operator's CPU time until nothing more happens", used, "s", None, [used]),
        records.Figure(f"operator RSS before {count} LLMDeployments", round(idle, 1), "MB", None, [round(idle, 1)]),
        records.Figure(f"operator RSS with {count} LLMDeployments, the largest seen", max(seen), "MB", RSS_LIMIT_MB, seen),
    )


# --- reading the audit log


def writes_of(calls: Iterable[Call], operator: str, name: str = "") -> list[Call]:
    """Return the operator's write requests, those about one LLMDeployment and what is named after it if a name is given."""
    return [call for call in calls if call.user == operator and call.wrote and call.name.startswith(name)]


def made_at(calls: Iterable[Call], operator: str, names: Sequence[str]) -> dict[str, float]:
    """Return when the last child of each of these LLMDeployments was answered for; one that lacks a child is not in it."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    width = max((len(name) for name in names), default=0)
    for call in writes_of(calls, operator):
        children = found.get(call.name[:width])
        if children is not None and call.resource in CHILDREN and call.verb in ("create", "patch") and call.code < 300:
            children.setdefault(call.resource, call.answered)
    return {name: max(children.values()) for name, children in found.items() if len(children) == len(CHILDREN)}


def took_seconds(calls: Sequence[Call], operator: str, name: str) -> float:
    """Return the seconds from the API server's receipt of an LLMDeployment to its answer for the last child."""
    (received,) = [call.received for call in _creations(calls) if call.name == name]
    return made_at(calls, operator, [name])[name] - received


def _creations(calls: Iterable[Call]) -> list[Call]:
    return [call for call in calls if call.resource == "llmdeployments" and call.verb == "create" and call.code < 300]


def _say_writes(calls: Sequence[Call], operator: str, name: str) -> None:
    received = next(call.received for call in _creations(calls) if call.name == name)
    for call in writes_of(calls, operator, name):
        print(f"  {call.answered - received:6.3f} s {call.verb} {call.resource} {call.name} {call.code}", flush=True)


# --- reading the operator's metrics


def value(text: str, series: str, **labels: str) -> float:
    """Return the sum of a series' samples with these labels."""
    return float(sum(sample.value for sample in _samples(text, series) if labels.items() <= sample.labels.items()))


def quantile_edge(series: str, share: float, before: str, after: str, **labels: str) -> float:
    """Return the upper edge of the histogram's bucket in which the quantile of what came between two readings lies: it is that or less."""
    counts = {
        float(sample.labels["le"]): sample.value - value(before, f"{series}_bucket", **sample.labels)
        for sample in _samples(after, f"{series}_bucket")
        if labels.items() <= sample.labels.items()
    }
    total = max(counts.values(), default=0.0)
    if not total:
        raise AssertionError(f"{series} {labels} counted nothing in between")
    return min(edge for edge, count in counts.items() if count >= share * total)


def _samples(text: str, name: str) -> Iterator[Any]:
    for family in text_string_to_metric_families(text):
        yield from (sample for sample in family.samples if sample.name == name)


def _slowest(figure: str, series: str, before: str, after: str, limit: float | None) -> records.Figure:
    edge = quantile_edge(series, 0.99, before, after, kind="LLMDeployment")
    return records.Figure(figure, edge, "s", limit, [edge])


@contextmanager
def _memory(place: Place) -> Iterator[list[float]]:
    """Give a list that gets the operator's resident memory, in MB, twice a second."""
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            with suppress(OSError):  # busy: asked again
                seen.append(round(value(place.metrics(), "process_resident_memory_bytes") / 1e6, 1))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def _patch(bench: Bench, name: str, patch: dict[str, Any]) -> None:
    answer = bench.place.client.patch(f"{COLLECTION}/{name}", json=patch, headers={"Content-Type": "application/merge-patch+json"})
    if answer.status_code != 200:
        raise RuntimeError(answer.text)


def until(true: Callable[[], bool], what: str, timeout: float) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout:.0f} s: {what}")
        threading.Event().wait(0.2)
