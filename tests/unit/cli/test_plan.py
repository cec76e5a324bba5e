from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.cli.plan import plan, render


def deployment(status: dict[str, Any] | None = None, **spec: Any) -> LLMDeployment:
    metadata = {"name": "support", "namespace": "ml"}
    return LLMDeployment.from_object({"metadata": metadata, "spec": {"model": {"source": "s3://models/tiny"}, **spec}, "status": status or {}})


CHANGES: list[tuple[str, dict[str, Any], list[tuple[str, bool]], bool]] = [
    ("nothing", {}, [], False),
    ("a default that is written out", {"engine": {"dtype": "auto"}, "service": {"port": 8000}}, [], False),
    ("a flag", {"engine": {"args": {"seed": 1}}}, [("spec.engine.args.seed", True)], True),
    ("replicas", {"replicas": 3}, [("spec.replicas", False)], False),
    (
        "access",
        {"access": {"ingress": {"host": "a.example", "path": "/"}}},
        [("spec.access.ingress.host", False), ("spec.access.ingress.path", False)],
        False,
    ),
    ("a policy with all defaults", {"access": {"networkPolicy": {}}}, [("spec.access.networkPolicy", False)], False),
    ("an alias", {"adapters": {"aliases": [{"name": "a", "adapter": "a-1"}]}}, [("spec.adapters.aliases", False)], False),
    ("a rank that the pods have already", {"adapters": {"maxRank": 16}}, [], False),
    ("another rank", {"adapters": {"maxRank": 64}}, [("spec.adapters.maxRank", True)], True),
]


@pytest.mark.parametrize(("spec", "fields", "rolls"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_which_fields_change_and_whether_pods_restart(spec: dict[str, Any], fields: list[tuple[str, bool]], rolls: bool) -> None:
    made = plan(deployment(**spec), deployment())
    assert [(change.path, change.restarts) for change in made.changes] == fields
    assert made.rolls is rolls
    assert ("Deployment/support" in made.diff) is (rolls or "replicas" in spec)


HUB = {"source": "hf://acme/tiny"}


@pytest.mark.parametrize(
    ("wanted", "current", "says"),
    [
        (
            {"model": {**HUB, "revision": "v2"}},
            {"model": {**HUB, "revision": "v1"}},
            "the pods (1) are replaced one after another, and what is served goes on",
        ),
        ({"model": {**HUB, "revision": "main"}}, {"model": HUB}, "no pod restarts"),
        ({"engine": {"args": {"seed": 1}}, "rollout": {"surge": 0}}, {}, "the pod is replaced, and nothing is served until the new engine is ready"),
        (
            {"engine": {"args": {"seed": 1}}, "replicas": 3, "rollout": {"surge": 0}},
            {"replicas": 3},
            "each gone before the next comes (rollout.surge is 0)",
        ),
        ({"replicas": 0}, {}, "there are no pods, and nothing is served"),
    ],
)
def test_the_first_line_tells_what_happens_to_what_is_served(wanted: dict[str, Any], current: dict[str, Any], says: str) -> None:
    made = plan(deployment(**wanted), deployment(**current))
    assert says in render(made).splitlines()[0]
    assert ("maxSurge: 0" in made.diff) is ("rollout" in wanted)


def test_the_rank_of_running_pods_is_not_taken_down_by_auto() -> None:
    made = plan(deployment(), deployment({"rollout": {"maxRank": 64}}))
    assert (made.changes, made.rolls, made.diff) == ((), False, "")


def test_the_diff_has_what_is_made_and_what_goes() -> None:
    made = plan(deployment(), deployment(access={"networkPolicy": {}}, service={"port": 9000}))
    assert "--- NetworkPolicy/support (now)" in made.diff
    assert "-kind: NetworkPolicy" in made.diff
    assert "-    port: 9000\n" in made.diff
    text = render(made)
    assert "the pods (1) are replaced one after another" in text
    assert "  spec.service.port          9000 -> 8000   restarts pods" in text.splitlines()
    assert "  spec.access.networkPolicy  {} -> (none)" in text.splitlines()


def test_a_new_one_shows_all_its_children_without_a_cluster() -> None:
    made = plan(deployment(replicas=2), None)
    assert render(made).startswith("LLMDeployment support: new, 2 pods\n")
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert f"+++ {kind}/support (planned)" in made.diff


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"engine": {"args": {"port": 1}}}, "OwnedFlag: "),
        ({"model": {"source": "ftp://models/tiny"}}, "SourceInvalid: spec.model.source is 'ftp://models/tiny'"),
    ],
)
def test_what_the_operator_would_refuse_changes_nothing_and_is_told(spec: dict[str, Any], says: str) -> None:
    made = plan(deployment(**spec), deployment())
    assert made.diff == ""
    assert says in render(made)
    assert "it cannot be served as it is written" in render(made)
