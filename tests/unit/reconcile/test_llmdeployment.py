from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork.config import Config
from graftwork.errors import Forbidden, Invalid

from tests.unit.reconcile.world import STORE, World
from tests.unit.status.seen import condition, message

CHILDREN = [("ConfigMap", "support-adapters"), ("Service", "support"), ("PodDisruptionBudget", "support"), ("Deployment", "support")]


async def serving(world: World, replicas: int = 1, **spec: Any) -> None:
    """Bring a deployment to Ready."""
    world.deployment(replicas=replicas, **spec)
    await world.run("LLMDeployment", "support")
    for number in range(replicas):
        world.pod(f"p{number + 1}")
    for _ in range(2):
        await world.run("LLMDeployment", "support")
    world.writes()


async def test_the_first_pass_makes_the_children_with_the_config_map_first_and_the_deployment_last() -> None:
    world = World()
    world.deployment()
    await world.run("LLMDeployment", "support")
    made = [(kind, name) for verb, kind, name in world.writes() if verb in ("apply", "create")]
    assert made[0] == CHILDREN[0]
    assert made[-1] == CHILDREN[-1]
    assert made[-2][0] == "ControllerRevision"
    assert set(CHILDREN) < set(made)
    assert condition(world.status("LLMDeployment", "support"), "Ready") == ("False", "PodsStarting")


async def test_a_ready_pod_makes_it_ready_and_a_further_pass_writes_nothing() -> None:
    world = World()
    await serving(world)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready") == ("True", "Reconciled")
    assert status["rollout"]["revision"] == 1
    result = await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert result.requeue_after_seconds is None


async def test_a_restarted_operator_writes_nothing_while_agents_have_not_answered_and_after() -> None:
    world = World()
    await serving(world)
    engine = world.adapter()
    await world.run("LLMDeployment", "support")
    world.agent("p1", engine)
    await world.run("LLMDeployment", "support")
    views = dict(world.agents.views)
    world.agents.views.clear()
    world.restart()
    world.writes()
    result = await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert result.requeue_after_seconds
    world.agents.views.update(views)
    await world.run("LLMDeployment", "support")
    assert world.writes() == []


async def test_the_config_map_is_written_before_any_pod_is_told() -> None:
    world = World()
    await serving(world, replicas=2)
    world.adapter()
    await world.run("LLMDeployment", "support")
    writes = [(kind, name) for _, kind, name in world.writes() if kind in ("ConfigMap", "Pod")]
    assert writes[0] == ("ConfigMap", "support-adapters")
    assert sorted(writes[1:]) == [("Pod", "p1"), ("Pod", "p2")]
    assert world.annotation("p1") == world.annotation("p2") == world.hash()
    assert [item["name"] for item in json.loads(world.content())["adapters"]] == ["medical-1"]


async def test_no_pod_is_told_when_the_config_map_cannot_be_written() -> None:
    world = World()
    await serving(world)
    world.adapter()
    world.cluster.fail = lambda verb, kind: Invalid("no") if (verb, kind) == ("apply", "ConfigMap") else None
    before = world.annotation("p1")
    await world.run("LLMDeployment", "support")
    assert world.annotation("p1") == before
    assert condition(world.status("LLMDeployment", "support"), "Stalled") == ("True", "InvalidSpec")


@pytest.mark.parametrize(("verb", "kind"), [("apply", "ConfigMap"), ("apply", "Deployment"), ("create", "ControllerRevision"), ("patch", "Pod")])
async def test_a_write_that_is_forbidden_is_told_in_the_status_and_tried_again(verb: str, kind: str) -> None:
    world = World()
    await serving(world)
    world.adapter()
    world.edit("LLMDeployment", "support", engine={"enforceEager": True})
    world.cluster.fail = lambda *request: Forbidden("exceeded quota: small") if request == (verb, kind) else None
    result = await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert (condition(status, "Ready"), condition(status, "Stalled")[0]) == (("False", "ReconcileFailed"), "False")
    assert "exceeded quota: small" in message(status, "Ready")
    assert condition(status, "Serving")[0] == "True"
    assert status["observedGeneration"] == 2
    assert 0 < (result.requeue_after_seconds or 0) <= 30.0  # earlier when a pod is to be told again
    assert any(reason == "ReconcileFailed" for _, reason, _ in world.events.recorded)
    world.cluster.fail = lambda *request: None
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "Ready")[1] != "ReconcileFailed"
    assert world.annotation("p1") == world.hash()


