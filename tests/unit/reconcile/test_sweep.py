from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork import names
from graftwork.cluster.kinds import SWEEP, Key
from graftwork.errors import ApiError, Forbidden, NameTaken, NotFound

from tests.unit.reconcile.world import World
from tests.unit.status.seen import container, pod_object

DAY = 86_400
KEY = "graftwork-sweep"


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def jobs(world: World) -> list[str]:
    return sorted(key.name for key in world.cluster.objects if key.kind == "Job" and key.name.startswith(KEY))


def kept(world: World, number: int) -> list[str]:
    found: list[str] = json.loads(world.get("ConfigMap", f"{KEY}-{number}")["data"]["sweep.json"])["keep"]
    return found


def finish(world: World, number: int, *, waiting: int = 0) -> None:
    end(world, number, {"outcome": "Succeeded", "reason": "Swept", "message": "", "waiting": waiting})


def end(world: World, number: int, word: dict[str, Any], *, failed: bool = False) -> None:
    job = world.get("Job", f"{KEY}-{number}")
    kind = "Failed" if failed else "Complete"
    ended = {"type": kind, "status": "True", "lastTransitionTime": world.ctx.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
    world.cluster.seed({**job, "status": {"conditions": [ended]}})
    text = json.dumps({"apiVersion": "graftwork.dev/sweep-result/v1", **word})
    main = (container("sweep", ended=(65 if failed else 0, text)),)
    labels = {names.LABEL_SWEEP: "true"}
    world.cluster.seed(pod_object(f"s{number}", labels=labels, owner=job["metadata"]["uid"], ready=False, phase="Succeeded", main=main))


def gone(world: World, name: str) -> None:
    del world.cluster.objects[Key("LoRAAdapter", "ml", name)]
    world.ctx.mirror.remove("LoRAAdapter", "ml", name)  # type: ignore[attr-defined]


async def run(world: World) -> Any:
    return await world.run(SWEEP, KEY)


async def test_a_namespace_with_adapters_is_swept_a_day_after_the_first() -> None:
    world = World()
    world.adapter()
    world.brought()
    result = await run(world)
    assert jobs(world) == []
    assert result.requeue_after_seconds == 21 * 3600
    await world.clock.advance(21 * 3600)
    await run(world)
    assert kept(world, 1) == [digest("a")]
    await run(world)
    assert jobs(world) == [f"{KEY}-1"], "at most one at a time"


async def test_a_deletion_makes_a_sweep_and_the_one_before_goes() -> None:
    world = World()
    world.adapter(letter="a")
    world.adapter(version=2, letter="b")
    await run(world)
    gone(world, "medical-1")
    await run(world)
    assert kept(world, 1) == [digest("b")]
    finish(world, 1)
    gone(world, "medical-2")
    result = await run(world)
    assert 1800 < result.requeue_after_seconds <= 3600
    await world.clock.advance(3601)
    await run(world)
    assert jobs(world) == [f"{KEY}-2"]
    assert kept(world, 2) == []


async def test_what_came_after_a_sweep_and_went_is_swept_as_soon() -> None:
    world = World()
    world.adapter()
    await run(world)
    await world.clock.advance(DAY)
    await run(world)
    finish(world, 1)
    await run(world)
    world.adapter("legal", letter="b")
    await run(world)
    gone(world, "legal-1")
    await world.clock.advance(3599)
    assert (await run(world)).requeue_after_seconds == 1, "a sweep's list has never had it"
    await world.clock.advance(1)
    await run(world)
    assert jobs(world) == [f"{KEY}-2"]
    finish(world, 2)
    assert (await run(world)).requeue_after_seconds == DAY


async def test_what_waits_is_looked_at_every_day_until_nothing_does_even_without_adapters() -> None:
    world = World()
    world.adapter()
    await run(world)
    gone(world, "medical-1")
    await run(world)
    finish(world, 1, waiting=1)
    world.restart()
    assert (await run(world)).requeue_after_seconds == DAY
    await world.clock.advance(DAY)
    await run(world)
    finish(world, 2, waiting=0)
    result = await run(world)
    assert (result.requeue_after_seconds, jobs(world)) == (None, [f"{KEY}-2"])


async def test_what_a_run_or_an_import_has_just_put_there_is_kept() -> None:
    world = World()
    world.adapter()
    world.add("FineTuneJob", "tickets", {"deploymentRef": "support"})
    published = {"source": "store://ml/medical/cccccccccccc", "digest": digest("c"), "rank": 8, "sizeBytes": 1}
    word = {"apiVersion": "graftwork.dev/result/v1", "outcome": "Succeeded", "reason": "Published", "message": "", "adapter": published}
    main = (container("trainer", ended=(0, json.dumps(word))),)
    world.cluster.seed(pod_object("t1", labels={names.LABEL_JOB: "tickets"}, ready=False, phase="Succeeded", main=main))
    world.brought()
    await world.run("LoRAAdapter", "legal-1")
    brought = {**word, "apiVersion": "graftwork.dev/import-result/v1", "adapter": {**published, "digest": digest("d")}}
    world.import_pod(phase="Succeeded", main=(container("import", ended=(0, json.dumps(brought))),))
    await world.clock.advance(DAY)
    await run(world)
    assert kept(world, 1) == [digest(letter) for letter in "acd"]


async def test_files_that_another_namespace_serves_are_kept() -> None:
    world = World()
    world.adapter()
    spec = {"alias": "medical", "version": 1, "digest": digest("e"), "source": f"store://ml/medical/{'e' * 12}"}
    world.add("LoRAAdapter", "borrowed", spec, namespace="other")
    world.add("LoRAAdapter", "own", {**spec, "digest": digest("f"), "source": f"store://other/medical/{'f' * 12}"}, namespace="other")
    await world.clock.advance(DAY)
    await run(world)
    assert kept(world, 1) == [digest("a"), digest("e")]


async def test_instructions_that_were_not_written_are_written_by_the_next_pass() -> None:
    world = World()
    world.adapter()
    await world.clock.advance(DAY)
    await run(world)
    world.cluster.objects.pop(Key("ConfigMap", "ml", f"{KEY}-1"))
    world.ctx.mirror.remove("ConfigMap", "ml", f"{KEY}-1")  # type: ignore[attr-defined]
    await run(world)
    assert kept(world, 1) == [digest("a")]


async def test_a_reference_that_is_made_while_a_sweep_runs_joins_its_list() -> None:
    world = World()
    world.adapter(letter="a")
    await world.clock.advance(DAY)
    await run(world)
    world.adapter(version=2, letter="b")
    gone(world, "medical-1")
    await run(world)
    assert kept(world, 1) == [digest("a"), digest("b")], "what was on the list stays there: the sweep may have kept it by it"
    world.writes()
    await run(world)
    assert world.writes() == []


async def test_what_a_pod_was_told_to_load_is_kept() -> None:
    world = World()
    world.deployment()
    world.deployment("other")
    world.adapter(letter="a")
    told = [{"source": f"store://{place}/medical/{letter * 12}", "digest": digest(letter)} for place, letter in (("ml", "b"), ("elsewhere", "c"))]
    labels = {names.LABEL_MANAGED_BY: names.MANAGER}
    for name, text in (("support", json.dumps({"adapters": told})), ("other", "{")):
        metadata = {"namespace": "ml", "name": f"{name}-adapters", "labels": labels}
        world.cluster.seed({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"adapters.json": text}})
    await world.clock.advance(DAY)
    await run(world)
    assert kept(world, 1) == [digest("a"), digest("b")]


