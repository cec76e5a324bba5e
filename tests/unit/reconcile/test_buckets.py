"""A model of a bucket: looked up once, frozen to the listing of its files; one that was served before that goes on as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.status import LLMDeploymentStatus
from graftwork.clock import parse_rfc3339
from graftwork.cluster import metrics
from graftwork.plan import capacity, revisions, serving, sources
from graftwork.plan.sources import Source
from graftwork.reconcile.children import owned

from tests.unit.reconcile.test_resolving import COMPLETE, FAILED, GAVE_UP, download, end, failure, inspect_pod, job, jobs, refresh, removed, word
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, container, message

SOURCE, OTHER = "s3://models/tiny", "s3://models/other"
LISTING, NEWER = "c" * 64, "d" * 64


def status(world: World) -> dict[str, Any]:
    return world.status("LLMDeployment", "support")


async def asked(world: World, **model: Any) -> None:
    world.deployment(model={"source": SOURCE, **model})
    await world.run("LLMDeployment", "support")


async def answered(world: World, listing: str = LISTING, pod: str = "i1", source: str = SOURCE) -> None:
    found = word(resolved={"source": source, "revision": listing}, files={"count": 3, "bytes": 7, "largestBytes": 6, "digest": f"sha256:{listing}"})
    inspect_pod(world, (0, found), pod)
    await world.run("LLMDeployment", "support")


async def resolved(world: World, **model: Any) -> None:
    await asked(world, **model)
    await answered(world)


def old_revision(world: World) -> dict[str, Any]:
    """Store the revision of the present spec as an operator made it that did not look buckets up, and its Deployment."""
    obj = world.get("LLMDeployment", "support")
    deployment = capacity.resolved(LLMDeployment.from_object(obj), capacity.LEAST_RANK)
    source = sources.parse("", deployment.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source)
    made = revisions.revision(
        deployment,
        [],
        lambda wanted: serving.pod_template(deployment, serving.Inputs(source), world.ctx.config, wanted),
        {"engine": world.ctx.config.images.engine, "agent": world.ctx.config.images.agent},
    )
    stored = owned(obj, made.manifest)
    world.cluster.seed({**stored, "metadata": {**stored["metadata"], "uid": "uid-old"}})
    return made.template


async def upgraded(world: World, **spec: Any) -> dict[str, Any]:
    """Let a deployment be served from before buckets were looked up, with all its children; return its Deployment's template."""
    world.deployment(**{"model": {"source": SOURCE}, **spec})
    template = old_revision(world)
    await world.run("LLMDeployment", "support")
    world.pod()
    await world.run("LLMDeployment", "support")
    assert world.get("Deployment", "support")["spec"]["template"] == template
    world.restart()
    world.writes()
    return template


async def test_a_bucket_is_looked_up_before_pods_are_made_and_frozen_to_its_listing() -> None:
    world = World()
    await asked(world, credentialsSecret="bucket")
    assert world.find("Deployment", "support") is None
    assert condition(status(world), "ModelResolved") == ("False", "ModelResolving")
    (container_of_it,) = job(world)["spec"]["template"]["spec"]["containers"]
    assert container_of_it["args"] == ["inspect", "--source", SOURCE]
    assert {item["valueFrom"]["secretKeyRef"]["name"] for item in container_of_it["env"] if "valueFrom" in item} == {"bucket"}
    await answered(world)
    found = status(world)["model"]["resolved"]
    LLMDeploymentStatus.model_validate(status(world))
    assert (found["source"], found["revision"]) == (SOURCE, LISTING)
    assert LISTING in message(status(world), "ModelResolved")
    assert "commit" not in message(status(world), "ModelResolved")
    assert download(world) == ["download", "--source", SOURCE, "--to", "/models/base", "--digest", f"sha256:{LISTING}"]
    (stored,) = [item for key, item in world.cluster.objects.items() if key.kind == "ControllerRevision"]
    assert stored["data"]["model"] == found
    await removed(world)
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_the_listing_is_in_the_hash_and_a_refresh_rolls_only_what_has_changed() -> None:
    world = World()
    await resolved(world)
    before = world.get("Deployment", "support")
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    await answered(world, pod="i2")
    assert world.get("Deployment", "support") == before
    refresh(world, "2")
    await world.run("LLMDeployment", "support")
    assert world.get("Deployment", "support") == before, "what serves goes on while it is looked up"
    await answered(world, NEWER, pod="i3")
    assert f"sha256:{NEWER}" in download(world)
    assert status(world)["rollout"]["revision"] == 2


