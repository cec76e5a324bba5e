"""Canaries through whole passes: ConfigMap, statuses of both kinds, Events; the operator restarted, its status lost, Prometheus away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from graftwork.cluster.kinds import Key
from graftwork.errors import Forbidden
from graftwork.facts.canary import Numbers, Observation, Question

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import World
from tests.unit.runtime.fakes import FakeClock
from tests.unit.status.seen import condition, message

CANARY = {"name": "medical", "promotion": "Canary", "canary": {"steps": [10, 50], "stepDuration": "1m"}}
GOOD = Observation(Numbers(100, 0, 20, 100), Numbers(900, 0, 180, 900))
BAD = Observation(Numbers(100, 5, 20, 100), Numbers(900, 0, 180, 900))
AWAY = Observation(problem="Prometheus at prom:9090 cannot be reached (ConnectionError)")


class FakePrometheus:
    """Gives every question the answer of now."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.answer: Observation | None = GOOD
        self.questions: list[Question] = []
        self.forgotten: list[tuple[Key, list[str]]] = []

    def ask(self, key: Key, question: Question, pause_seconds: float) -> Observation | None:
        assert key == Key("LLMDeployment", "ml", "support")
        assert pause_seconds > 0
        self.questions.append(question)
        lasted = (self.clock.now() - question.since).total_seconds() if question.since else 0.0
        return replace(self.answer, lasted_seconds=lasted) if self.answer else None

    def forget(self, key: Key, but: Sequence[str] = ()) -> None:
        self.forgotten.append((key, list(but)))


class Canary(World):
    """A deployment with one served adapter and a second that every pod has just loaded."""

    def __init__(self, *, prometheus: bool = True) -> None:
        super().__init__()
        self.prometheus = FakePrometheus(self.clock)
        if prometheus:
            self.ctx = replace(self.ctx, prometheus=self.prometheus)
        self.engines: list[str] = []
        self.behind: dict[str, str] = {}
        self.old: set[str] = set()
        """Pods of an operator that knew no canaries."""

    async def begin(self, **alias: Any) -> None:
        await serving(self, replicas=2, adapters={"aliases": [{**CANARY, **alias}]})
        await self.publish(1)
        await self.publish(2)

    async def publish(self, version: int) -> None:
        """Publish a version, and let every pod load it."""
        self.engines.append(self.adapter(version=version, letter="0abcdef"[version]))
        await self.go()
        self.load()
        await self.go()

    def load(self, *pods: str) -> None:
        for pod in pods or ("p1", "p2"):
            self.agent(pod, *self.engines, observed=self.behind.get(pod), **({"features": []} if pod in self.old else {}))

    async def go(self, seconds: float = 0) -> float | None:
        """Move time, then do a pass of the deployment and of its adapters, and let the agents read the file."""
        await self.clock.advance(seconds)
        before = self.find("ConfigMap", "support-adapters")
        again = (await self.run("LLMDeployment", "support")).requeue_after_seconds
        for name in [key.name for key in self.cluster.objects if key.kind == "LoRAAdapter"]:
            await self.run("LoRAAdapter", name)
        self.load()
        if before and before["data"] != self.get("ConfigMap", "support-adapters")["data"]:  # agents tell what they have read, and that wakes it
            again = (await self.run("LLMDeployment", "support")).requeue_after_seconds
        return again

    def alias(self) -> dict[str, Any]:
        (found,) = json.loads(self.content())["aliases"]
        return dict(found)

    def row(self) -> dict[str, Any]:
        (found,) = self.status("LLMDeployment", "support")["adapters"]
        return dict(found)

    def settings(self, **alias: Any) -> None:
        self.edit("LLMDeployment", "support", adapters={"aliases": [{**CANARY, **alias}]})

    def told(self, reason: str) -> list[str]:
        return [text for who, why, text in self.events.recorded if (who, why) == ("LLMDeployment/support", reason)]


async def test_a_good_version_takes_over_step_by_step_and_in_one_write() -> None:
    world = Canary()
    await world.begin()
    one, two = world.engines
    assert world.alias() == {"alias": "medical", "prefer": [one], "candidate": two, "weight": 10}
    row = world.row()
    assert (row["stable"], row["candidate"], row["candidateWeight"], row["step"], row["steps"]) == ("medical-1", "medical-2", 10, 1, 2)
    assert row["reason"] == "CanaryRunning"
    assert await world.go(30)
    assert world.alias()["weight"] == 10
    assert world.prometheus.questions[-1] == Question("ml", "support", "medical", 1, 2, world.prometheus.questions[-1].since)
    await world.go(31)
    assert world.alias()["weight"] == 50
    assert world.row()["step"] == 2
    world.writes()
    await world.go(30)
    await world.go(31)
    assert [kind for _, kind, _ in world.writes() if kind == "ConfigMap"] == ["ConfigMap"]
    assert world.alias() == {"alias": "medical", "prefer": [two, one]}
    row = world.row()
    assert row["stable"] == "medical-2"
    assert not {"candidate", "candidateWeight", "step", "steps", "stepStartedAt", "failed", "reason"} & set(row)
    assert [len(world.told(reason)) for reason in ("CanaryRunning", "Promoted", "CanaryFailed")] == [2, 1, 0]
    await world.go()
    world.writes()
    assert await world.go(600) is None
    assert world.writes() == []


