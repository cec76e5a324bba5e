"""What a rollout does to the objects of a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork import names
from graftwork.config import Config
from graftwork.errors import Invalid

from tests.control_plane.test_reconcile import NO_SERVER_VERSION, Operator, make, operator

__all__ = ["operator"]

CASE, NAME = "serving-cpu-s3", "tiny"


async def edit(operator: Operator, **spec: Any) -> dict[str, Any]:
    """Change the spec as a user does, run a pass, and return the object as it is then."""
    obj = await operator.cluster.get("LLMDeployment", operator.namespace, NAME)
    assert obj
    metadata = {key: value for key, value in obj["metadata"].items() if key not in NO_SERVER_VERSION}
    await operator.cluster.apply({**obj, "metadata": metadata, "spec": {**obj["spec"], **spec}})
    await operator.run("LLMDeployment", NAME)
    return await operator.cluster.get("LLMDeployment", operator.namespace, NAME) or {}


def stalled(obj: dict[str, Any]) -> tuple[str, str, str]:
    found = next(item for item in obj["status"]["conditions"] if item["type"] == "Stalled")
    return found["status"], found["reason"], found["message"]


async def test_a_deployment_that_the_api_server_refuses_changes_no_other_object(operator: Operator) -> None:
    await make(operator, CASE)
    for _ in range(2):
        await operator.run("LLMDeployment", NAME)
    before = {name: version for name, version in (await operator.versions()).items() if not name.startswith("LLMDeployment")}
    resources = {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}
    obj = await edit(operator, pod={"resources": resources}, service={"port": 9000})
    assert stalled(obj)[:2] == ("True", "InvalidSpec")
    assert "must be less than or equal to memory limit" in stalled(obj)[2]
    assert {name: version for name, version in (await operator.versions()).items() if not name.startswith("LLMDeployment")} == before
    obj = await edit(operator, pod={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}})
    assert stalled(obj)[0] == "False"
    assert obj["status"]["rollout"]["revision"] == 2


async def test_consent_to_downtime_changes_the_strategy_and_no_template(operator: Operator) -> None:
    await make(operator, CASE)
    await operator.run("LLMDeployment", NAME)
    before = await operator.cluster.get("Deployment", operator.namespace, NAME)
    await edit(operator, rollout={"surge": 0})
    after = await operator.cluster.get("Deployment", operator.namespace, NAME)
    assert before
    assert after
    assert after["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert after["spec"]["template"] == before["spec"]["template"]
    version = after["metadata"]["resourceVersion"]
    await operator.run("LLMDeployment", NAME)
    again = await operator.cluster.get("Deployment", operator.namespace, NAME)
    assert again
    assert again["metadata"]["resourceVersion"] == version


def upgrade(operator: Operator, version: str) -> None:
    """Let the next pass be one of an operator with the images of another version."""
    values = operator.config.model_dump()
    operator.config = Config.model_validate({**values, "images": {**values["images"], "agent": f"agent:{version}"}})


async def revisions(operator: Operator) -> list[dict[str, Any]]:
    found = await operator.cluster.list("ControllerRevision", operator.namespace)
    return sorted(found, key=lambda item: int(item["revision"]))


async def test_an_upgrade_writes_nothing_unless_it_is_to_roll_and_then_one_revision_more(operator: Operator) -> None:
    await make(operator, CASE)
    for _ in range(2):
        await operator.run("LLMDeployment", NAME)
    before = await operator.versions()
    upgrade(operator, "2")
    await operator.run("LLMDeployment", NAME)
    assert await operator.versions() == before
    obj = await edit(operator, rollout={"upgradePolicy": "Rolling"})
    first, second = await revisions(operator)
    assert second["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] == first["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH]
    deployment = await operator.cluster.get("Deployment", operator.namespace, NAME)
    assert deployment
    assert deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] == "agent:2"
    assert obj["status"]["rollout"]["revision"] == 2
    before = await operator.versions()
    for _ in range(2):
        await operator.run("LLMDeployment", NAME)
    assert await operator.versions() == before, "what the API server stored is what would be rendered"
    obj = await edit(operator, rollout={"upgradePolicy": "WithNextChange"})
    after = await operator.versions()
    assert {name for name in after if after[name] != before.get(name)} == {f"LLMDeployment/{NAME}"}


async def test_a_template_as_the_api_server_stored_it_is_compared_by_its_text(operator: Operator) -> None:
    """A newer version that renders the same rolls nothing, whatever the API server made of what it was given."""
    await make(operator, CASE)
    await edit(operator, rollout={"upgradePolicy": "Rolling"})
    (stored,) = await revisions(operator)
    metadata = {key: value for key, value in stored["metadata"].items() if key not in NO_SERVER_VERSION | {"uid", "creationTimestamp"}}
    older = {**stored, "metadata": metadata, "data": {**stored["data"], "version": "0.0.1"}}
    await operator.cluster.delete("ControllerRevision", operator.namespace, stored["metadata"]["name"])
    await operator.cluster.create(older)
    await operator.run("LLMDeployment", NAME)
    assert len(await revisions(operator)) == 1


async def test_an_upgrade_policy_that_does_not_exist_is_refused(operator: Operator) -> None:
    await make(operator, CASE)
    with pytest.raises(Invalid, match="upgradePolicy"):
        await edit(operator, rollout={"upgradePolicy": "Always"})
