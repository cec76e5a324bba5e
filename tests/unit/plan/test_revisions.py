from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.plan.revisions import template_hash


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
        {"rollout": {"surge": 0, "progressDeadline": "20m", "autoRollback": False}},
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