async def test_an_ending_pod_and_a_pod_without_a_node_are_not_told() -> None:
    world = World()
    await serving(world)
    world.pod("ending", terminating=True)
    world.pod("waiting", ready=False, node="")
    await world.run("LLMDeployment", "support")
    assert world.annotation("ending") is None
    assert world.annotation("waiting") is None


async def test_a_pod_that_reads_an_old_file_is_told_again_with_growing_pauses() -> None:
    world = World()
    await serving(world)
    world.adapter()
    world.agent("p1", observed="0" * 64)
    result = await world.run("LLMDeployment", "support")
    assert result.requeue_after_seconds == 2.0
    world.writes()
    tellings = []
    for _ in range(5):
        await world.clock.advance(result.requeue_after_seconds or 0)
        world.agent("p1", observed="0" * 64)
        result = await world.run("LLMDeployment", "support")
        tellings.append((len([kind for _, kind, _ in world.writes() if kind == "Pod"]), result.requeue_after_seconds))
    assert tellings == [(2, 4.0), (2, 8.0), (2, 16.0), (2, 32.0), (2, 60.0)]
    assert world.annotation("p1") == world.hash()
    world.agent("p1")
    assert (await world.run("LLMDeployment", "support")).requeue_after_seconds is None


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"engine": {"args": {"max_lora_rank": 64}}}, "OwnedFlag", "spec.adapters.maxRank"),
        ({"engine": {"quantization": "fp8", "args": {"quantization": "fp8"}}}, "OwnedFlag", "spec.engine.quantization decides here"),
        ({"engine": {"quantization": "int4"}}, "InvalidSpec", "'int4' is none of what vLLM 0.32.0 takes"),
        ({"engine": {"args": {"enable-log-outputs": True}}}, "UnsupportedCombination", "add enable-log-requests"),
        ({"model": {"source": "ftp://org/model"}}, "SourceInvalid", "ftp://org/model"),
        ({"adapters": {"maxRank": 7}}, "InvalidSpec", "spec.adapters.maxRank"),
        ({"adapters": {"aliases": [{"name": "a"}, {"name": "a"}]}}, "InvalidSpec", "'a' twice"),
    ],
)
async def test_an_invalid_spec_after_a_valid_one_changes_no_child_and_says_why(change: dict[str, Any], reason: str, words: str) -> None:
    world = World()
    await serving(world)
    world.edit("LLMDeployment", "support", **change, replicas=5)
    result = await world.run("LLMDeployment", "support")
    assert [kind for _, kind, _ in world.writes()] == ["LLMDeployment"]
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Stalled") == ("True", reason)
    assert condition(status, "Serving")[0] == "True"
    assert words in message(status, "Stalled")
    assert status["observedGeneration"] == 2
    assert result.requeue_after_seconds
    assert ("LLMDeployment/support", reason) in [(who, why) for who, why, _ in world.events.recorded]


async def test_pods_that_are_weaker_than_restricted_are_told_as_long_as_they_are_and_serve_all_the_same() -> None:
    world = World()
    await serving(world, pod={"securityContext": {"runAsNonRoot": False}})
    status = world.status("LLMDeployment", "support")
    assert condition(status, "PodSecurity") == ("False", "SecurityWeakened")
    assert "container vllm: securityContext.runAsNonRoot must be true" in message(status, "PodSecurity")
    assert condition(status, "Stalled") == ("False", "Reconciled")
    world.edit("LLMDeployment", "support", pod={"securityContext": {"runAsUser": 2000}})
    for _ in range(2):
        await world.run("LLMDeployment", "support")
    assert not [item for item in world.status("LLMDeployment", "support")["conditions"] if item["type"] == "PodSecurity"]


