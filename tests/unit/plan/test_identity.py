"""Who may read a model's source by a cloud's account: Jobs that an administrator allows, and never a pod that serves."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.plan import adopting, identity, inspecting, revisions, serving, sources
from graftwork.plan.sources import Source
from graftwork.reasons import Reason

from tests.unit.runtime.fakes import CONFIG

ALLOWING = Config.model_validate({**CONFIG.model_dump(), "allowed_service_accounts": ["bucket-reader"]})


def deployment(account: str = "bucket-reader", source: str = "s3://models/tiny", **model: Any) -> LLMDeployment:
    spec = {"model": {"source": source, **model}, **({"serviceAccountName": account} if account else {})}
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml", "uid": "u"}, "spec": spec})


def source_of(resource: LLMDeployment) -> Source:
    found = sources.parse("spec.model.source", resource.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(found, Source)
    return found


@pytest.mark.parametrize(
    ("resource", "mode", "config", "reason", "remedy"),
    [
        (deployment(), identity.PER_POD, ALLOWING, Reason.INVALID_SPEC, "cache.mode to Shared"),
        (deployment(source="hf://acme/tiny"), "auto", ALLOWING, Reason.INVALID_SPEC, "model.credentialsSecret"),
        (deployment("admin"), identity.SHARED, ALLOWING, Reason.SERVICE_ACCOUNT_NOT_ALLOWED, "allowedServiceAccounts: bucket-reader"),
        (deployment(), identity.SHARED, CONFIG, Reason.SERVICE_ACCOUNT_NOT_ALLOWED, "allowedServiceAccounts: empty"),
        (deployment(source="pvc://models/tiny"), identity.SHARED, ALLOWING, Reason.INVALID_SPEC, "remove it"),
    ],
)
def test_an_account_is_refused_where_the_engine_would_have_it_or_nobody_allows_it(
    resource: LLMDeployment, mode: str, config: Config, reason: Reason, remedy: str
) -> None:
    found = identity.problem(resource, source_of(resource), mode, config)
    assert found is not None
    assert (found.reason, found.needs_user) == (reason, True)
    assert f"spec.serviceAccountName is '{resource.spec.service_account_name}'" in found.message
    assert remedy in found.message


@pytest.mark.parametrize(("account", "mode"), [("", identity.PER_POD), ("bucket-reader", identity.SHARED), ("default", identity.SHARED)])
def test_an_account_that_only_a_job_has_is_allowed(account: str, mode: str) -> None:
    assert identity.problem(deployment(account), source_of(deployment(account)), mode, ALLOWING) is None


def test_the_job_has_the_account_and_none_of_the_store_s_keys() -> None:
    pod = inspecting.inspect_job(deployment(), source_of(deployment()), ALLOWING)["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("bucket-reader", False)
    (container,) = pod["containers"]
    assert container.get("env", []) == []
    with_secret = deployment(credentialsSecret="bucket")
    (container,) = inspecting.inspect_job(with_secret, source_of(with_secret), ALLOWING)["spec"]["template"]["spec"]["containers"]
    assert {item["valueFrom"]["secretKeyRef"]["name"] for item in container["env"]} == {"bucket"}
    without = inspecting.inspect_job(deployment(""), source_of(deployment("")), ALLOWING)["spec"]["template"]["spec"]
    assert "serviceAccountName" not in without
    assert [item for item in without["containers"][0]["env"] if "valueFrom" in item], "the store's keys"


def test_no_pod_is_made_from_it_and_the_source_is_looked_up_with_it() -> None:
    assert revisions.template_hash(deployment()) == revisions.template_hash(deployment(""))
    assert inspecting.key(deployment()) != inspecting.key(deployment(""))
    assert inspecting.key(deployment("other")) != inspecting.key(deployment())
    pod = serving.pod_template(deployment(), serving.Inputs(source_of(deployment())), ALLOWING, "h")["spec"]
    assert "serviceAccountName" not in pod


def test_the_key_of_one_without_is_that_of_before() -> None:
    hub = deployment("", source="hf://acme/tiny", revision="v1.0", credentialsSecret="hub")
    assert inspecting.key(hub) == "fb4d7b5796e48f6c", "or every model of a hub would be looked up again by an upgrade"


def test_an_account_asks_for_a_look_at_what_was_adopted() -> None:
    resource = deployment("")

    def render(wanted: str) -> dict[str, Any]:
        return serving.pod_template(resource, serving.Inputs(source_of(resource)), ALLOWING, wanted)

    stored = revisions.revision(resource, [], render, {}).manifest
    assert adopting.adopted(resource, source_of(resource), stored, ALLOWING)
    assert not adopting.adopted(deployment(), source_of(resource), stored, ALLOWING)
