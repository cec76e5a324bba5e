from __future__ import annotations

import copy
from typing import Any

import pytest
from graftwork import names
from graftwork.cluster import mirror as mirror_module
from graftwork.cluster.kinds import KINDS, Key, sweep_key
from graftwork.cluster.mirror import Change, Mirror
from graftwork.handlers.routes import concerned, owner_of, standing

from tests.unit.runtime.fakes import obj_of

DEPLOYMENT, ADAPTER, JOB = Key("LLMDeployment", "ml", "support"), Key("LoRAAdapter", "ml", "medical-8"), Key("FineTuneJob", "ml", "tickets")
SWEEP = sweep_key("ml")


def pod(version: int, **metadata: Any) -> dict[str, Any]:
    return obj_of("Pod", "p", resourceVersion=str(version), **metadata)


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


def test_the_newer_of_two_states_stays_whatever_comes_first(mirror: Mirror) -> None:
    assert mirror.put(pod(9))
    assert mirror.put(pod(10), written=True)
    assert not mirror.put(pod(9)), "a watch event that is older than our own write"
    assert not mirror.put(pod(10)), "the echo of our own write"
    assert mirror.get("Pod", "ml", "p")["metadata"]["resourceVersion"] == "10"  # type: ignore[index]


def test_versions_are_numbers_not_texts(mirror: Mirror) -> None:
    mirror.put(pod(99))
    assert mirror.put(pod(100))


def test_a_late_answer_does_not_bring_back_what_is_gone(mirror: Mirror) -> None:
    mirror.put(pod(9))
    assert mirror.remove("Pod", "ml", "p", "uid-p", "11")
    assert not mirror.put(pod(10), written=True)
    assert mirror.get("Pod", "ml", "p") is None


def test_an_object_that_lost_our_label_and_got_it_again_is_back(mirror: Mirror) -> None:
    mirror.put(pod(9))
    mirror.remove("Pod", "ml", "p", "uid-p", "11")
    assert mirror.put(pod(12))


def test_a_deletion_of_a_predecessor_does_not_remove_its_successor(mirror: Mirror) -> None:
    mirror.put(pod(20, uid="second"))
    assert not mirror.remove("Pod", "ml", "p", "first", "10")
    assert mirror.get("Pod", "ml", "p")


def test_children_without_our_label_are_not_kept_but_our_kinds_are(mirror: Mirror) -> None:
    foreign = pod(1)
    foreign["metadata"]["labels"] = {}
    assert not mirror.put(foreign)
    ours = obj_of("LoRAAdapter")
    ours["metadata"]["labels"] = {}
    assert mirror.put(ours)


def test_a_listing_removes_what_is_gone_and_keeps_what_is_newer_than_it(mirror: Mirror) -> None:
    mirror.put(obj_of("Pod", "gone", resourceVersion="5"))
    mirror.put(obj_of("Pod", "made-after", resourceVersion="60"))
    mirror.put(obj_of("Pod", "same", resourceVersion="7"))
    changed = mirror.replace("Pod", None, [obj_of("Pod", "same", resourceVersion="7"), obj_of("Pod", "new", resourceVersion="8")], "50")
    assert [obj["metadata"]["name"] for obj in mirror.list("Pod", "ml")] == ["made-after", "new", "same"]
    assert changed == 2


def test_a_listing_of_one_namespace_says_nothing_of_another(mirror: Mirror) -> None:
    mirror.put(obj_of("Pod", "a", namespace="other", resourceVersion="5"))
    mirror.replace("Pod", "ml", [], "50")
    assert mirror.get("Pod", "other", "a")


def test_lists_are_sorted_and_selected_by_labels(mirror: Mirror) -> None:
    for name, namespace, job in (("b", "ml", "x"), ("a", "ml", "x"), ("c", "ml", "y"), ("d", "other", "x")):
        mirror.put(obj_of("Pod", name, namespace=namespace, uid=name, labels={names.LABEL_JOB: job}))
    assert [obj["metadata"]["name"] for obj in mirror.list("Pod", "ml", {names.LABEL_JOB: "x"})] == ["a", "b"]
    assert [obj["metadata"]["name"] for obj in mirror.list("Pod", None, {names.LABEL_JOB: "x"})] == ["a", "b", "d"]


def test_of_managed_fields_only_our_own_applies_are_kept(mirror: Mirror) -> None:
    ours = {"manager": "graftwork", "operation": "Apply", "fieldsV1": {}}
    mirror.put(pod(1, managedFields=[{"manager": "kubelet", "operation": "Update"}, ours, {"manager": "graftwork", "operation": "Update"}]))
    assert mirror.get("Pod", "ml", "p")["metadata"]["managedFields"] == [ours]  # type: ignore[index]