async def test_another_operator_rolls_no_pod_and_a_changed_spec_does() -> None:
    world = World()
    await serving(world)
    newer = Config.model_validate({**STORE.model_dump(), "images": {"engine": "engine:2", "agent": "agent:2", "trainer": "trainer:2"}})
    other = World(newer)
    for obj in world.cluster.objects.values():
        other.cluster.seed(obj)
    other.agents.views.update(world.agents.views)
    await other.run("LLMDeployment", "support")
    assert other.writes() == []
    other.edit("LLMDeployment", "support", engine={"maxModelLen": 256})
    await other.run("LLMDeployment", "support")
    template = other.get("Deployment", "support")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "engine:2"
    assert other.status("LLMDeployment", "support")["rollout"]["revision"] == 2
    other.edit("LLMDeployment", "support", engine={})
    await other.run("LLMDeployment", "support")
    template = other.get("Deployment", "support")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "engine:1"
    assert other.status("LLMDeployment", "support")["rollout"]["revision"] == 1


async def test_what_pods_are_not_made_from_makes_no_revision() -> None:
    world = World()
    await serving(world)
    world.edit("LLMDeployment", "support", replicas=3, adapters={"selector": {"matchLabels": {"team": "x"}}, "aliases": [{"name": "a", "keep": 2}]})
    await world.run("LLMDeployment", "support")
    assert world.get("Deployment", "support")["spec"]["replicas"] == 3
    assert len([key for key in world.cluster.objects if key.kind == "ControllerRevision"]) == 1


async def test_ten_revisions_are_kept_and_the_present_one_always() -> None:
    world = World()
    world.deployment()
    for length in range(100, 113):
        world.edit("LLMDeployment", "support", engine={"maxModelLen": length})
        await world.run("LLMDeployment", "support")
    kept = [obj for key, obj in world.cluster.objects.items() if key.kind == "ControllerRevision"]
    assert sorted(item["revision"] for item in kept) == list(range(4, 14))


async def test_a_taken_name_is_stalled_and_left_alone() -> None:
    world = World()
    world.deployment()
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ml", "name": "support", "labels": {}}, "spec": {"ports": []}}
    world.cluster.seed(foreign)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "Stalled") == ("True", "NameTaken")
    assert world.get("Service", "support")["spec"] == {"ports": []}
    assert world.find("Deployment", "support") is None


async def test_children_of_a_deleted_resource_of_the_same_name_are_waited_for() -> None:
    world = World()
    world.deployment()
    owner = {"kind": "LLMDeployment", "name": "support", "uid": "gone", "controller": True}
    labels = {"app.kubernetes.io/managed-by": "graftwork"}
    world.cluster.seed(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ml", "name": "support", "labels": labels, "ownerReferences": [owner]}}
    )
    result = await world.run("LLMDeployment", "support")
    assert result.requeue_after_seconds == 1.0
    assert condition(world.status("LLMDeployment", "support"), "Stalled")[0] == "False"


async def test_a_loaded_adapter_is_counted_and_its_own_resource_is_woken() -> None:
    world = World()
    await serving(world)
    engine = world.adapter()
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("False", "AdaptersLoading")
    world.woken.clear()
    world.agent("p1", engine)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("True", "AdaptersLoaded")
    assert [str(key) for key in world.woken] == ["LoRAAdapter ml/medical-1"]
    world.woken.clear()
    await world.run("LLMDeployment", "support")
    assert world.woken == []


async def woken(world: World) -> list[str]:
    world.woken.clear()
    await world.run("LLMDeployment", "support")
    return sorted(key.name for key in world.woken)


async def test_only_the_adapters_of_which_there_is_news_are_woken() -> None:
    world = World()
    await serving(world)
    one, two = world.adapter("one", letter="a"), world.adapter("two", letter="b")
    world.agent("p1")
    assert await woken(world) == ["one-1", "two-1"], "the pods have just been told of them"
    world.agent("p1", one)
    assert await woken(world) == ["one-1"]
    world.agent("p1", one, two)
    assert await woken(world) == ["two-1"]
    three = world.adapter("three", letter="c")
    assert await woken(world) == ["three-1"]
    world.agent("p1", one, two, three)
    assert await woken(world) == ["three-1"]
    assert await woken(world) == []


