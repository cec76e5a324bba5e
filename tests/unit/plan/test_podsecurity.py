from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.plan import podsecurity, serving, sources
from graftwork.plan.revisions import template_hash
from graftwork.plan.sources import Source

CONFIG = Config.model_validate({"images": {"engine": "e:1", "agent": "a:1", "trainer": "t:1"}, "lease": {"namespace": "g"}})


def deployment(**pod: Any) -> LLMDeployment:
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "s3://models/tiny"}, "pod": pod}})


def spec_of(**pod: Any) -> dict[str, Any]:
    source = sources.parse("source", "s3://models/tiny", sources.MODEL_KINDS)
    assert isinstance(source, Source)
    found: dict[str, Any] = serving.pod_template(deployment(**pod), serving.Inputs(source), CONFIG, "h")["spec"]
    return found


def test_what_the_spec_says_is_merged_over_what_graftwork_says() -> None:
    spec = spec_of(securityContext={"runAsUser": 2000, "supplementalGroups": [7]}, containerSecurityContext={"capabilities": {"add": ["IPC_LOCK"]}})
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 2000,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
        "supplementalGroups": [7],
    }
    own = spec["containers"][0]["securityContext"]
    assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    agent = spec["initContainers"][-1]["securityContext"]
    assert agent == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, "only the engine gets more"


@pytest.mark.parametrize("pod", [{}, {"securityContext": {}}, {"securityContext": {"runAsUser": 2000, "runAsGroup": 0}}])
def test_nothing_is_said_of_a_pod_that_satisfies_the_restricted_standard(pod: dict[str, Any]) -> None:
    assert podsecurity.told(spec_of(**pod)) == ""


@pytest.mark.parametrize(
    ("pod", "named"),
    [
        ({"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}, "securityContext.runAsUser is 0, must not be root"),
        ({"securityContext": {"runAsNonRoot": False}}, "container vllm: securityContext.runAsNonRoot must be true"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "securityContext.seccompProfile.type must be RuntimeDefault"),
        ({"containerSecurityContext": {"privileged": True}}, "container vllm: securityContext.privileged is true"),
        ({"containerSecurityContext": {"allowPrivilegeEscalation": True}}, "container vllm: securityContext.allowPrivilegeEscalation must be false"),
        (
            {"containerSecurityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
            "capabilities.add has SYS_PTRACE, must have none but NET_BIND_SERVICE",
        ),
    ],
)
def test_what_weakens_a_pod_is_named_with_its_rule(pod: dict[str, Any], named: str) -> None:
    told = podsecurity.told(spec_of(**pod))
    assert named in told
    assert "weaker than the restricted Pod Security Standard" in told


def test_a_template_that_is_not_there_says_nothing() -> None:
    assert podsecurity.told({}) == ""


def test_the_settings_count_in_the_templates_hash_only_when_there_are_any() -> None:
    assert template_hash(deployment(securityContext={}, containerSecurityContext={"capabilities": {}})) == template_hash(deployment())
    assert template_hash(deployment(securityContext={"runAsUser": 2000})) != template_hash(deployment())