async def test_a_bad_version_loses_its_share_at_once_and_everybody_hears_of_it() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    await world.go(5)
    one, two = world.engines
    assert world.alias() == {"alias": "medical", "prefer": [one], "candidate": two, "weight": 0}
    row = world.row()
    assert (row["stable"], row["candidateWeight"], row["failed"], row["reason"]) == ("medical-1", 0, "medical-2", "CanaryFailed")
    assert "5 of 100 requests failed (5.00%, at most 1.00%)" in row["failure"]
    status = world.status("LoRAAdapter", "medical-2")
    assert condition(status, "Stalled") == ("True", "CanaryFailed")
    assert "5 of 100 requests failed" in message(status, "Stalled")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Ready") == ("True", "Loaded")
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("True", "AdaptersLoaded")
    assert "5 of 100 requests failed" in message(world.status("LLMDeployment", "support"), "AdaptersLoaded")
    assert len(world.told("CanaryFailed")) == 1
    assert ("LoRAAdapter/medical-2", "CanaryFailed") in [(who, why) for who, why, _ in world.events.recorded]


async def test_a_failed_version_is_not_tried_again_by_another_operator_and_a_newer_one_is() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    await world.go(5)
    world.prometheus.answer = GOOD
    world.restart()
    for _ in range(5):
        await world.go(1000)
    assert world.alias()["weight"] == 0
    assert world.row()["failed"] == "medical-2"
    assert len(world.told("CanaryFailed")) == 1
    await world.publish(3)
    assert (world.alias()["candidate"], world.alias()["weight"]) == (world.engines[2], 10)
    assert condition(world.status("LoRAAdapter", "medical-2"), "Stalled") == ("True", "CanaryFailed")
    for _ in range(3):
        await world.go(61)
    assert world.alias()["prefer"] == [world.engines[2], world.engines[0]]
    assert "failed" not in world.row()
    assert condition(world.status("LoRAAdapter", "medical-2"), "Ready") == ("False", "Superseded")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "CanaryRunning"), (AWAY, "PrometheusUnreachable"), (Observation(), "CanaryWaiting"), (Observation(Numbers(49)), "CanaryWaiting")],
)
async def test_without_data_the_share_stays_and_a_pass_that_sees_the_same_writes_nothing(answer: Observation | None, reason: str) -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = answer
    await world.go(1000)
    assert world.row()["reason"] == reason
    world.writes()
    assert await world.go(1000)
    assert world.alias()["weight"] == 10
    assert world.writes() == []


async def test_without_prometheus_in_the_configuration_the_candidate_waits_and_nothing_fails() -> None:
    world = Canary(prometheus=False)
    await world.begin()
    assert await world.go(1000) is None
    assert world.alias()["weight"] == 0
    assert world.row()["reason"] == "PrometheusNotConfigured"
    assert "prometheus.url" in world.row()["message"]
    for name in ("medical-1", "medical-2"):
        assert condition(world.status("LoRAAdapter", name), "Ready") == ("True", "Loaded")
    assert condition(world.status("LLMDeployment", "support"), "Ready")[0] == "True"
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded")[0] == "True"


async def test_a_restarted_operator_goes_on_in_the_middle_of_a_step() -> None:
    world = Canary()
    await world.begin()
    await world.go(30)
    views = dict(world.agents.views)
    world.agents.views.clear()
    world.restart()
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    world.agents.views.update(views)
    await world.go(31)
    assert world.alias()["weight"] == 50


async def test_a_lost_status_begins_at_the_first_step_and_promotes_nothing() -> None:
    world = Canary()
    await world.begin()
    await world.go(61)
    assert world.alias()["weight"] == 50
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({**obj, "status": {"model": obj["status"]["model"]}})
    world.restart()
    await world.go(61)
    assert world.alias()["prefer"][0] == world.engines[0]
    assert world.alias()["weight"] == 10
    assert world.row()["stable"] == "medical-1"


async def test_an_agent_that_is_silent_loses_no_decision() -> None:
    """While agents settle the rows stay as they were, but not what Prometheus made of the canary."""
    world = Canary()
    await world.begin()
    world.agents.views.clear()
    world.prometheus.answer = BAD
    await world.run("LLMDeployment", "support")
    assert world.alias()["weight"] == 0
    row = world.row()
    assert (row["failed"], row["candidateWeight"], row["loaded"], row["of"]) == ("medical-2", 0, 2, 2)


@pytest.mark.parametrize("pin", ["medical-1", "medical-2"])
async def test_a_pin_wins_in_the_next_pass(pin: str) -> None:
    world = Canary()
    await world.begin()
    world.settings(adapter=pin)
    await world.go()
    assert world.alias()["prefer"][0] == world.engines[int(pin[-1]) - 1]
    assert "candidate" not in world.alias()
    assert world.row()["stable"] == pin
    assert "step" not in world.row()