async def test_the_list_says_whose_it_is_and_a_store_of_several_is_told() -> None:
    world = World()
    world.adapter()
    await world.clock.advance(DAY)
    await run(world)
    document = json.loads(world.get("ConfigMap", f"{KEY}-1")["data"]["sweep.json"])
    assert document["installation"] == "graftwork.graftwork-operator.uid-home"
    end(world, 1, {"outcome": "Failed", "reason": "StoreShared", "message": "delete the object installations/x"}, failed=True)
    result = await run(world)
    assert (f"Job/{KEY}-1", "StoreShared", "StoreShared: delete the object installations/x") in world.events.recorded
    assert result.requeue_after_seconds == 3600


async def test_a_name_that_somebody_else_has_is_passed_over() -> None:
    world = World()
    world.adapter()
    stranger = {"namespace": "ml", "name": f"{KEY}-1", "labels": {}}
    world.cluster.seed({"apiVersion": "batch/v1", "kind": "Job", "metadata": stranger, "spec": {}})
    await world.clock.advance(DAY)
    await run(world)
    assert (kept(world, 2), world.woken) == ([digest("a")], [])
    assert world.get("Job", f"{KEY}-1")["metadata"]["labels"] == {}


async def test_names_that_others_have_are_tried_with_backoff() -> None:
    world = World()
    world.adapter()
    for number in range(1, 11):
        stranger = {"namespace": "ml", "name": f"{KEY}-{number}", "labels": {}}
        world.cluster.seed({"apiVersion": "batch/v1", "kind": "Job", "metadata": stranger, "spec": {}})
    await world.clock.advance(DAY)
    with pytest.raises(NameTaken):
        await run(world)
    assert world.woken == []


async def test_a_job_that_the_watch_has_not_told_yet_is_waited_for() -> None:
    world = World()
    world.adapter()
    await world.clock.advance(DAY)
    await run(world)
    world.ctx.mirror.remove("Job", "ml", f"{KEY}-1")  # type: ignore[attr-defined]
    await run(world)
    assert jobs(world) == [f"{KEY}-1"]
    assert [key.name for key in world.woken] == [KEY]


@pytest.mark.parametrize(
    "error",
    [
        Forbidden('jobs.batch "x" is forbidden: unable to create new content in namespace ml because it is being terminated'),
        NotFound('namespaces "ml" not found'),
    ],
)
async def test_a_namespace_that_is_being_deleted_is_let_go(error: ApiError) -> None:
    world = World()
    world.adapter()
    await run(world)
    gone(world, "medical-1")
    world.cluster.fail = lambda verb, kind: error if verb == "create" else None
    assert (await run(world)).gone
    world.cluster.fail = lambda verb, kind: None
    assert (await run(world)).gone
    assert world.writes() == [], "a namespace of the same name that comes later begins anew"


async def test_a_right_that_is_missing_is_an_error() -> None:
    world = World()
    world.adapter()
    await world.clock.advance(DAY)
    world.cluster.fail = lambda verb, kind: Forbidden("exceeded quota") if verb == "create" else None
    with pytest.raises(Forbidden):
        await run(world)


async def test_nothing_to_look_after_needs_no_task() -> None:
    world = World()
    assert (await run(world)).gone
    assert world.writes() == []