async def test_a_status_that_was_lost_is_read_back_without_a_look() -> None:
    world = World()
    await resolved(world)
    await removed(world)
    before = status(world)["model"]["resolved"]
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({key: value for key, value in obj.items() if key != "status"})
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert status(world)["model"]["resolved"] == before


async def test_an_upgrade_of_the_operator_looks_nothing_up_and_writes_nothing() -> None:
    world = World()
    template = await upgraded(world)
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert jobs(world) == []
    assert world.get("Deployment", "support")["spec"]["template"] == template
    assert condition(status(world), "Ready")[0] == "True"
    assert not [item for item in status(world)["conditions"] if item["type"] == "ModelResolved"]


@pytest.mark.parametrize("source", [SOURCE, "s3://models/a$b$(AWS_SECRET_ACCESS_KEY)"])
async def test_an_adopted_one_stays_unpinned_through_other_edits(source: str) -> None:
    world = World()
    await upgraded(world, model={"source": source})
    world.edit("LLMDeployment", "support", engine={"maxModelLen": 128}, replicas=2)
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert "--digest" not in download(world)
    assert status(world)["rollout"]["revision"] == 2, "the new spec rolls at once"


@pytest.mark.parametrize("model", [{"source": OTHER}, {"source": SOURCE, "credentialsSecret": "bucket"}], ids=["another source", "another Secret"])
async def test_an_adopted_one_is_looked_up_when_what_it_reads_changes(model: dict[str, Any]) -> None:
    world = World()
    template = await upgraded(world)
    world.edit("LLMDeployment", "support", model=model)
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 1
    assert world.get("Deployment", "support")["spec"]["template"] == template, "what serves goes on while it is looked up"
    await answered(world, source=model["source"])
    assert f"sha256:{LISTING}" in download(world)
    world.edit("LLMDeployment", "support", model={"source": SOURCE})
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 2, "what serves is pinned now, so that the text of before is looked up like any other"


async def test_a_secret_that_is_taken_away_is_another_secret() -> None:
    world = World()
    await upgraded(world, model={"source": SOURCE, "credentialsSecret": "bucket"})
    world.edit("LLMDeployment", "support", model={"source": SOURCE})
    await world.run("LLMDeployment", "support")
    assert len(jobs(world)) == 1


async def test_an_adopted_one_is_pinned_by_a_refresh_and_left_alone_if_that_is_refused() -> None:
    world = World()
    template = await upgraded(world)
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    inspect_pod(world, (65, failure("SourceNotFound", "no such bucket")))
    end(world, FAILED)
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "SourceNotFound")
    assert world.get("Deployment", "support")["spec"]["template"] == template
    refresh(world, "2")
    await world.run("LLMDeployment", "support")
    await answered(world, pod="i2")
    assert f"sha256:{LISTING}" in download(world)
    assert condition(status(world), "Stalled")[0] == "False"


