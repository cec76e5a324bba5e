from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from graftwork import names
from graftwork.cluster.protocol import Object
from graftwork.errors import NameTaken
from graftwork.facts.quantity import quantity
from graftwork.reconcile.children import apply_children, owned
from graftwork.reconcile.context import Context
from graftwork.reconcile.diff import needs_apply

from tests.unit.runtime.fakes import field_set, new_context, obj_of

OWNER = {"apiVersion": names.API_VERSION, "kind": "LLMDeployment", "metadata": {"namespace": "ml", "name": "support", "uid": "uid-support"}}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "support-adapters"}, "data": {"adapters.json": "{}"}}


def pod_spec(**spec: Any) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def live(obj: Object, fields: Object | None = None, **spec: Any) -> Object:
    """What the API server shows of an object that we applied; `spec` are changes to what it shows."""
    shown = copy.deepcopy(obj)
    shown["metadata"]["managedFields"] = [
        {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:foreign": {}}}},
        {"manager": names.FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields if fields is not None else {"f:spec": field_set(obj["spec"])}},
    ]
    for key, value in spec.items():
        if value is None:
            shown["spec"].pop(key)
        else:
            shown["spec"][key] = value
    return shown


SAME = [
    ("identical", {"a": 1}, {}),
    ("defaults were added", {"a": {"b": 1}}, {"a": {"b": 1, "defaulted": True}, "other": "x"}),
    ("false that is not shown", {"hostNetwork": False}, {"hostNetwork": None}),
    ("an empty string that is not shown", {"subPath": ""}, {"subPath": None}),
    ("empty containers that are not shown", {"nodeSelector": {}, "tolerations": []}, {"nodeSelector": None, "tolerations": None}),
    ("a cpu quantity is rewritten", {"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}),
    ("a memory quantity is rewritten", {"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}),
    ("a number becomes a quantity", {"requests": {"cpu": 0.5, "nvidia.com/gpu": 1}}, {"requests": {"cpu": "500m", "nvidia.com/gpu": "1"}}),
    ("a size limit is rewritten", {"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}}),
    ("another manager's container", {"containers": [{"name": "a", "image": "x"}]}, {"containers": [{"name": "s"}, {"name": "a", "image": "x"}]}),
    ("the protocol of a port was added", {"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "protocol": "TCP"}]}),
    ("a whole float comes back as an integer", {"x": 1.0}, {"x": 1}),
]
DIFFERENT = [
    ("a value", {"a": 1}, {"a": 2}),
    ("a missing value", {"a": "x"}, {"a": None}),
    ("a number is not its text", {"port": 8000}, {"port": "8000"}),
    ("a quantity", {"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}),
    ("quantities are compared only where they are quantities", {"labels": {"size": "1024Mi"}}, {"labels": {"size": "1Gi"}}),
    ("the order of init containers", {"initContainers": [{"name": "a"}, {"name": "b"}]}, {"initContainers": [{"name": "b"}, {"name": "a"}]}),
    ("a container is missing", {"containers": [{"name": "a"}, {"name": "b"}]}, {"containers": [{"name": "a"}]}),
    ("an atomic list has more", {"args": ["a"]}, {"args": ["a", "b"]}),
    (
        "a port that somebody opened in a network policy",
        {"ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}]},
        {"ingress": [{"ports": [{"port": "http", "protocol": "TCP"}, {"port": 22, "protocol": "TCP"}]}]},
    ),
    ("an atomic list of objects has more", {"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a"}, {"key": "b"}]}),
    ("an environment value", {"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}),
    ("true became false", {"readOnly": True}, {"readOnly": False}),
]


@pytest.mark.parametrize(("spec", "shown"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_no_apply_when_the_api_server_shows_what_it_makes_of_the_same(spec: Object, shown: Object) -> None:
    desired = pod_spec(**spec)
    assert not needs_apply(desired, live(desired, **shown))


@pytest.mark.parametrize(("spec", "shown"), [case[1:] for case in DIFFERENT], ids=[case[0] for case in DIFFERENT])
def test_an_apply_when_something_differs(spec: Object, shown: Object) -> None:
    desired = pod_spec(**spec)
    assert needs_apply(desired, live(desired, **shown))


def test_false_is_not_absent_when_we_never_sent_it() -> None:
    before, now = pod_spec(a=1), pod_spec(a=1, automountServiceAccountToken=False)
    assert needs_apply(now, live(before))


@pytest.mark.parametrize("fields", [{"f:spec": {"f:gone": {}}}, {"f:spec": {"f:containers": {'k:{"name":"old"}': {".": {}, "f:name": {}}}}}])
def test_an_apply_when_we_own_a_field_that_is_no_longer_sent(fields: Object) -> None:
    desired = pod_spec(containers=[{"name": "a"}])
    assert needs_apply(desired, live(desired, fields))


def test_an_apply_when_we_never_applied() -> None:
    desired = pod_spec(a=1)
    assert needs_apply(desired, copy.deepcopy(desired))


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), ("1Gi", "1073741824"), ("2", "2"), (3, "3"), ("1e3", "1000"), ("1M", "1000000"), ("x", None)]
)
def test_quantities(text: object, number: str | None) -> None:
    value = quantity(text)
    assert (None if value is None else str(int(value) if value == int(value) else value.normalize())) == number


def test_an_owned_child_has_labels_and_a_controller_reference_and_no_nulls() -> None:
    child = owned(OWNER, {**CONFIG_MAP, "immutable": None})
    assert child["metadata"]["namespace"] == "ml"
    assert child["metadata"]["labels"] == {names.LABEL_MANAGED_BY: "graftwork", names.LABEL_OWNER_UID: "uid-support"}
    assert child["metadata"]["ownerReferences"][0] == {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LLMDeployment",
        "name": "support",
        "uid": "uid-support",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert "immutable" not in child


@pytest.fixture
def ctx() -> Context:
    return new_context()


def writes(ctx: Context) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = ctx.cluster.writes  # type: ignore[attr-defined]
    return found


async def test_a_child_is_applied_once_and_then_costs_nothing(ctx: Context) -> None:
    await apply_children(ctx, OWNER, [CONFIG_MAP])
    await apply_children(ctx, OWNER, [CONFIG_MAP])
    assert writes(ctx) == [("apply", "ConfigMap", "support-adapters")]


async def test_a_changed_child_is_applied_again(ctx: Context) -> None:
    await apply_children(ctx, OWNER, [CONFIG_MAP])
    outcome = await apply_children(ctx, OWNER, [{**CONFIG_MAP, "data": {"adapters.json": "[]"}}])
    assert outcome.applied == ["ConfigMap/support-adapters"]


async def test_what_is_not_desired_any_more_is_pruned_and_nothing_else(ctx: Context) -> None:
    await apply_children(ctx, OWNER, [CONFIG_MAP, {**CONFIG_MAP, "metadata": {"name": "old"}}])
    ctx.cluster.seed(obj_of("ConfigMap", "of-another", labels={names.LABEL_OWNER_UID: "uid-other"}))  # type: ignore[attr-defined]
    copied = owned(OWNER, {**CONFIG_MAP, "metadata": {"name": "a-copy"}})
    del copied["metadata"]["ownerReferences"]
    ctx.cluster.seed(copied)  # type: ignore[attr-defined]
    outcome = await apply_children(ctx, OWNER, [CONFIG_MAP])
    assert outcome.pruned == ["ConfigMap/old"]
    assert ctx.mirror.get("ConfigMap", "ml", "of-another")
    assert ctx.mirror.get("ConfigMap", "ml", "a-copy")


async def test_a_job_is_made_once_and_never_changed_or_pruned(ctx: Context) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "y-run-1"}, "spec": {"parallelism": 1}}
    await apply_children(ctx, OWNER, [job])
    await apply_children(ctx, OWNER, [{**job, "spec": {"parallelism": 2}}])
    await apply_children(ctx, OWNER, [])
    assert writes(ctx) == [("create", "Job", "y-run-1")]


@pytest.mark.parametrize("references", [[], [{"kind": "Deployment", "name": "theirs", "uid": "u", "controller": True}]])
async def test_an_object_of_somebody_else_is_left_alone(ctx: Context, references: list[Object]) -> None:
    theirs = obj_of("ConfigMap", "support-adapters", ownerReferences=references)
    del theirs["metadata"]["labels"]
    ctx.cluster.seed(theirs)  # type: ignore[attr-defined]
    with pytest.raises(NameTaken, match="ConfigMap ml/support-adapters exists and belongs to"):
        await apply_children(ctx, OWNER, [CONFIG_MAP])
    assert writes(ctx) == []


async def test_what_is_not_in_the_mirror_is_asked_for_at_once_and_before_anything_is_written(ctx: Context) -> None:
    asked: list[str] = []
    all_asked = asyncio.Event()

    async def get(kind: str, namespace: str, name: str) -> Object | None:
        asked.append(name)
        if len(asked) == 3:
            all_asked.set()
        await asyncio.wait_for(all_asked.wait(), 5)  # one after the other would wait for ever
        assert not writes(ctx)
        return None

    ctx.cluster.get = get  # type: ignore[method-assign]
    await apply_children(ctx, OWNER, [{**CONFIG_MAP, "metadata": {"name": name}} for name in ("a", "b", "c")])
    assert [name for _, _, name in writes(ctx)] == ["a", "b", "c"] == sorted(asked)


async def test_a_name_that_is_taken_keeps_every_other_child_from_being_written(ctx: Context) -> None:
    theirs = obj_of("Service", "support", labels={})
    del theirs["metadata"]["labels"]
    ctx.cluster.seed(theirs)  # type: ignore[attr-defined]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "support"}, "spec": {}}
    with pytest.raises(NameTaken, match="Service ml/support"):
        await apply_children(ctx, OWNER, [CONFIG_MAP, service])
    assert writes(ctx) == []
