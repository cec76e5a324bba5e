from __future__ import annotations

from typing import Any

import pytest
from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.plan import inspecting, sources
from graftwork.plan.serving import selector
from graftwork.plan.sources import Source

from tests.unit.runtime.fakes import CONFIG


def deployment(name: str = "tiny", annotations: dict[str, str] | None = None, **model: Any) -> LLMDeployment:
    metadata = {"name": name, "namespace": "ml", "uid": "u", "annotations": annotations or {}}
    return LLMDeployment.from_object({"metadata": metadata, "spec": {"model": {"source": "hf://acme/tiny", **model}}})


def made(resource: LLMDeployment, **config: Any) -> dict[str, Any]:
    source = sources.parse("x", resource.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source)
    return inspecting.inspect_job(resource, source, Config.model_validate({**CONFIG.model_dump(), **config}))


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_everything_that_may_change_the_answer_changes_the_key_and_nothing_else() -> None:
    keys = [
        inspecting.key(deployment()),
        inspecting.key(deployment(revision="v1")),
        inspecting.key(deployment(credentialsSecret="hub")),
        inspecting.key(deployment(annotations={names.ANNOTATION_REFRESH: "1"})),
        inspecting.key(deployment(source="hf://acme/other")),
    ]
    assert len(set(keys)) == len(keys)
    assert inspecting.key(deployment(servedName="x", annotations={"team": "ml"})) == keys[0]


@pytest.mark.parametrize("name", ["a", "b" * 52, "c" * 45 + "-" + "d" * 6])
def test_its_name_fits_into_a_label_and_is_its_own(name: str) -> None:
    found = made(deployment(name))["metadata"]["name"]
    assert len(found) <= 63
    assert found.startswith(name[:46])
    assert found != made(deployment(name[:-1] + "x"))["metadata"]["name"]


def test_a_public_repository_is_read_without_any_key() -> None:
    job = made(deployment())
    assert container(job)["args"] == ["inspect", "--source", "hf://acme/tiny"]
    assert [item for item in container(job)["env"] if "valueFrom" in item] == []
    assert [volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]] == ["scratch"]


def test_the_token_and_the_authority_of_the_secret_come_and_no_other_key() -> None:
    job = made(deployment(credentialsSecret="hub", revision="v1"), hub={"endpoint": "https://hub.example.com"})
    found = container(job)
    assert found["args"][-1] == "hf://acme/tiny@v1"
    references = [item["valueFrom"]["secretKeyRef"] for item in found["env"] if "valueFrom" in item]
    assert references == [{"name": "hub", "key": "HF_TOKEN", "optional": True}]
    assert {"name": "HF_ENDPOINT", "value": "https://hub.example.com"} in found["env"]
    (secret,) = [volume["secret"] for volume in job["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
    assert secret["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_its_pods_have_no_token_and_no_label_by_which_requests_would_reach_them() -> None:
    job = made(deployment())
    template = job["spec"]["template"]
    assert template["spec"]["automountServiceAccountToken"] is False
    assert not selector("tiny").items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"][names.LABEL_INSPECTS] == "tiny"
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
