"""What a rollout does to the objects of a real API server."""

from __future__ import annotations

from typing import Any

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