async def test_another_operator_s_settings_look_nothing_up() -> None:
    world = World()
    await upgraded(world)
    store = world.ctx.config.store.model_copy(update={"credentials_secret": "elsewhere"})
    after = World(world.ctx.config.model_copy(update={"store": store}))
    for obj in world.cluster.objects.values():
        after.cluster.seed(obj)
    after.agents.views.update(world.agents.views)
    await after.run("LLMDeployment", "support")
    assert jobs(after) == []
    assert after.writes() == []


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SourceNotFound", "the bucket 'models' does not exist"),
        ("SourceNotFound", "nothing lies there"),
        ("SourceDenied", "the credentials were refused"),
        ("UnsupportedFormat", "no *.safetensors"),
    ],
)
async def test_a_refusal_is_told_once_by_name_and_counted_once(reason: str, words: str) -> None:
    world = World()
    await asked(world)
    live = job(world)
    world.cluster.seed({**live, "metadata": {**live["metadata"], "creationTimestamp": "2026-11-21T12:59:30Z"}})
    inspect_pod(world, (65, failure(reason, words)))
    end(world, FAILED)
    before = metrics.INSPECT_SECONDS.labels("s3", reason)._sum.get()
    for _ in range(3):
        await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", reason)
    assert words in message(status(world), "Stalled")
    assert "graftwork.dev/refresh" in message(status(world), "Stalled")
    assert [text for of, text in told(world) if of == reason] == [message(status(world), "Stalled")]
    assert metrics.INSPECT_SECONDS.labels("s3", reason)._sum.get() - before == pytest.approx(took(world, "2026-11-21T12:59:30Z"))


def told(world: World) -> list[tuple[str, str]]:
    """Return reason and message of each Event."""
    return [(reason, text) for _, reason, text in world.events.recorded]


def took(world: World, since: str) -> float:
    return (world.clock.now() - parse_rfc3339(since)).total_seconds()


async def test_a_bucket_that_does_not_answer_is_tried_for_ever_and_a_look_that_gave_up_is_counted_once() -> None:
    world = World()
    await asked(world)
    live = job(world)
    world.cluster.seed({**live, "metadata": {**live["metadata"], "creationTimestamp": "2026-11-21T12:59:30Z"}})
    inspect_pod(world, (70, failure("SourceUnreachable", "no route to the bucket")))
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Ready") == ("False", "SourceUnreachable")
    before = metrics.INSPECT_SECONDS.labels("s3", "SourceUnreachable")._sum.get()
    end(world, GAVE_UP)
    for _ in range(3):
        await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled")[0] == "False"
    assert metrics.INSPECT_SECONDS.labels("s3", "SourceUnreachable")._sum.get() - before == pytest.approx(took(world, "2026-11-21T12:59:30Z"))
    assert len([reason for reason, _ in told(world) if reason == "SourceUnreachable"]) == 1


async def test_a_bucket_that_changed_since_is_named_with_the_remedy_and_nothing_is_mixed() -> None:
    world = World()
    await resolved(world)
    words = json.dumps({"apiVersion": "graftwork.dev/result/v1", "outcome": "Failed", "reason": "SourceChanged", "message": "another listing"})
    world.pod(ready=False, phase="Pending", main=(), init=(container("download", ended=(65, words)),))
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "SourceChanged")
    assert "another listing" in message(status(world), "Stalled")
    assert f"kubectl annotate llmd support {names.ANNOTATION_REFRESH}" in message(status(world), "Stalled")
    refresh(world, "1")
    await world.run("LLMDeployment", "support")
    await answered(world, NEWER, pod="i2")
    assert f"sha256:{NEWER}" in download(world)


async def test_a_lost_result_is_neither_counted_nor_believed() -> None:
    world = World()
    await asked(world)
    end(world, COMPLETE)
    await world.run("LLMDeployment", "support")
    assert jobs(world) == []
    assert condition(status(world), "ModelResolved") == ("False", "ModelResolving")


async def test_an_account_that_the_engine_would_have_is_refused_and_what_serves_stays() -> None:
    world = World()
    template = await upgraded(world)
    world.edit("LLMDeployment", "support", serviceAccountName="default")
    await world.run("LLMDeployment", "support")
    assert condition(status(world), "Stalled") == ("True", "InvalidSpec")
    assert "cache.mode to Shared" in message(status(world), "Stalled")
    assert world.get("Deployment", "support")["spec"]["template"] == template
    assert jobs(world) == []