async def test_news_that_concern_every_adapter_wake_them_all() -> None:
    world = World()
    await serving(world)
    engines = [world.adapter(alias, letter=letter) for alias, letter in (("one", "a"), ("two", "b"))]
    world.agent("p1", *engines)
    await woken(world)
    assert await woken(world) == []
    world.agent("p1", *engines, reachable=False)
    assert await woken(world) == ["one-1", "two-1"], "the agent is silent"
    world.agent("p1", *engines)
    assert await woken(world) == ["one-1", "two-1"]
    world.pod("p2")
    world.agent("p2", *engines)
    assert await woken(world) == ["one-1", "two-1"], "one pod more"
    world.edit("LLMDeployment", "support", engine={"args": {"host": "x"}})
    assert await woken(world) == ["one-1", "two-1"], "nothing changes any more, and each says why"


async def test_an_adapter_that_another_takes_the_place_of_is_woken() -> None:
    world = World()
    await serving(world)
    world.agent("p1", world.adapter("one", letter="a"))
    await woken(world)
    assert await woken(world) == []
    newer = world.adapter("one", version=2, letter="b")
    assert "one-2" in await woken(world)
    world.agent("p1", newer)
    assert {"one-1", "one-2"} <= set(await woken(world)), "the older one is no longer served"


async def test_without_a_store_the_model_is_served_and_adapters_say_what_is_missing() -> None:
    world = World(Config.model_validate({**STORE.model_dump(), "store": {}}))
    world.adapter()
    await serving(world)
    status = world.status("LLMDeployment", "support")
    assert condition(status, "Ready")[0] == "True"
    assert condition(status, "AdaptersLoaded") == ("False", "StoreNotConfigured")
    await world.run("LoRAAdapter", "medical-1")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Stalled") == ("True", "StoreNotConfigured")


async def test_losing_the_store_takes_away_nothing_that_is_served() -> None:
    world = World()
    world.adapter()
    await serving(world)
    assert "medical" in world.content()
    other = World(Config.model_validate({**STORE.model_dump(), "store": {}}))
    for obj in world.cluster.objects.values():
        other.cluster.seed(obj)
    other.agents.views.update(world.agents.views)
    other.adapter("legal", letter="b")
    before = other.content()
    await other.run("LLMDeployment", "support")
    assert other.content() == before
    assert condition(other.status("LLMDeployment", "support"), "AdaptersLoaded") == ("False", "StoreNotConfigured")


@pytest.mark.parametrize(("modes", "stalled"), [(["ReadWriteOnce"], True), (["ReadWriteMany"], False)])
async def test_a_claim_that_only_one_node_can_mount_is_no_store(modes: list[str], stalled: bool) -> None:
    world = World(Config.model_validate({**STORE.model_dump(), "store": {"url": "file:///store", "claim": "adapters"}}))
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "ml", "name": "adapters"}, "spec": {"accessModes": modes}}
    world.cluster.seed(claim)
    world.deployment()
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert (condition(status, "Stalled") == ("True", "StoreNotShared")) is stalled
    assert ("ReadWriteMany" in message(status, "Ready")) is stalled
    assert (world.find("Deployment", "support") is None) is stalled


async def test_zero_replicas_stop_it() -> None:
    world = World()
    world.deployment(replicas=0)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "Ready") == ("True", "Stopped")


async def test_a_deleted_one_is_left_to_the_garbage_collector() -> None:
    world = World()
    await serving(world)
    world.delete("LLMDeployment", "support")
    await world.run("LLMDeployment", "support")
    assert world.writes() == []
    assert all(not pods for pods in world.agents.watched.values())