def test_listeners_hear_of_changes_and_removals_once(mirror: Mirror) -> None:
    heard: list[Change] = []
    mirror.subscribe(heard.append)
    mirror.put(pod(1))
    mirror.put(pod(1))
    mirror.put(pod(2), written=True)
    mirror.remove("Pod", "ml", "p", "uid-p")
    mirror.remove("Pod", "ml", "p", "uid-p")
    assert [(bool(each.before), bool(each.after), each.written) for each in heard] == [
        (False, True, False),
        (True, True, True),
        (True, False, False),
    ]


def test_what_belongs_to_one_resource_is_found_without_a_look_at_the_others(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        labels = {names.LABEL_DEPLOYMENT: f"d{number % 10}"}
        mirror.put(obj_of("Pod", f"p{number:02}", uid=f"u{number}", labels=labels))
    looked = []
    monkeypatch.setattr(mirror_module, "_has_labels", lambda obj, labels: looked.append(obj) or True)
    found = mirror.list("Pod", "ml", {names.LABEL_DEPLOYMENT: "d3"})
    assert [obj["metadata"]["name"] for obj in found] == ["p03", "p13", "p23", "p33", "p43"]
    assert len(looked) == 5


@pytest.mark.parametrize("change", ["relabelled", "gone", "unlabelled"])
def test_the_index_follows_its_object(mirror: Mirror, change: str) -> None:
    mirror.put(pod(1, labels={names.LABEL_DEPLOYMENT: "a", names.LABEL_OWNER_UID: "x"}))
    mirror.put(obj_of("Pod", "q", uid="uid-q", labels={names.LABEL_DEPLOYMENT: "a"}))
    match change:
        case "relabelled":
            mirror.put(pod(2, labels={names.LABEL_DEPLOYMENT: "b", names.LABEL_OWNER_UID: "x"}))
        case "gone":
            mirror.remove("Pod", "ml", "p", "uid-p")
        case "unlabelled":
            mirror.put(pod(2))
    found = {label: [obj["metadata"]["name"] for obj in mirror.list("Pod", "ml", {names.LABEL_DEPLOYMENT: label})] for label in "ab"}
    assert found == {"a": ["q"], "b": ["p"] if change == "relabelled" else []}
    assert bool(mirror.list("Pod", "ml", {names.LABEL_OWNER_UID: "x"})) == (change == "relabelled")


def test_equal_parts_of_objects_are_held_once_and_each_object_is_what_was_put(mirror: Mirror) -> None:
    spec = {"containers": [{"name": "vllm", "env": [{"name": "A", "value": "1"}]}]}
    for name, node in (("a", "n1"), ("b", "n2")):
        mirror.put({**obj_of("Pod", name, uid=name), "spec": {**copy.deepcopy(spec), "nodeName": node}})
    a, b = (mirror.get("Pod", "ml", name) for name in "ab")
    assert a
    assert b
    assert a["spec"]["containers"] is b["spec"]["containers"]
    assert (a["spec"], b["spec"]) == ({**spec, "nodeName": "n1"}, {**spec, "nodeName": "n2"})


def test_a_changed_object_keeps_the_parts_that_stayed_and_a_successor_is_taken_as_it_is(mirror: Mirror) -> None:
    def deployment(version: int, uid: str, eager: Any, ready: int) -> dict[str, Any]:
        obj = obj_of("LLMDeployment", "one", uid=uid, resourceVersion=str(version), generation=1)
        return {**obj, "spec": {"engine": {"args": {"eager": eager}}}, "status": {"ready": ready}}

    mirror.put(deployment(1, "first", 1, 0))
    before = mirror.get("LLMDeployment", "ml", "one")
    mirror.put(deployment(2, "first", 1, 1))
    after = mirror.get("LLMDeployment", "ml", "one")
    assert before
    assert after
    assert after["spec"] is before["spec"]
    assert (before["status"], after["status"]) == ({"ready": 0}, {"ready": 1})
    mirror.put(deployment(3, "second", True, 1))
    successor = mirror.get("LLMDeployment", "ml", "one")
    assert successor
    assert successor["spec"]["engine"]["args"]["eager"] is True


# --- who is woken


@pytest.fixture
def fleet(mirror: Mirror) -> Mirror:
    mirror.put(obj_of("LLMDeployment", "support"))
    mirror.put(obj_of("LLMDeployment", "elsewhere", namespace="other"))
    mirror.put({**obj_of("LoRAAdapter", "medical-8", labels={names.LABEL_PUBLISHED_BY: "uid-tickets"}), "spec": {"alias": "medical"}})
    mirror.put({**obj_of("FineTuneJob", "tickets"), "spec": {"deploymentRef": "support"}})
    mirror.put({**obj_of("FineTuneJob", "on-a-base"), "spec": {"baseModel": {}}})
    return mirror


def woken(mirror: Mirror, before: dict[str, Any] | None, after: dict[str, Any] | None, written: bool = False) -> set[Key]:
    return set(concerned(Change(before, after, written), mirror))


def test_a_new_adapter_wakes_deployments_of_its_namespace_its_job_and_itself(fleet: Mirror) -> None:
    adapter = fleet.get("LoRAAdapter", "ml", "medical-8")
    assert woken(fleet, None, adapter, written=True) == {ADAPTER, DEPLOYMENT, JOB, SWEEP}


def test_an_adapter_that_names_the_files_of_another_namespace_wakes_the_sweep_there(fleet: Mirror) -> None:
    borrowed = {**obj_of("LoRAAdapter", "lent", namespace="other"), "spec": {"alias": "lent", "source": "store://ml/medical/aaaaaaaaaaaa"}}
    assert SWEEP in woken(fleet, None, borrowed)
    nobodys = {**borrowed, "spec": {"alias": "lent", "source": "store://unwatched/medical/aaaaaaaaaaaa"}}
    assert sweep_key("unwatched") not in woken(fleet, None, nobodys)


def test_an_adapters_status_wakes_no_deployment_and_our_own_write_of_it_not_even_itself(fleet: Mirror) -> None:
    adapter = fleet.get("LoRAAdapter", "ml", "medical-8") or {}
    changed = {**adapter, "status": {"digest": "x"}}
    assert woken(fleet, adapter, changed, written=True) == {JOB}
    assert woken(fleet, adapter, changed) == {JOB, ADAPTER}


def test_a_deployments_status_wakes_the_jobs_that_refer_to_it_and_its_spec_the_adapters_too(fleet: Mirror) -> None:
    deployment = fleet.get("LLMDeployment", "ml", "support") or {}
    assert woken(fleet, deployment, {**deployment, "status": {}}, written=True) == {JOB}
    edited = {**deployment, "metadata": {**deployment["metadata"], "generation": 2}}
    assert woken(fleet, deployment, edited) == {ADAPTER, JOB, DEPLOYMENT}
    assert ADAPTER in woken(fleet, deployment, None)


def test_a_deleted_adapter_wakes_deployments(fleet: Mirror) -> None:
    assert {DEPLOYMENT, SWEEP} <= woken(fleet, fleet.get("LoRAAdapter", "ml", "medical-8"), None)


def test_an_import_that_is_done_wakes_whoever_can_serve_it(fleet: Mirror) -> None:
    before = {**obj_of("LoRAAdapter", "legal-1"), "spec": {"alias": "legal", "source": "hf://acme/legal"}}
    pinned = {**before, "status": {"digest": "x", "source": "y", "rank": 8}}
    assert woken(fleet, before, pinned, written=True) == {DEPLOYMENT, SWEEP}
    loaded = {**pinned, "status": {**pinned["status"], "loadedText": "1/1"}}
    assert woken(fleet, pinned, loaded, written=True) == set()


def test_everything_that_stands_has_a_task_at_the_start(fleet: Mirror) -> None:
    fleet.put(obj_of("Job", "graftwork-sweep-4", namespace="old", labels={names.LABEL_SWEEP: "true"}))
    assert set(standing(fleet)) >= {ADAPTER, DEPLOYMENT, JOB, SWEEP, sweep_key("old")}


def test_children_wake_their_owner(fleet: Mirror) -> None:
    reference = {"apiVersion": names.API_VERSION, "kind": "LLMDeployment", "name": "support", "uid": "u", "controller": True}
    replica_set = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "support-abc", "uid": "r", "controller": True}
    assert owner_of(obj_of("ConfigMap", ownerReferences=[reference])) == DEPLOYMENT
    assert owner_of(obj_of("Pod", ownerReferences=[replica_set], labels={names.LABEL_DEPLOYMENT: "support"})) == DEPLOYMENT
    assert owner_of(obj_of("Pod", labels={names.LABEL_INSPECTS: "support"})) == DEPLOYMENT
    assert owner_of(obj_of("Pod", labels={names.LABEL_FILLS: "support"})) == DEPLOYMENT
    assert owner_of(obj_of("Pod", labels={names.LABEL_JOB: "tickets"})) == JOB
    assert owner_of(obj_of("Pod", labels={names.LABEL_ADAPTER: "medical-8"})) == ADAPTER
    assert owner_of(obj_of("Job", labels={names.LABEL_SWEEP: "true"})) == SWEEP
    assert owner_of(obj_of("ConfigMap")) is None
    assert woken(fleet, None, obj_of("Pod", labels={names.LABEL_JOB: "tickets"})) == {JOB}


def test_a_name_cannot_leave_its_segment_of_the_path() -> None:
    assert KINDS["PersistentVolumeClaim"].path("ml", "../secrets/x") == "/api/v1/namespaces/ml/persistentvolumeclaims/..%2Fsecrets%2Fx"
    assert KINDS["LLMDeployment"].path("ml", "a", "status") == "/apis/graftwork.dev/v1alpha1/namespaces/ml/llmdeployments/a/status"
    assert KINDS["Pod"].path(None) == "/api/v1/pods"
    assert KINDS["Namespace"].path("", "ml") == "/api/v1/namespaces/ml"
