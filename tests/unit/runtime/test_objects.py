"""When a status is written, and that of the same news only one Event is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from graftwork.cluster.kinds import Key
from graftwork.reconcile.announce import announce
from graftwork.reconcile.context import Context
from graftwork.reconcile.objects import COUNT_SECONDS, write_status

from tests.unit.runtime.fakes import FakeClock, FakeCluster, FakeEvents, new_context, obj_of

KEY = Key("LLMDeployment", "ml", "one")


LOADED = {"type": "AdaptersLoaded", "status": "True", "reason": "AdaptersLoaded", "message": "1 alias"}


def status(reason: str = "PodsStarting", message: str = "0 of 2", value: str = "False", **fields: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": value, "reason": reason, "message": message}
    others = fields.pop("more", [LOADED])
    return {
        "observedGeneration": 1,
        "conditions": [condition, *others],
        "replicas": 0,
        "readyReplicas": 0,
        "replicasText": "0/2",
        "summary": "0/2",
        **fields,
    }


class Bench:
    def __init__(self) -> None:
        self.woken: list[tuple[Key, float]] = []
        self.ctx: Context = replace(new_context(), wake=lambda key, after=0: self.woken.append((key, after)))
        assert isinstance(self.ctx.cluster, FakeCluster)
        assert isinstance(self.ctx.clock, FakeClock)
        assert isinstance(self.ctx.events, FakeEvents)
        self.cluster, self.clock, self.events = self.ctx.cluster, self.ctx.clock, self.ctx.events
        self.cluster.seed(obj_of("LLMDeployment", generation=1))

    async def write(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether that was a request."""
        before = len(self.cluster.writes)
        obj = self.cluster.objects[KEY]
        await write_status(self.ctx, obj, wanted)
        return len(self.cluster.writes) > before


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    assert await made.write(status())
    return made


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 1},
        {"readyReplicas": 1, "replicasText": "1/2", "summary": "1/2 ready"},
        {"message": "1 of 2 pods"},
    ],
)
async def test_what_only_counts_on_is_written_once_a_second_and_never_forgotten(bench: Bench, change: dict[str, Any]) -> None:
    await bench.clock.advance(0.25)
    assert not await bench.write(status(**change))
    assert bench.woken == [(KEY, pytest.approx(COUNT_SECONDS - 0.25))]
    await bench.clock.advance(COUNT_SECONDS - 0.25)
    assert await bench.write(status(**change))
    assert bench.cluster.objects[KEY]["status"] == status(**change)
    assert not await bench.write(status(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "Unschedulable", "replicas": 1},
        {"value": "True"},
        {"observedGeneration": 2},
        {"adapters": [{"alias": "medical", "stable": "medical-1"}]},
        {"rollout": {"revision": 2}},
        {"more": [{"type": "AdaptersLoaded", "status": "True", "reason": "AdaptersLoaded", "message": "5 of 100 requests failed"}]},
    ],
)
async def test_everything_else_is_written_at_once(bench: Bench, change: dict[str, Any]) -> None:
    assert await bench.write(status(**change))
    assert bench.woken == []


async def test_a_restarted_operator_holds_nothing_back(bench: Bench) -> None:
    bench.ctx = new_context()
    assert isinstance(bench.ctx.cluster, FakeCluster)
    bench.ctx.cluster.objects = bench.cluster.objects
    await write_status(bench.ctx, bench.cluster.objects[KEY], status(replicas=1))
    assert bench.ctx.cluster.writes == [("patch_status", "LLMDeployment", "one")]


async def test_a_status_that_could_not_be_written_is_not_taken_for_written(bench: Bench) -> None:
    await bench.clock.advance(COUNT_SECONDS)
    stale = {**bench.cluster.objects[KEY], "metadata": {**bench.cluster.objects[KEY]["metadata"], "resourceVersion": "1"}}
    with pytest.raises(Exception, match="is not of version"):
        await write_status(bench.ctx, stale, status(replicas=1))
    assert await bench.write(status(replicas=1))


def test_how_every_deployment_begins_is_no_event_and_what_comes_then_is(bench: Bench) -> None:
    obj = obj_of("LLMDeployment")
    none = {"type": "AdaptersLoaded", "status": "True", "reason": "NoAdapters", "message": "no adapters"}
    first = {"conditions": status(more=[none])["conditions"]}
    announce(bench.ctx, obj, first)
    assert bench.events.recorded == []
    announce(bench.ctx, {**obj, "status": first}, {"conditions": status("Unschedulable", "no node", more=[none])["conditions"]})
    ready = {"conditions": status("Reconciled", "2 of 2", "True", more=[none])["conditions"]}
    announce(bench.ctx, {**obj, "status": first}, ready)
    announce(bench.ctx, {**obj, "status": ready}, first)
    assert [reason for _, reason, _ in bench.events.recorded] == ["Unschedulable", "Reconciled", "PodsStarting"]


def test_a_first_word_that_is_a_fault_is_an_event(bench: Bench) -> None:
    announce(bench.ctx, obj_of("LLMDeployment"), {"conditions": status("Unschedulable", "no node", more=[])["conditions"]})
    assert [reason for _, reason, _ in bench.events.recorded] == ["Unschedulable"]
