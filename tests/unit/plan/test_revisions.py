from __future__ import annotations

from typing import Any

import pytest
from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.plan import revisions
from graftwork.plan.revisions import Revision, template_hash


def hash_of(**spec: Any) -> str:
    return template_hash(
        LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "s3://models/tiny"}, **spec}})
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3},
        {"access": {"ingress": {"host": "chat.example.com"}, "route": {"parentRefs": [{"name": "public"}]}, "networkPolicy": {}}},
        {"adapters": {"selector": {"matchLabels": {"a": "b"}}, "aliases": [{"name": "a", "adapter": "a-1"}]}},
        {"adapters": {"maxLoaded": 8, "maxRank": 16}},
        {"adapters": {"maxRank": "auto"}},
        {"model": {"source": "s3://models/tiny", "compatibleBases": ["hf://Qwen/Qwen3-8B"]}},
        {"engine": {"args": {}, "env": [], "dtype": "auto"}, "pod": {"labels": {}, "resources": {}}, "service": {"port": 8000}},
        {"rollout": {"drainSeconds": 8}},
        {"rollout": {"surge": 0, "progressDeadline": "20m", "autoRollback": False, "upgradePolicy": "Rolling"}},
    ],
)
def test_a_default_that_is_written_out_and_what_pods_are_not_made_from_change_nothing(spec: dict[str, Any]) -> None:
    assert hash_of(**spec) == hash_of()


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"source": "s3://models/other"}},
        {"model": {"source": "s3://models/tiny", "servedName": "x"}},
        {"adapters": {"maxLoaded": 9}},
        {"adapters": {"maxRank": 32}},
        {"engine": {"args": {"seed": 1}}},
        {"rollout": {"answerSeconds": 10}},
        {"pod": {"resources": {"limits": {"memory": "1Gi"}}}},
        {"accelerator": {"types": ["cpu"]}},
    ],
)
def test_what_pods_are_made_from_changes_it(spec: dict[str, Any]) -> None:
    assert hash_of(**spec) != hash_of()


def test_a_commit_counts_and_its_name_does_not() -> None:
    hub, named = (
        LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "hf://acme/tiny", **more}}})
        for more in ({}, {"revision": "v1"})
    )
    assert template_hash(hub, "a" * 40) == template_hash(named, "a" * 40) != template_hash(hub, "b" * 40)


def test_the_hash_is_the_one_of_the_first_release() -> None:
    """Another value here would roll every pod of every user at the next upgrade."""
    assert hash_of() == "c723d04c451b6633"


class Store:
    """The stored revisions of one deployment, and operators that look at them one after the other."""

    def __init__(self) -> None:
        self.stored: list[dict[str, Any]] = []
        self.applied = ""

    def look(self, policy: str, image: str, text: str = "", **spec: Any) -> Revision:
        """Let an operator with this image look, whose templates say the image or `text`; what it wants is stored and applied."""
        deployment = LLMDeployment.from_object(
            {"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "s3://m/t"}, "rollout": {"upgradePolicy": policy}, **spec}}
        )
        found = revisions.revision(
            deployment,
            self.stored,
            lambda own: {"metadata": {"annotations": {names.ANNOTATION_TEMPLATE_HASH: own}}, "spec": {"text": text or image}},
            {"agent": image},
            applied=self.applied,
        )
        assert found.template["metadata"]["annotations"] == {names.ANNOTATION_TEMPLATE_HASH: found.template_hash}
        if found.manifest["metadata"]["name"] not in {item["metadata"]["name"] for item in self.stored}:
            self.stored.append(found.manifest)
        self.applied = found.template_hash
        return found


def test_an_upgrade_changes_nothing_until_the_next_change() -> None:
    store = Store()
    first, upgraded = store.look("WithNextChange", "agent:1"), store.look("WithNextChange", "agent:2")
    assert upgraded == first
    assert first.template_hash == hash_of(model={"source": "s3://m/t"})
    changed = store.look("WithNextChange", "agent:2", engine={"args": {"seed": 1}})
    assert (changed.number, changed.template["spec"]) == (2, {"text": "agent:2"})


def test_with_rolling_an_upgrade_that_renders_another_text_is_a_revision_of_its_own() -> None:
    store = Store()
    first, upgraded = store.look("WithNextChange", "agent:1"), store.look("Rolling", "agent:2")
    assert (upgraded.number, upgraded.template["spec"]) == (2, {"text": "agent:2"})
    assert upgraded.template_hash != first.template_hash
    assert upgraded.manifest["metadata"]["name"] == f"tiny-{upgraded.template_hash}"
    assert upgraded.manifest["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] == first.template_hash
    assert store.look("Rolling", "agent:2") == upgraded, "once"


def test_an_upgrade_that_renders_the_same_text_rolls_nothing() -> None:
    store = Store()
    first = store.look("Rolling", "agent:1", "same")
    assert store.look("Rolling", "agent:2", "same") == first
    assert len(store.stored) == 1


def test_a_downgrade_finds_the_old_rendering_again() -> None:
    store = Store()
    first, second = store.look("Rolling", "agent:1"), store.look("Rolling", "agent:2")
    assert store.look("Rolling", "agent:1") == first
    assert store.look("Rolling", "agent:2") == second
    assert len(store.stored) == 2


def test_what_one_version_has_rendered_stays_though_it_would_render_it_otherwise_now() -> None:
    store = Store()
    first = store.look("Rolling", "agent:1", "before the facts")
    assert store.look("Rolling", "agent:1", "after the facts") == first


def test_taking_rolling_back_leaves_the_pods_as_they_are() -> None:
    store = Store()
    store.look("Rolling", "agent:1")
    second = store.look("Rolling", "agent:2")
    assert store.look("WithNextChange", "agent:3") == second
    third = store.look("Rolling", "agent:3")
    store.applied = second.template_hash  # the third was rolled back
    assert store.look("WithNextChange", "agent:3") == second != third


def test_a_spec_that_comes_back_gets_the_newest_of_its_renderings() -> None:
    store = Store()
    store.look("Rolling", "agent:1")
    second = store.look("Rolling", "agent:2")
    store.look("WithNextChange", "agent:2", replicas=1, engine={"args": {"seed": 1}})
    assert store.look("WithNextChange", "agent:2") == second


def test_a_revision_of_an_operator_that_noted_no_version_is_compared_by_its_text() -> None:
    store = Store()
    first = store.look("Rolling", "agent:1")
    store.stored[0]["data"].pop("version")
    assert store.look("Rolling", "agent:1").template_hash == first.template_hash
    assert store.look("Rolling", "agent:1", "of a newer version").number == 2
