"""A shared cache: its claim is made when its size is known, filled by one Job, and pods come when the revision is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork import names
from graftwork.api.status import LLMDeploymentStatus
from graftwork.cluster.kinds import Key
from graftwork.cluster.protocol import PeerView
from graftwork.errors import ApiError, Forbidden, Invalid
from graftwork.plan import cache, storage_classes

from tests.unit.reconcile.test_resolving import COMMIT, COMPLETE, FAILED, GAVE_UP, NEWER, SOURCE, answered, asked, refresh
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, container, message, pod_object

FIRST, SECOND = cache.key(SOURCE, COMMIT), cache.key(SOURCE, NEWER)
SHARED: dict[str, Any] = {"mode": "Shared", "storageClass": "files"}
UNBOUND = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."


def add_class(world: World, provisioner: str = "efs.csi.aws.com", name: str = "files", *, default: bool = True, **fields: Any) -> None:
    annotations = {storage_classes.DEFAULT: "true"} if default else {}
    metadata = {"namespace": "", "name": name, "annotations": annotations}
    world.cluster.seed({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": provisioner, **fields})


def fills(world: World) -> list[dict[str, Any]]:
    return [item for key, item in world.cluster.objects.items() if key.kind == "Job" and "-fill-" in key.name]


def fill(world: World) -> dict[str, Any]:
    (found,) = fills(world)
    return found


def document(world: World) -> dict[str, Any]:
    (variable,) = [item for item in fill(world)["spec"]["template"]["spec"]["containers"][0]["env"] if item["name"] == cache.DOCUMENT]
    found: dict[str, Any] = json.loads(variable["value"])
    return found


def fill_pod(world: World, ended: tuple[int, str] | None = None, pod: str = "f1", **fields: Any) -> None:
    main = (container("fill", ended=ended),) if ended else fields.pop("main", ())
    phase = fields.pop("phase", "Pending" if not ended else "Failed" if ended[0] else "Succeeded")
    labels, owner = {names.LABEL_FILLS: "support"}, fill(world)["metadata"]["uid"]
    world.cluster.seed(pod_object(pod, labels=labels, owner=owner, ready=False, phase=phase, main=main, **fields))


def over(reason: str, text: str) -> str:
    return json.dumps({"apiVersion": "graftwork.dev/fill-result/v1", "outcome": "Failed", "reason": reason, "message": text})


def status(world: World) -> dict[str, Any]:
    return world.status("LLMDeployment", "support")


def claim(world: World) -> dict[str, Any]:
    return world.get("PersistentVolumeClaim", "support-cache")


def bind(world: World, modes: tuple[str, ...] = ("ReadWriteMany",)) -> None:
    """Let the claim have its volume."""
    world.cluster.seed({**claim(world), "status": {"phase": "Bound", "accessModes": list(modes)}})


def requested(world: World) -> str:
    return str(claim(world)["spec"]["resources"]["requests"]["storage"])


def mounted(world: World) -> str:
    return cache.mounted(world.get("Deployment", "support")["spec"]["template"]["spec"], "support-cache")


async def run(world: World) -> float | None:
    return (await world.run("LLMDeployment", "support")).requeue_after_seconds


async def begun(world: World, **settings: Any) -> None:
    """Have a deployment whose model is known and whose fill is asked for."""
    world.deployment(model={"source": SOURCE}, cache={**SHARED, **settings})
    await run(world)
    await answered(world)


async def filled(world: World, pod: str = "f1") -> None:
    fill_pod(world, (0, ""), pod)
    await run(world)


async def served(world: World, **settings: Any) -> None:
    """Have the first revision in the cache, and a pod that serves it."""
    await begun(world, **settings)
    await filled(world)
    world.pod()
    await run(world)
    await run(world)


async def moved(world: World, revision: str = NEWER) -> None:
    """Have the branch moved and looked up again."""
    refresh(world, revision)
    await run(world)
    await answered(world, revision, pod=f"i-{revision[:3]}")


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    return made


async def test_no_claim_is_made_before_its_size_is_known(world: World) -> None:
    world.deployment(model={"source": SOURCE}, cache=SHARED)
    await run(world)
    assert world.find("PersistentVolumeClaim", "support-cache") is None
    assert "cache" not in status(world)


async def test_while_the_cache_is_filled_there_are_no_pods(world: World) -> None:
    await begun(world)
    assert (requested(world), claim(world)["spec"]["accessModes"]) == ("1Gi", ["ReadWriteMany"])
    assert claim(world)["spec"]["storageClassName"] == "files"
    assert (document(world)["key"], document(world)["keep"]) == (FIRST, [FIRST])
    assert world.find("Deployment", "support") is None
    assert condition(status(world), "ModelCached") == ("False", "CacheFilling")
    assert condition(status(world), "Reconciling") == ("True", "CacheFilling")
    assert status(world)["cache"]["phase"] == "Filling"
    LLMDeploymentStatus.model_validate(status(world))
    world.writes()
    await run(world)
    assert world.writes() == []


async def test_pods_come_when_it_is_there_and_read_it_from_the_claim(world: World) -> None:
    await begun(world)
    await filled(world)
    assert mounted(world) == FIRST
    assert condition(status(world), "ModelCached") == ("True", "ModelCached")
    found = status(world)["cache"]
    assert (found["mode"], found["claim"], found["key"], found["phase"], found["bytesDone"]) == ("Shared", "support-cache", FIRST, "Cached", 700)
    assert found["models"] == [{"key": FIRST, "revision": COMMIT, "bytes": 700}]
    LLMDeploymentStatus.model_validate(status(world))


async def test_a_job_that_is_done_goes_and_then_nothing_is_written_any_more(world: World) -> None:
    await begun(world)
    await filled(world)
    world.writes()
    await run(world)
    assert world.writes() == [("delete", "Job", f"support-fill-{FIRST}")]
    await run(world)
    assert world.writes() == []
    assert mounted(world) == FIRST


async def test_a_job_whose_pods_are_gone_is_believed_when_it_is_complete(world: World) -> None:
    await begun(world)
    world.cluster.seed({**fill(world), "status": {"conditions": [COMPLETE]}})
    await run(world)
    assert mounted(world) == FIRST


async def test_progress_is_told(world: World) -> None:
    await begun(world)
    fill_pod(world, phase="Running", main=(container("fill", running=True),))
    said = {"key": FIRST, "phase": "Downloading", "bytesDone": 350, "bytesTotal": 700, "bytesPerSecond": 99.6, "etaSeconds": 3.5}
    world.fills.views["uid-f1"] = PeerView(said, True, world.clock.now())
    await run(world)
    assert [pod.name for pods in world.fills.watched.values() for pod in pods] == ["f1"]
    found = status(world)["cache"]
    assert [found[name] for name in ("phase", "bytesDone", "bytesTotal", "bytesPerSecond", "etaSeconds")] == ["Downloading", 350, 700, 100, 4]
    await filled(world)
    assert not {"bytesPerSecond", "etaSeconds"} & set(status(world)["cache"])
    await run(world)
    assert world.fills.watched[Key("LLMDeployment", "ml", "support")] == []


async def test_a_new_revision_is_brought_beside_the_one_that_serves(world: World) -> None:
    await served(world)
    before = world.get("Deployment", "support")
    await moved(world)
    assert world.get("Deployment", "support") == before
    assert set(document(world)["keep"]) == {FIRST, SECOND}
    assert condition(status(world), "Serving")[0] == "True"
    await filled(world, "f2")
    assert mounted(world) == SECOND
    assert [item["key"] for item in status(world)["cache"]["models"]] == [FIRST, SECOND]


async def test_what_serves_is_scaled_while_the_next_revision_is_brought(world: World) -> None:
    await served(world)
    template = world.get("Deployment", "support")["spec"]["template"]
    await moved(world)
    world.edit("LLMDeployment", "support", replicas=3)
    await run(world)
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3
    assert world.get("Deployment", "support")["spec"]["template"] == template


async def test_one_that_a_pod_uses_stays_whatever_keep_says(world: World) -> None:
    await served(world, keep=1)
    await moved(world)
    assert set(document(world)["keep"]) == {FIRST, SECOND}
    await filled(world, "f2")
    await run(world)
    await moved(world, "c" * 40)
    third = cache.key(SOURCE, "c" * 40)
    assert set(document(world)["keep"]) == {FIRST, SECOND, third}, "the pod, what the Deployment has, what is asked for"


async def test_going_back_to_one_that_was_removed_fills_it_again(world: World) -> None:
    await served(world, keep=1)
    await moved(world)
    await filled(world, "f2")
    await run(world)
    await world.cluster.delete("Pod", "ml", "p1")
    world.pod("p2")
    await run(world)
    await moved(world, "c" * 40)
    assert set(document(world)["keep"]) == {SECOND, cache.key(SOURCE, "c" * 40)}, "nobody uses the first one any more"
    await filled(world, "f3")
    assert [item["key"] for item in status(world)["cache"]["models"]] == [SECOND, cache.key(SOURCE, "c" * 40)]
    await run(world)
    await moved(world, COMMIT)
    assert document(world)["key"] == FIRST
    assert mounted(world) != FIRST


async def test_a_fill_that_nobody_waits_for_any_more_ends_and_going_back_needs_none(world: World) -> None:
    await served(world)
    await moved(world)
    assert len(fills(world)) == 1
    await moved(world, COMMIT)
    assert fills(world) == []
    assert (mounted(world), status(world)["cache"]["phase"]) == (FIRST, "Cached")


async def test_a_fill_begins_only_when_the_one_before_it_has_ended(world: World) -> None:
    await served(world)
    await moved(world)
    fill_pod(world, phase="Running", main=(container("fill", running=True),), pod="f2")
    await moved(world, "c" * 40)
    assert fills(world) == [], "its pod still writes, and knows nothing of what is asked for now"
    await run(world)
    assert fills(world) == [], "its Job is gone, and its pod is not"
    await world.cluster.delete("Pod", "ml", "f2")
    await run(world)
    assert document(world)["revision"] == "c" * 40


async def test_a_fill_that_would_remove_what_is_used_by_now_is_made_anew(world: World) -> None:
    await begun(world)
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": "support-cache"}}
    vllm = {"name": "vllm", "volumeMounts": [{"name": "model", "subPath": "models/0123456789ab"}]}
    pod = pod_object("p9", labels={names.LABEL_DEPLOYMENT: "support"})
    world.cluster.seed({**pod, "spec": {**pod["spec"], "volumes": [volume], "containers": [vllm]}})
    await run(world)
    await run(world)
    assert set(document(world)["keep"]) == {FIRST, "0123456789ab"}


async def test_a_fill_that_is_asked_for_otherwise_is_made_anew(world: World) -> None:
    await begun(world)
    world.edit("LLMDeployment", "support", pod={"nodeSelector": {"zone": "b"}})
    await run(world)
    await run(world)
    assert fill(world)["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "b"}


async def test_a_lost_status_costs_a_look_and_no_pod(world: World) -> None:
    await served(world)
    before = world.get("Deployment", "support")
    obj = world.get("LLMDeployment", "support")
    world.cluster.seed({key: value for key, value in obj.items() if key != "status"})
    await run(world)
    assert document(world)["key"] == FIRST
    assert world.get("Deployment", "support") == before
    await filled(world, "f2")
    assert world.get("Deployment", "support") == before
    assert condition(status(world), "ModelCached") == ("True", "ModelCached")


async def test_a_claim_that_is_gone_is_made_and_filled_again(world: World) -> None:
    await served(world)
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    await run(world)
    assert requested(world) == "1Gi"
    assert document(world)["key"] == FIRST


async def test_no_pod_is_made_on_a_new_claim_before_it_is_filled(world: World) -> None:
    await served(world)
    world.edit("LLMDeployment", "support", replicas=0)
    await run(world)
    await world.cluster.delete("Pod", "ml", "p1")
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    world.edit("LLMDeployment", "support", replicas=3)
    for _ in range(3):
        await run(world)
        assert world.get("Deployment", "support")["spec"]["replicas"] == 0
    assert condition(status(world), "Reconciling") == ("True", "CacheFilling")
    await filled(world, "f2")
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3


async def test_pods_that_are_there_stay_when_their_claim_is_gone_and_no_more_are_made(world: World) -> None:
    await served(world)
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    world.edit("LLMDeployment", "support", replicas=3)
    await run(world)
    assert world.get("Deployment", "support")["spec"]["replicas"] == 1


async def test_a_revision_to_go_back_to_is_known_to_lie_in_the_claim_though_the_spec_is_of_no_cache(world: World) -> None:
    await served(world)
    template = world.get("Deployment", "support")["spec"]["template"]
    world.edit("LLMDeployment", "support", cache={"mode": "PerPod"}, replicas=2)
    await run(world)
    assert [item["key"] for item in status(world)["cache"]["models"]] == [FIRST]
    LLMDeploymentStatus.model_validate(status(world))
    world.edit("LLMDeployment", "support", cache={**SHARED, "storageClass": "others"}, replicas=3)
    await run(world)
    assert condition(status(world), "Stalled") == ("True", "InvalidSpec")
    world.edit("LLMDeployment", "support", cache=SHARED)
    await run(world)
    assert (world.get("Deployment", "support")["spec"]["template"], world.get("Deployment", "support")["spec"]["replicas"]) == (template, 3)
    assert fills(world) == []


async def test_a_full_disk_is_named_with_what_to_do_and_the_old_revision_serves(world: World) -> None:
    await served(world)
    before = world.get("Deployment", "support")
    await moved(world)
    fill_pod(world, (70, over("DiskFull", "needs 700 bytes, and claim support-cache has 100")), "f2")
    await run(world)
    assert condition(status(world), "ModelCached") == ("False", "DiskFull")
    assert condition(status(world), "Stalled") == ("True", "DiskFull")
    assert "has 100" in message(status(world), "Stalled")
    assert "spec.cache.size" in message(status(world), "Stalled")
    assert "what was served before goes on: 1 ready" in message(status(world), "Stalled")
    assert world.get("Deployment", "support") == before


async def test_a_claim_grows_where_its_class_allows_it_and_what_had_no_room_is_tried_at_once(world: World) -> None:
    add_class(world, allowVolumeExpansion=True)
    await begun(world)
    bind(world)
    fill_pod(world, (70, over("DiskFull", "no room")))
    world.cluster.seed({**fill(world), "status": {"conditions": [GAVE_UP]}})
    await run(world)
    world.edit("LLMDeployment", "support", cache={**SHARED, "size": "5Gi"})
    await run(world)
    assert requested(world) == "5Gi"
    await run(world)
    assert not fill(world).get("status")
    world.edit("LLMDeployment", "support", cache={**SHARED, "size": "2Gi"})
    await run(world)
    assert requested(world) == "5Gi", "a claim never shrinks"


async def test_a_claim_without_a_volume_grows_as_soon_as_it_has_one(world: World) -> None:
    add_class(world, allowVolumeExpansion=True)
    await begun(world)
    world.edit("LLMDeployment", "support", cache={**SHARED, "size": "5Gi"})
    await run(world)
    assert requested(world) == "1Gi"
    assert condition(status(world), "Stalled")[0] == "False"
    bind(world)
    await run(world)
    assert requested(world) == "5Gi"


async def test_a_spec_that_names_no_class_any_more_leaves_the_claim_its_own(world: World) -> None:
    add_class(world, allowVolumeExpansion=True)
    await served(world)
    bind(world)
    world.edit("LLMDeployment", "support", cache={"mode": "Shared", "size": "5Gi"})
    await run(world)
    assert condition(status(world), "Stalled")[0] == "False"
    assert (claim(world)["spec"]["storageClassName"], requested(world)) == ("files", "5Gi")


async def test_a_claim_without_a_class_gets_the_one_that_is_named_then() -> None:
    world = World()
    world.deployment(model={"source": SOURCE}, cache={"mode": "Shared", "storageClass": "files"})
    await run(world)
    await answered(world)
    world.cluster.seed({**claim(world), "spec": {key: value for key, value in claim(world)["spec"].items() if key != "storageClassName"}})
    await run(world)
    assert claim(world)["spec"]["storageClassName"] == "files"


async def test_another_class_is_refused_for_a_stored_template_too(world: World) -> None:
    await served(world)
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    world.edit("LLMDeployment", "support", cache={**SHARED, "storageClass": "others"})
    await run(world)
    await run(world)
    assert claim(world)["spec"]["storageClassName"] == "others"
    before = world.get("Deployment", "support")
    world.edit("LLMDeployment", "support", cache=SHARED)
    await run(world)
    assert condition(status(world), "Stalled") == ("True", "InvalidSpec")
    assert "has class others" in message(status(world), "Stalled")
    assert world.get("Deployment", "support") == before


async def test_a_claim_that_cannot_grow_stays_and_its_full_disk_says_so(world: World) -> None:
    await begun(world)
    bind(world)
    world.edit("LLMDeployment", "support", cache={**SHARED, "size": "5Gi"})
    await run(world)
    assert requested(world) == "1Gi"
    fill_pod(world, (70, over("DiskFull", "no room")))
    await run(world)
    assert "lets no claim grow" in message(status(world), "Stalled")
    assert "5Gi" in message(status(world), "Stalled")


async def test_what_another_attempt_cannot_help_is_not_tried_again(world: World) -> None:
    await begun(world)
    fill_pod(world, (65, over("SourceDenied", "the token is refused")))
    world.cluster.seed({**fill(world), "status": {"conditions": [FAILED]}})
    assert await run(world) is not None
    assert condition(status(world), "Stalled") == ("True", "SourceDenied")
    assert f"delete Job support-fill-{FIRST}" in message(status(world), "Stalled")
    await world.clock.advance(3600)
    await run(world)
    assert fill(world)["status"]


async def test_what_was_refused_for_good_is_tried_again_when_the_source_is_looked_up_anew(world: World) -> None:
    await begun(world)
    fill_pod(world, (65, over("SourceDenied", "the token is refused")))
    world.cluster.seed({**fill(world), "status": {"conditions": [FAILED]}})
    await run(world)
    assert condition(status(world), "Stalled") == ("True", "SourceDenied")
    refresh(world, "again")
    await run(world)
    await answered(world, pod="i2")
    await run(world)
    assert not fill(world).get("status")
    assert condition(status(world), "ModelCached") == ("False", "CacheFilling")


async def test_an_outage_ends_without_anybody_s_doing(world: World) -> None:
    await begun(world)
    fill_pod(world, (70, over("SourceUnreachable", "the hub does not answer")))
    world.cluster.seed({**fill(world), "status": {"conditions": [GAVE_UP]}})
    await run(world)
    assert condition(status(world), "ModelCached") == ("False", "SourceUnreachable")
    assert condition(status(world), "Stalled")[0] == "False"
    await world.clock.advance(601)
    await run(world)
    await world.cluster.delete("Pod", "ml", "f1")
    await run(world)
    assert not fill(world).get("status")


async def test_a_class_of_one_node_is_refused_before_anything_is_made() -> None:
    world = World()
    add_class(world, "ebs.csi.aws.com")
    await begun(world)
    assert condition(status(world), "Stalled") == ("True", "CacheNotShared")
    assert condition(status(world), "ModelCached") == ("False", "CacheNotShared")
    assert world.find("PersistentVolumeClaim", "support-cache") is None


async def test_auto_shares_where_the_class_can_and_not_where_it_is_not_known(world: World) -> None:
    await asked(world)
    await answered(world)
    assert status(world)["cache"]["mode"] == "Shared"
    other = World()
    add_class(other, "somebody.else/files")
    await asked(other)
    await answered(other)
    assert status(other)["cache"]["mode"] == "PerPod"
    assert "cache.sharedClasses" in status(other)["cache"]["why"]
    assert other.find("PersistentVolumeClaim", "support-cache") is None
    assert not any(item["type"] == "ModelCached" for item in status(other)["conditions"])


async def test_a_template_that_exists_stays_whatever_the_class_can_do_since() -> None:
    world = World()
    await asked(world)
    await answered(world)
    before, why = world.get("Deployment", "support"), status(world)["cache"]["why"]
    add_class(world)
    world.restart()
    world.writes()
    await run(world)
    assert world.get("Deployment", "support") == before
    assert (status(world)["cache"]["mode"], status(world)["cache"]["why"]) == ("PerPod", why)
    assert world.writes() == []


async def test_auto_does_without_when_no_volume_is_found_and_explicit_says_so(world: World) -> None:
    await asked(world)
    await answered(world)
    fill_pod(world, node="", unschedulable=UNBOUND, created="2026-11-21T13:00:00Z")
    waits = await run(world)
    assert waits is not None
    assert 0 < waits <= 300
    await world.clock.advance(301)
    await run(world)
    assert status(world)["cache"]["mode"] == "PerPod"
    assert mounted(world) == ""
    assert any(reason == "CacheFallback" for _, reason, _ in world.events.recorded)
    assert fills(world) == []
    explicit = World()
    add_class(explicit)
    await begun(explicit)
    fill_pod(explicit, node="", unschedulable=UNBOUND, created="2026-11-21T13:00:00Z")
    await explicit.clock.advance(301)
    await run(explicit)
    assert condition(status(explicit), "ModelCached") == ("False", "CacheNotShared")
    assert explicit.find("Deployment", "support") is None


async def test_a_stored_template_that_shares_is_not_contradicted_by_a_claim_without_a_volume(world: World) -> None:
    await asked(world)
    await answered(world)
    await filled(world)
    world.pod()
    await run(world)
    await run(world)
    before = world.get("Deployment", "support")
    await world.cluster.delete("PersistentVolumeClaim", "ml", "support-cache")
    await run(world)
    await run(world)
    fill_pod(world, pod="f2", node="", unschedulable=UNBOUND, created="2026-11-21T13:00:00Z")
    await world.clock.advance(301)
    for _ in range(2):
        await run(world)
        assert condition(status(world), "ModelCached") == ("False", "CacheNotShared")
        assert status(world)["cache"]["mode"] == "Shared"
        assert len(fills(world)) == 1
    assert not any(reason == "CacheFallback" for _, reason, _ in world.events.recorded)
    assert world.get("Deployment", "support")["spec"] == before["spec"]


async def test_a_pod_that_waits_for_something_else_is_no_claim_without_a_volume(world: World) -> None:
    await begun(world)
    fill_pod(world, node="", unschedulable="0/2 nodes are available: 2 Insufficient memory.", created="2026-11-21T13:00:00Z")
    await world.clock.advance(3600)
    await run(world)
    assert condition(status(world), "ModelCached") == ("False", "Unschedulable")


async def test_another_class_for_a_claim_that_exists_is_refused_and_what_serves_goes_on(world: World) -> None:
    await served(world)
    before = world.get("Deployment", "support")
    world.edit("LLMDeployment", "support", cache={**SHARED, "storageClass": "others"})
    await run(world)
    assert condition(status(world), "Stalled") == ("True", "InvalidSpec")
    assert "files" in message(status(world), "Stalled")
    assert world.get("Deployment", "support") == before


async def test_a_wrong_spec_changes_nothing_that_is_told_of_the_cache(world: World) -> None:
    await served(world)
    before = status(world)["cache"]
    world.edit("LLMDeployment", "support", engine={"args": {"port": 1}})
    await run(world)
    assert condition(status(world), "Stalled")[0] == "True"
    assert status(world)["cache"] == before
    assert condition(status(world), "ModelCached") == ("True", "ModelCached")


@pytest.mark.parametrize(("error", "reason"), [(Forbidden("exceeded quota: storage"), "ReconcileFailed"), (Invalid("spec: no"), "InvalidSpec")])
async def test_a_claim_that_may_not_grow_stops_nothing_that_serves(world: World, error: ApiError, reason: str) -> None:
    add_class(world, allowVolumeExpansion=True)
    await served(world)
    bind(world)
    world.cluster.fail = lambda verb, kind: error if (verb, kind) == ("apply", "PersistentVolumeClaim") else None
    world.edit("LLMDeployment", "support", cache={**SHARED, "size": "5Gi"}, replicas=3)
    await run(world)
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3
    assert condition(status(world), "ModelCached") == ("True", "ModelCached")
    assert reason in (condition(status(world), "Stalled")[1], condition(status(world), "Reconciling")[1])
    assert str(error) in message(status(world), "Reconciling") + message(status(world), "Stalled")


async def test_a_fill_that_may_not_be_made_stops_nothing_that_serves(world: World) -> None:
    await served(world)
    foreign = {"namespace": "ml", "name": f"support-fill-{SECOND}", "uid": "theirs", "labels": {}}
    world.cluster.objects[Key("Job", "ml", f"support-fill-{SECOND}")] = {"apiVersion": "batch/v1", "kind": "Job", "metadata": foreign}
    await moved(world)
    world.edit("LLMDeployment", "support", replicas=3)
    await run(world)
    assert condition(status(world), "Stalled") == ("True", "NameTaken")
    assert condition(status(world), "ModelCached") == ("False", "NameTaken")
    assert (world.get("Deployment", "support")["spec"]["replicas"], mounted(world)) == (3, FIRST)


async def test_auto_does_without_where_classes_cannot_be_read(world: World) -> None:
    world.cluster.fail = lambda verb, kind: Forbidden("storageclasses is forbidden") if kind == "StorageClass" else None
    await asked(world)
    await answered(world)
    assert status(world)["cache"]["mode"] == "PerPod"
    assert "storageclasses is forbidden" in status(world)["cache"]["why"]
    assert condition(status(world), "Stalled")[0] == "False"
    assert mounted(world) == ""
    assert world.find("Deployment", "support")
    named = World()
    named.cluster.fail = world.cluster.fail
    await begun(named)
    assert document(named)["key"] == FIRST, "a class that is named is tried"
    unnamed = World()
    unnamed.cluster.fail = world.cluster.fail
    await begun(unnamed, storageClass="")
    assert condition(status(unnamed), "ModelCached") == ("False", "ReconcileFailed")
