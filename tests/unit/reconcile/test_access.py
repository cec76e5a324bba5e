"""Ingress, HTTPRoute and NetworkPolicy: made, kept, removed, and never in the way of what serves."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.errors import ApiError, Forbidden, Invalid, Unavailable
from graftwork.reconcile.access import LOOK_SECONDS
from graftwork.status.conditions import find

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.world import World
from tests.unit.runtime.fakes import obj_of
from tests.unit.status.seen import condition, message

INGRESS = {"ingress": {"host": "chat.example.com"}}
ROUTE = {"route": {"parentRefs": [{"name": "public"}]}}
POLICY: dict[str, Any] = {"networkPolicy": {}}
ALL = {**INGRESS, **ROUTE, **POLICY}
KINDS = ("Ingress", "HTTPRoute", "NetworkPolicy")


def counted(world: World) -> list[tuple[str, str]]:
    """Return the list to which every request about HTTPRoutes is added from now on."""
    asked: list[tuple[str, str]] = []

    def note(verb: str, kind: str) -> ApiError | None:
        if kind == "HTTPRoute":
            asked.append((verb, kind))
        return None

    world.cluster.fail = note
    return asked


async def passes(world: World, times: int = 1) -> dict[str, Any]:
    for _ in range(times):
        await world.run("LLMDeployment", "support")
    return world.status("LLMDeployment", "support")


async def test_what_is_asked_for_is_made_and_a_further_pass_writes_nothing() -> None:
    world = World()
    await serving(world, access=ALL)
    assert [kind for kind in KINDS if world.find(kind, "support")] == list(KINDS)
    status = await passes(world, 2)
    assert world.writes() == []
    assert condition(status, "AccessReady") == ("Unknown", "IngressPending")
    assert "has not said yet" in message(status, "AccessReady")
    assert condition(status, "Ready") == ("True", "Reconciled")


async def test_nothing_is_made_or_said_without_the_field() -> None:
    world = World()
    await serving(world)
    assert not any(world.find(kind, "support") for kind in KINDS)
    assert not find(world.status("LLMDeployment", "support")["conditions"], "AccessReady")


async def test_pods_are_not_touched_by_any_of_it() -> None:
    world = World()
    await serving(world)
    template = world.get("Deployment", "support")["spec"]["template"]
    world.edit("LLMDeployment", "support", access=ALL)
    await passes(world)
    assert {kind for _, kind, _ in world.writes()} == {*KINDS, "LLMDeployment"}
    assert world.get("Deployment", "support")["spec"]["template"] == template


@pytest.mark.parametrize("left", [{}, INGRESS, ROUTE, POLICY], ids=["nothing", "ingress", "route", "policy"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_what_is_removed_from_the_spec_is_deleted(left: dict[str, Any], restarted: bool) -> None:
    world = World()
    await serving(world, access=ALL)
    if restarted:
        world.restart()
    world.edit("LLMDeployment", "support", access=left)
    status = await passes(world)
    wanted = {"ingress": "Ingress", "route": "HTTPRoute", "networkPolicy": "NetworkPolicy"}
    assert {kind for kind in KINDS if world.find(kind, "support")} == {wanted[name] for name in left}
    assert bool(find(status["conditions"], "AccessReady")) == bool(left)


async def test_without_the_gateway_api_everything_else_goes_on_and_the_condition_says_what_to_install() -> None:
    world = World()
    world.cluster.missing.add("HTTPRoute")
    await serving(world, access=ALL)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert condition(status, "AccessReady") == ("False", "GatewayMissing")
    assert "gateway-api.sigs.k8s.io" in message(status, "AccessReady")
    assert world.find("Ingress", "support")
    assert world.find("NetworkPolicy", "support")
    result = await world.run("LLMDeployment", "support")
    assert result.requeue_after_seconds == LOOK_SECONDS
    world.cluster.missing.clear()
    await world.clock.advance(LOOK_SECONDS)
    await passes(world)
    assert world.find("HTTPRoute", "support")


async def test_a_gateway_api_that_goes_away_is_noticed() -> None:
    world = World()
    await serving(world, access=ROUTE)
    world.cluster.missing.add("HTTPRoute")
    world.edit("LLMDeployment", "support", access={"route": {"parentRefs": [{"name": "other"}]}})
    assert condition(await passes(world), "AccessReady") == ("False", "GatewayMissing")


async def test_a_cluster_without_the_gateway_api_is_asked_once_for_all_and_not_in_every_pass() -> None:
    world = World()
    world.cluster.missing.add("HTTPRoute")
    asked = counted(world)
    await serving(world)
    await passes(world, 5)
    assert asked == [("discover", "HTTPRoute")]


async def test_a_leftover_route_is_looked_for_once_and_a_route_that_is_kept_now_and_then() -> None:
    world = World()
    asked = counted(world)
    await serving(world)
    await passes(world, 5)
    assert asked == [("discover", "HTTPRoute"), ("get", "HTTPRoute")]
    world.edit("LLMDeployment", "support", access=ROUTE)
    await passes(world)
    del asked[:]
    await passes(world, 5)
    assert asked == []
    await world.clock.advance(LOOK_SECONDS)
    await passes(world, 5)
    assert asked == [("get", "HTTPRoute")]


async def test_a_route_that_somebody_changed_or_deleted_comes_back() -> None:
    world = World()
    await serving(world, access=ROUTE)
    made = world.get("HTTPRoute", "support")
    world.cluster.seed({**made, "spec": {**made["spec"], "parentRefs": [{"name": "theirs"}]}})
    await world.clock.advance(LOOK_SECONDS)
    await passes(world)
    assert world.get("HTTPRoute", "support")["spec"]["parentRefs"] == [{"name": "public"}]
    await world.cluster.delete("HTTPRoute", "ml", "support")
    await world.clock.advance(LOOK_SECONDS)
    await passes(world)
    assert world.find("HTTPRoute", "support")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_object_of_somebody_else_is_left_alone_and_serving_goes_on(kind: str) -> None:
    world = World()
    theirs = obj_of(kind, "support")
    del theirs["metadata"]["labels"]
    world.cluster.seed(theirs)
    await serving(world, access=ALL)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "AccessReady") == ("False", "NameTaken")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert [other for other in KINDS if world.find(other, "support")] == list(KINDS)
    assert "spec" not in world.get(kind, "support")
    world.edit("LLMDeployment", "support", access={})
    await passes(world)
    assert world.find(kind, "support"), "what is not ours is not pruned"


@pytest.mark.parametrize(
    "error", [Invalid("host taken"), Forbidden("quota"), Unavailable("webhook timed out")], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_object_stops_neither_the_others_nor_the_pass(kind: str, error: ApiError) -> None:
    world = World()
    world.cluster.fail = lambda verb, of: error if (verb, of) == ("apply", kind) else None
    await serving(world, access=ALL)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert condition(status, "AccessReady") == ("False", "AccessRefused")
    assert str(error) in message(status, "AccessReady")
    assert {other for other in KINDS if world.find(other, "support")} == set(KINDS) - {kind}
    assert ("LLMDeployment/support", "AccessRefused") in [recorded[:2] for recorded in world.events.recorded]


@pytest.mark.parametrize("verb", ["discover", "get"])
async def test_what_never_asked_for_a_route_hears_nothing_of_one_that_cannot_be_looked_for(verb: str) -> None:
    world = World()
    world.cluster.fail = lambda asked, of: Forbidden("no right") if (asked, of) == (verb, "HTTPRoute") else None
    await serving(world)
    assert not find(world.status("LLMDeployment", "support")["conditions"], "AccessReady")


async def test_a_route_that_cannot_be_removed_is_told_until_it_can() -> None:
    world = World()
    await serving(world, access=ROUTE)
    world.cluster.fail = lambda verb, of: Forbidden("no right") if (verb, of) == ("delete", "HTTPRoute") else None
    world.edit("LLMDeployment", "support", access={})
    assert condition(await passes(world), "AccessReady") == ("False", "AccessRefused")
    world.cluster.fail = lambda verb, of: None
    assert not find((await passes(world))["conditions"], "AccessReady")
    assert not world.find("HTTPRoute", "support")


async def test_a_spec_that_cannot_be_served_changes_nothing_of_it() -> None:
    world = World()
    await serving(world, access=ALL)
    before = condition(world.status("LLMDeployment", "support"), "AccessReady")
    world.edit("LLMDeployment", "support", engine={"args": {"port": 1}}, access={})
    status = await passes(world)
    assert condition(status, "Stalled")[0] == "True"
    assert condition(status, "AccessReady") == before
    assert [kind for kind in KINDS if world.find(kind, "support")] == list(KINDS)


async def test_a_new_owner_of_the_same_name_does_not_take_over_what_the_old_one_left() -> None:
    world = World()
    await serving(world, access=ROUTE)
    spec = world.get("LLMDeployment", "support")["spec"]
    for child in list(world.cluster.objects):
        if child.kind not in ("Namespace", "HTTPRoute"):
            await world.cluster.delete(child.kind, child.namespace, child.name)
    world.add("LLMDeployment", "support", spec, uid="uid-second")
    assert condition(await passes(world), "AccessReady") == ("False", "NameTaken")
