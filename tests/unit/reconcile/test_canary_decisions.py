"""A canary's decisions: remembered before they are carried out, about files and not names, and about a share that pods were seen to know."""

from __future__ import annotations

import pytest
from graftwork.clock import rfc3339
from graftwork.cluster.protocol import PeerView
from graftwork.errors import Unavailable

from tests.unit.reconcile.test_canaries import BAD, GOOD, Canary
from tests.unit.status.seen import condition


async def test_a_decision_is_in_the_status_before_any_pod_is_told_of_it() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    world.cluster.fail = lambda verb, kind: Unavailable("no answer") if (verb, kind) == ("patch_status", "LLMDeployment") else None
    with pytest.raises(Unavailable):
        await world.run("LLMDeployment", "support")
    assert world.alias()["weight"] == 10, "told before it is remembered, it would be taken back by the next pass"


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Pod"])
async def test_a_pass_that_ends_half_way_takes_no_decision_back(kind: str) -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    world.cluster.fail = lambda verb, of: Unavailable("no answer") if of == kind and verb in ("apply", "patch") else None
    if kind == "Deployment":  # otherwise it is as it should be and is not written
        world.cluster.seed({**world.get("Deployment", "support"), "spec": {}})
    with pytest.raises(Unavailable):
        await world.run("LLMDeployment", "support")
    world.cluster.fail = lambda verb, of: None
    world.prometheus.answer = GOOD
    await world.go(100)
    assert world.alias()["weight"] == 0
    assert world.row()["failed"] == "medical-2"
    assert len(world.told("CanaryFailed")) == 1


async def test_a_promotion_that_pods_were_not_told_of_yet_stays_one() -> None:
    world = Canary()
    await world.begin()
    await world.go(61)
    world.cluster.fail = lambda verb, of: Unavailable("no answer") if (verb, of) == ("apply", "ConfigMap") else None
    with pytest.raises(Unavailable):
        await world.go(61)
    world.cluster.fail = lambda verb, of: None
    world.prometheus.answer = BAD
    await world.go()
    one, two = world.engines
    assert world.alias() == {"alias": "medical", "prefer": [two, one]}
    assert len(world.told("Promoted")) == 1


async def test_a_version_that_is_made_again_with_other_files_is_tried_again() -> None:
    world = Canary()
    await world.begin()
    world.prometheus.answer = BAD
    await world.go(5)
    world.prometheus.answer = GOOD
    await world.cluster.delete("LoRAAdapter", "ml", "medical-2")
    world.engines.pop()
    await world.go()
    assert world.row()["failed"] == "medical-2"
    world.engines.append(world.adapter(version=2, letter="e"))
    await world.go()
    await world.go()
    assert "failed" not in world.row()
    assert (world.alias()["candidate"], world.alias()["weight"]) == (world.engines[1], 10)
    await world.run("LoRAAdapter", "medical-2")
    assert condition(world.status("LoRAAdapter", "medical-2"), "Stalled")[0] == "False"


async def test_the_time_of_a_step_begins_when_the_pods_have_read_of_it_and_a_silent_one_holds_it_for_a_minute_only() -> None:
    world = Canary()
    await world.begin()
    world.behind["p2"] = world.hash()
    await world.go(61)
    assert (world.alias()["weight"], world.row()["step"]) == (50, 2)
    assert "stepStartedAt" not in world.row()
    for _ in range(3):
        await world.go(100)
    assert world.row()["step"] == 2
    assert "p2 not yet" in world.row()["message"]
    world.writes()
    await world.go(100)
    assert world.writes() == [("patch", "Pod", "p2"), ("patch", "Pod", "p2")], "it is told again, and the status stays"
    del world.behind["p2"]
    world.load("p1")
    world.agents.views["uid-p2"] = PeerView(world.agents.views["uid-p2"].status, False, world.clock.now())
    await world.clock.advance(59)
    await world.run("LLMDeployment", "support")
    assert "stepStartedAt" not in world.row()
    await world.clock.advance(2)
    await world.run("LLMDeployment", "support")
    assert world.row()["stepStartedAt"]
    assert world.row()["stable"] == "medical-1"


async def test_a_pod_that_never_reads_its_file_holds_a_step_for_two_minutes_only() -> None:
    world = Canary()
    await world.begin()
    world.behind["p2"] = world.hash()
    await world.go(61)
    config_map = world.get("ConfigMap", "support-adapters")
    (field,) = config_map["metadata"]["managedFields"]
    world.cluster.seed({**config_map, "metadata": {**config_map["metadata"], "managedFields": [{**field, "time": rfc3339(world.clock.now())}]}})
    await world.go(119)
    assert "p2 not yet" in world.row()["message"]
    await world.go(2)
    assert world.row()["stepStartedAt"], "the others serve by it meanwhile, and nobody would judge it"