def rank_of(world: World) -> str:
    arguments = world.get("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["args"]
    return str(next(item for item in arguments if item.startswith("--max-lora-rank=")))


async def test_the_first_template_takes_the_rank_of_what_is_there_to_be_served() -> None:
    world = World()
    world.adapter(rank=40)
    world.deployment()
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=64"
    assert json.loads(world.content())["maxRank"] == 64


async def test_a_higher_rank_is_announced_rolled_out_and_then_served_and_never_goes_down_again() -> None:
    world = World()
    await serving(world)
    medical = world.adapter()
    await world.run("LLMDeployment", "support")
    world.agent("p1", medical)
    await world.run("LLMDeployment", "support")
    wide = world.adapter("wide", letter="b", rank=33)
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=64"
    assert wide not in world.content()
    assert medical in world.content()
    status = world.status("LLMDeployment", "support")
    assert condition(status, "AdaptersLoaded") == ("False", "RestartRequired")
    assert ("LLMDeployment/support", "RestartRequired") in [(who, why) for who, why, _ in world.events.recorded]
    await world.run("LoRAAdapter", "wide-1")
    assert condition(world.status("LoRAAdapter", "wide-1"), "Reconciling") == ("True", "RestartRequired")
    world.pod("p2")
    world.agent("p2", medical)
    await world.run("LLMDeployment", "support")
    assert wide not in world.content(), "the old pod cannot load it"
    world.pod("p1", terminating=True)
    await world.run("LLMDeployment", "support")
    assert wide in world.content()
    world.agent("p2", medical, wide)
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "AdaptersLoaded") == ("True", "AdaptersLoaded")
    world.delete("LoRAAdapter", "wide-1")
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=64"
    assert world.status("LLMDeployment", "support")["rollout"]["revision"] == 2


async def test_a_rank_that_would_be_refused_anyway_restarts_no_pod() -> None:
    world = World()
    await serving(world)
    world.adapter("foreign", letter="b", rank=512, baseModel={"fingerprint": "sha256:" + "2" * 64})
    world.adapter("support", letter="c", rank=512)
    await world.run("LLMDeployment", "support")
    assert rank_of(world) == "--max-lora-rank=16"
    assert world.status("LLMDeployment", "support")["rollout"]["revision"] == 1


async def test_more_adapters_than_slots_are_served_with_a_warning_that_says_what_it_costs() -> None:
    world = World()
    await serving(world, adapters={"maxLoaded": 1})
    engines = [world.adapter(alias, letter=letter) for alias, letter in (("medical", "a"), ("legal", "b"))]
    await world.run("LLMDeployment", "support")
    world.agent("p1", *engines)
    await world.run("LLMDeployment", "support")
    status = world.status("LLMDeployment", "support")
    assert condition(status, "AdaptersLoaded") == ("True", "OverCapacity")
    assert "2 adapters are loaded and adapters.maxLoaded is 1" in message(status, "AdaptersLoaded")
    assert condition(status, "Ready")[0] == "True"


async def test_declaring_a_base_compatible_restarts_no_pod() -> None:
    world = World()
    await serving(world)
    foreign = world.adapter(baseModel={"source": "hf://Qwen/Qwen3-8B", "fingerprint": "sha256:" + "2" * 64})
    await world.run("LLMDeployment", "support")
    assert foreign not in world.content()
    world.edit("LLMDeployment", "support", model={"source": "s3://models/tiny", "compatibleBases": ["Qwen/Qwen3-8B"]})
    await world.run("LLMDeployment", "support")
    assert foreign in world.content()
    assert len([key for key in world.cluster.objects if key.kind == "ControllerRevision"]) == 1


async def test_the_engines_that_run_say_how_many_adapters_may_be_listed() -> None:
    """A template that an older operator froze had a smaller cache: what does not fit would be read inside the forward step."""
    world = World()
    await serving(world)
    made = world.get("Deployment", "support")
    (engine,) = made["spec"]["template"]["spec"]["containers"]
    engine["args"] = ["--max-cpu-loras=2" if item.startswith("--max-cpu-loras=") else item for item in engine["args"]]
    world.cluster.seed(made)
    for alias, letter in (("medical", "a"), ("legal", "b")):
        world.adapter(alias, letter=letter)
    await world.run("LoRAAdapter", "medical-1")
    await world.run("LoRAAdapter", "legal-1")
    assert condition(world.status("LoRAAdapter", "legal-1"), "Ready") == ("False", "Loading")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Stalled") == ("True", "CapacityExceeded")
