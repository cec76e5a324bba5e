"""Where the Secret of API keys goes, and where it never goes."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import InvalidObjectError, LLMDeployment
from graftwork.config import Config
from graftwork.plan import revisions, serving, sources
from graftwork.plan.sources import Source

from tests.unit.runtime.fakes import CONFIG


def deployment(**service: Any) -> LLMDeployment:
    spec = {"model": {"source": "s3://models/tiny"}, **({"service": service} if service else {})}
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec})


def template(**service: Any) -> dict[str, Any]:
    source = sources.parse("spec.model.source", "s3://models/tiny", sources.MODEL_KINDS)
    assert isinstance(source, Source)
    return serving.pod_template(deployment(**service), serving.Inputs(source), Config.model_validate(CONFIG.model_dump()), "0" * 16)["spec"]


def test_only_the_agent_gets_the_keys_and_only_the_engine_is_told_to_ask_for_them() -> None:
    pod = template(apiKeysSecret="support-keys")
    containers = {item["name"]: item for item in (*pod["initContainers"], *pod["containers"])}
    mounts = {name: [mount for mount in item["volumeMounts"] if mount["name"] == "keys"] for name, item in containers.items()}
    assert mounts.pop("agent") == [{"name": "keys", "mountPath": "/graftwork/keys", "readOnly": True}]
    assert not any(mounts.values())
    assert {"name": "keys", "secret": {"secretName": "support-keys", "optional": True}} in pod["volumes"]
    told = {name for name, item in containers.items() if {"name": "GRAFTWORK_KEYS", "value": "required"} in item.get("env", [])}
    assert told == {"vllm"}
    assert "support-keys" not in str(containers)


def test_without_a_secret_there_is_no_trace_of_keys() -> None:
    assert template(port=8000) == template()
    assert "keys" not in [volume["name"] for volume in template()["volumes"]]
    assert "GRAFTWORK_KEYS" not in str(template())


def test_naming_a_secret_is_a_new_revision_and_naming_none_is_none() -> None:
    assert revisions.template_hash(deployment(apiKeysSecret="a")) != revisions.template_hash(deployment(apiKeysSecret="b"))
    assert revisions.template_hash(deployment(apiKeysSecret="")) == revisions.template_hash(deployment())


@pytest.mark.parametrize("name", ["Support", "a/b", "a b", "x" * 254])
def test_a_name_that_no_secret_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidObjectError, match=r"spec\.service\.apiKeysSecret"):
        deployment(apiKeysSecret=name)
