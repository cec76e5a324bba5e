from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork.api import LoRAAdapter
from graftwork.config import Config
from graftwork.plan import importing

from tests.unit.plan.expansion import expanded
from tests.unit.runtime.fakes import CONFIG

SOURCE_KEYS = {"hf": {"HF_TOKEN"}, "https": {"AUTHORIZATION"}, "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"}}
SOURCES = {"hf": "hf://acme/legal", "https": "https://files.test/legal.zip", "s3": "s3://foreign/legal"}


def adapter(source: str, **spec: Any) -> LoRAAdapter:
    fields = {"alias": "legal", "version": 1, "source": source, **spec}
    return LoRAAdapter.from_object({"metadata": {"name": "legal-1", "namespace": "ml", "uid": "u"}, "spec": fields})


def config(**fields: Any) -> Config:
    return Config.model_validate({**CONFIG.model_dump(), "store": {"url": "s3://graftwork/store"}, **fields})


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def secrets(container: dict[str, Any]) -> set[tuple[str, str]]:
    references = [item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item]
    assert all(reference["optional"] for reference in references)
    return {(reference["name"], reference["key"]) for reference in references}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_download_has_the_keys_of_its_source_and_the_import_those_of_the_store(kind: str) -> None:
    made = pod(importing.import_job(adapter(SOURCES[kind], credentialsSecret="mine"), config()))
    (download,), (brought,) = made["initContainers"], made["containers"]
    assert secrets(download) == {("mine", key) for key in SOURCE_KEYS[kind]}
    assert secrets(brought) == {("graftwork-store", key) for key in SOURCE_KEYS["s3"]}
    assert [item["mountPath"] for item in brought["volumeMounts"]] == ["/scratch"]
    assert {"name": "SOURCE_CA_FILE", "value": "/graftwork/source/ca.crt"} in download["env"]


@pytest.mark.parametrize("kind", ["hf", "https"])
def test_without_a_secret_a_public_source_is_read_without_any_key(kind: str) -> None:
    made = pod(importing.import_job(adapter(SOURCES[kind]), config()))
    assert secrets(made["initContainers"][0]) == set()
    assert [volume["name"] for volume in made["volumes"]] == ["scratch"]


def test_a_bucket_without_a_secret_is_read_with_the_stores_keys_but_not_beside_an_account_of_its_own() -> None:
    bare = pod(importing.import_job(adapter(SOURCES["s3"]), config()))
    assert secrets(bare["initContainers"][0]) == {("graftwork-store", key) for key in SOURCE_KEYS["s3"]}
    account = pod(importing.import_job(adapter(SOURCES["s3"], serviceAccountName="reader"), config(allowed_service_accounts=["reader"])))
    assert secrets(account["initContainers"][0]) == set()
    assert (account["serviceAccountName"], account["automountServiceAccountToken"]) == ("reader", False)


@pytest.mark.parametrize("path", ["$(AWS_SECRET_ACCESS_KEY)", "$$(AWS_SECRET_ACCESS_KEY)", "$$$(AWS_SECRET_ACCESS_KEY)"])
def test_a_source_cannot_name_a_variable_of_the_container(path: str) -> None:
    made = pod(importing.import_job(adapter(f"s3://b/{path}"), config()))
    secret = {"AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    assert f"s3://b/{path}" in [expanded(argument, secret) for argument in made["initContainers"][0]["args"]]
    (document,) = [item["value"] for item in made["containers"][0]["env"] if item["name"] == "GRAFTWORK_IMPORT"]
    assert json.loads(expanded(document, secret))["source"] == f"s3://b/{path}"


@pytest.mark.parametrize(
    ("name", "allowed", "refused"), [("", (), False), ("default", (), False), ("reader", (), True), ("reader", ("reader",), False)]
)
def test_only_listed_accounts_may_be_used(name: str, allowed: tuple[str, ...], refused: bool) -> None:
    text = importing.account_problem(adapter(SOURCES["s3"], serviceAccountName=name), config(allowed_service_accounts=allowed))
    assert bool(text) is refused
    if refused:
        assert "'reader'" in text
        assert "allowedServiceAccounts: empty" in text
