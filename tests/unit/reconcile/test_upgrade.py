"""An operator with other images looks at what an older one made: what happens to pods is the deployment's own decision."""

from __future__ import annotations

from dataclasses import replace

from graftwork.config import Config

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.test_rollout import USAGE, applied, edited
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition


def upgrade(world: World, version: str) -> None:
    """Restart the operator with the images of another version."""
    values = world.ctx.config.model_dump()
    images = {**values["images"], "agent": f"agent:{version}", "engine": f"engine:{version}"}
    world.ctx = replace(world.ctx, config=Config.model_validate({**values, "images": images}))
    world.restart()


def engine_image(world: World) -> str:
    return str(world.get("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["image"])


async def test_by_default_an_upgrade_writes_nothing() -> None:
    world = World()
    await serving(world)
    before = applied(world)
    world.writes()
    upgrade(world, "2")
    for _ in range(2):
        await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert applied(world) == before
    await edited(world, engine={"maxModelLen": 256})
    assert engine_image(world) == "engine:2", "with the next change"


async def test_with_rolling_an_upgrade_is_a_rollout_like_any_other() -> None:
    world = World()
    await serving(world)
    before = applied(world)
    await edited(world, rollout={"upgradePolicy": "Rolling"})
    assert applied(world) == before, "the policy alone changes nothing"
    upgrade(world, "2")
    await world.run("LLMDeployment", "support")
    assert applied(world) != before
    assert engine_image(world) == "engine:2"
    assert world.get("Deployment", "support")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Reconciling")[0] == "True"
    assert (status["rollout"]["revision"], status["rollout"]["lastGood"]) == (2, 1)
    world.pod("p2")
    world.pod("p1", template=before, terminating=True)
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert status["rollout"]["lastGood"] == 2
    world.writes()
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    await edited(world, rollout={})
    assert engine_image(world) == "engine:2", "taking the policy back takes nothing else back"


async def test_an_upgrade_whose_engines_fail_is_rolled_back_and_the_next_one_is_tried() -> None:
    world = World()
    await serving(world)
    good = applied(world)
    await edited(world, rollout={"upgradePolicy": "Rolling"})
    upgrade(world, "2")
    await world.run("LLMDeployment", "support")
    failed = applied(world)
    world.pod("p2", ready=False, main=(USAGE,))
    for _ in range(3):
        await world.run("LLMDeployment", "support")
        assert applied(world) == good, "not tried in a loop"
    assert condition(world.status("LLMDeployment", "support"), "RolledBack") == ("True", "EngineCrashed")
    world.restart()
    await world.run("LLMDeployment", "support")
    assert applied(world) == good
    world.pod("p2", template=failed, terminating=True)
    upgrade(world, "3")
    await world.run("LLMDeployment", "support")
    assert applied(world) not in (good, failed)
    assert engine_image(world) == "engine:3"
    assert condition(world.status("LLMDeployment", "support"), "RolledBack")[0] == "False"


async def test_giving_up_rolling_after_a_failed_upgrade_is_ready_with_what_serves() -> None:
    world = World()
    await serving(world)
    good = applied(world)
    await edited(world, rollout={"upgradePolicy": "Rolling"})
    upgrade(world, "2")
    await world.run("LLMDeployment", "support")
    failed = applied(world)
    world.pod("p2", ready=False, main=(USAGE,))
    await world.run("LLMDeployment", "support")
    world.pod("p2", template=failed, terminating=True)
    await edited(world, rollout={})
    assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert condition(status, "RolledBack")[0] == "False"