async def test_a_pin_to_the_failed_version_serves_it_and_another_promotion_forgets_the_failure() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    await world.go(5)
    world.settings(promotion="Manual", canary=None)
    await world.go()
    assert world.row()["reason"] == "AwaitingPromotion"
    assert "failed" not in world.row()
    assert condition(world.status("LoRAAdapter", "medical-2"), "Ready") == ("True", "Loaded")
    world.settings(adapter="medical-2")
    await world.go()
    assert world.row()["stable"] == "medical-2"
    assert condition(world.status("LoRAAdapter", "medical-2"), "Stalled")[0] == "False"


async def test_manual_waits_for_a_person_and_switches_at_once() -> None:
    world = Canary()
    await world.begin(promotion="Manual", canary=None)
    one, two = world.engines
    assert await world.go(100_000) is None
    assert world.alias() == {"alias": "medical", "prefer": [one], "candidate": two, "weight": 0}
    assert "set adapter to medical-2" in world.row()["message"]
    assert world.prometheus.questions == []
    world.settings(promotion="Manual", canary=None, adapter="medical-2")
    await world.go()
    assert world.alias() == {"alias": "medical", "prefer": [two, one]}


async def test_no_step_counts_that_the_pods_were_not_told_of() -> None:
    world = Canary()
    await world.begin()
    world.cluster.fail = lambda verb, kind: Forbidden("no") if (verb, kind) == ("apply", "ConfigMap") else None
    await world.go(61)
    assert world.row()["step"] == 2
    for _ in range(5):
        await world.go(100)
    assert world.row()["stable"] == "medical-1"
    world.cluster.fail = lambda verb, kind: None
    await world.go(100)
    assert (world.alias()["weight"], world.row()["stable"]) == (50, "medical-1")
    await world.go(59)
    assert world.row()["stable"] == "medical-1"
    await world.go(61)
    assert world.row()["stable"] == "medical-2"


@pytest.mark.parametrize("wrong", [{"engine": {"args": {"max_lora_rank": 64}}}, {"replicas": "many"}])
async def test_a_wrong_spec_neither_advances_a_canary_nor_forgets_it(wrong: dict[str, Any]) -> None:
    world = Canary()
    await world.begin()
    before = world.row()
    good = dict(world.get("LLMDeployment", "support")["spec"])
    world.edit("LLMDeployment", "support", **wrong)
    for _ in range(3):
        await world.go(1000)
    row = world.row()
    assert {field: row.get(field) for field in ("stable", "candidate", "step", "stepStartedAt")} == {
        field: before[field] for field in ("stable", "candidate", "step", "stepStartedAt")
    }
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({**obj, "spec": good})
    await world.go()
    assert world.alias()["weight"] == 50


async def test_a_candidate_that_an_agent_refuses_gets_nothing_and_says_why() -> None:
    world = Canary()
    await serving(world, adapters={"aliases": [CANARY]})
    world.engines.append(world.adapter(version=1))
    await world.run("LLMDeployment", "support")
    world.agent("p1", *world.engines)
    two = world.adapter(version=2, letter="b")
    await world.run("LLMDeployment", "support")
    refused = {"engineName": two, "name": "medical-2", "state": "Refused", "reason": "NotFinite", "message": "NaN in q_proj"}
    loaded = {"engineName": world.engines[0], "name": "medical-1", "state": "Loaded"}
    world.agent("p1", adapters=[loaded, refused])
    await world.run("LLMDeployment", "support")
    assert world.alias()["weight"] == 0
    assert world.row()["reason"] == "NotFinite"
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("False", "AdapterFailed")


async def test_a_failed_version_is_remembered_when_it_is_the_last_of_its_alias() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    await world.go(5)
    del world.cluster.objects[Key("LoRAAdapter", "ml", "medical-1")]
    assert world.cluster.mirror
    world.cluster.mirror.remove("LoRAAdapter", "ml", "medical-1")
    for _ in range(3):
        await world.go(100)
    assert json.loads(world.content())["aliases"] == []
    assert (world.row()["failed"], world.row()["reason"]) == ("medical-2", "CanaryFailed")


async def test_a_deleted_deployment_asks_no_more() -> None:
    world = Canary()
    await world.begin()
    world.delete("LLMDeployment", "support")
    await world.run("LLMDeployment", "support")
    assert world.prometheus.forgotten[-1] == (Key("LLMDeployment", "ml", "support"), [])


async def test_pods_of_an_older_operator_are_named_and_not_waited_for_without_end() -> None:
    world = Canary()
    world.old = {"p2"}
    await world.begin()
    row = world.row()
    assert (row["reason"], row["candidate"]) == ("GuardTooOld", "medical-2")
    assert "pods p2 were made by an older Graftwork" in row["message"]
    assert "rollout.upgradePolicy to Rolling" in row["message"]
    assert world.alias()["weight"] == 0
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("True", "AdaptersLoaded")
    world.old = set()  # replaced
    world.load()
    await world.go()
    assert world.alias()["weight"] == 10
    assert world.row()["reason"] == "CanaryRunning"
