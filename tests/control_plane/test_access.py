"""Ingress, HTTPRoute and NetworkPolicy on a real API server: admitted, written once, brought back, and removed with the field."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from graftwork.cluster.kinds import Key
from graftwork.plan.access import OPERATOR_LABELS
from graftwork.reconcile.llmdeployment import LLMDeploymentReconciler
from graftwork.status.conditions import find

from tests.cluster import gateway_api
from tests.control_plane.api_server import ApiServer
from tests.control_plane.conftest import ROOT
from tests.control_plane.test_reconcile import Operator, make, operator
from tests.golden import render

__all__ = ["operator"]

CASE = "serving-access"
WATCHED = ("Ingress", "NetworkPolicy")
ALL = (*WATCHED, "HTTPRoute")


@pytest.fixture
def gateway(api_server: ApiServer) -> Iterator[None]:
    """The Gateway API's CRD, gone afterwards: most clusters of these tests have none."""
    done = api_server.run("kubectl", "apply", "--server-side", "-f", str(gateway_api.http_route_crd()))
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60
    while '"httproutes"' not in api_server.run("kubectl", "get", "--raw", "/apis/gateway.networking.k8s.io/v1").stdout:
        assert time.monotonic() < deadline, "the CRD was not established"
    yield
    done = api_server.run("kubectl", "delete", "crd", gateway_api.NAME, "--timeout=60s")
    assert done.returncode == 0, done.stderr


class Served:
    """The case's LLMDeployment under one operator process."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.reconciler = LLMDeploymentReconciler()

    async def run(self, times: int = 1) -> None:
        for _ in range(times):
            await self.reconciler.reconcile(Key("LLMDeployment", self.operator.namespace, "support"), await self.operator.context())

    async def ready(self) -> tuple[str, str, str]:
        found = find((await self.one("LLMDeployment"))["status"]["conditions"], "AccessReady")
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    async def one(self, kind: str) -> dict[str, Any]:
        found = await self.operator.cluster.get(kind, self.operator.namespace, "support")
        assert found, f"no {kind}"
        return found

    async def there(self, *kinds: str) -> list[str]:
        return [kind for kind in kinds if await self.operator.cluster.get(kind, self.operator.namespace, "support")]

    async def access(self, settings: dict[str, Any] | None) -> None:
        await self.operator.cluster.merge("LLMDeployment", self.operator.namespace, "support", {"spec": {"access": settings}})


@pytest.fixture
async def served(operator: Operator) -> Served:
    await make(operator, CASE)
    return Served(operator)


async def test_all_three_are_admitted_as_they_were_meant_and_a_further_pass_writes_nothing(gateway: None, served: Served) -> None:
    await served.run(2)
    meant = {manifest["kind"]: manifest for manifest in render.render(render.read(CASE))}
    before = {kind: await served.one(kind) for kind in ALL}
    for kind in ALL:
        assert _within(meant[kind]["spec"], before[kind]["spec"]), f"the API server dropped something of {kind}"
        assert before[kind]["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"
    versions = await served.operator.versions()
    await served.run(2)
    assert await served.operator.versions() == versions
    served.reconciler = LLMDeploymentReconciler()
    await served.run(2)
    assert {kind: await served.one(kind) for kind in ALL} == before
    status, _, message = await served.ready()
    assert status == "Unknown"
    assert "has not said yet" in message


async def test_what_a_gateway_says_is_in_the_condition(gateway: None, served: Served, api_server: ApiServer) -> None:
    await served.run()
    said = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no", "lastTransitionTime": "2026-11-21T13:00:00Z"}
    row = {"parentRef": (await served.one("HTTPRoute"))["spec"]["parentRefs"][0], "controllerName": "example.com/gateway", "conditions": [said]}
    patch = json.dumps({"status": {"parents": [row]}})
    arguments = ("httproute", "support", "-n", served.operator.namespace, "--subresource=status", "--type=merge", "-p", patch)
    done = api_server.run("kubectl", "patch", *arguments)
    assert done.returncode == 0, done.stderr
    served.reconciler = LLMDeploymentReconciler()
    await served.run()
    status, reason, message = await served.ready()
    assert (status, reason) == ("False", "RouteNotAccepted")
    assert "Gateway gateways/public (https): NotAllowedByListeners: no" in message


async def test_without_the_gateway_api_the_rest_is_made_and_the_route_comes_when_it_is_installed(
    served: Served, request: pytest.FixtureRequest
) -> None:
    await served.run()
    assert await served.there(*ALL) == [*WATCHED]
    status, reason, message = await served.ready()
    assert (status, reason) == ("False", "GatewayMissing")
    assert "install the Gateway API's CRDs" in message
    request.getfixturevalue("gateway")
    served.reconciler = LLMDeploymentReconciler()
    await served.run()
    assert await served.there(*ALL) == [*ALL]


async def test_what_somebody_changed_comes_back(gateway: None, served: Served) -> None:
    await served.run()
    opened = [{"ports": [{"protocol": "TCP", "port": 22}]}]
    before = (await served.one("NetworkPolicy"))["spec"]
    await served.operator.cluster.merge("NetworkPolicy", served.operator.namespace, "support", {"spec": {"ingress": opened}})
    await served.run()
    assert (await served.one("NetworkPolicy"))["spec"] == before


async def test_a_port_that_somebody_adds_to_a_rule_of_the_policy_goes_again(served: Served) -> None:
    await served.run()
    before = (await served.one("NetworkPolicy"))["spec"]
    rules = [{**rule, "ports": [*rule["ports"], {"protocol": "TCP", "port": 22}]} for rule in before["ingress"]]
    await served.operator.cluster.merge("NetworkPolicy", served.operator.namespace, "support", {"spec": {"ingress": rules}})
    await served.run()
    assert (await served.one("NetworkPolicy"))["spec"] == before


@pytest.mark.parametrize("left", [None, {"networkPolicy": {}}], ids=["none", "policy"])
async def test_what_is_removed_from_the_spec_is_deleted(gateway: None, served: Served, left: dict[str, Any] | None) -> None:
    await served.run()
    template = (await served.one("Deployment"))["spec"]["template"]
    await served.access({"ingress": None, "route": None, "networkPolicy": None} | (left or {}))
    await served.run()
    assert await served.there(*ALL) == [{"networkPolicy": "NetworkPolicy"}[name] for name in left or {}]
    assert (await served.ready())[0] == ("True" if left else "")
    assert (await served.one("Deployment"))["spec"]["template"] == template


def test_the_policy_names_the_operators_pod_as_the_chart_labels_it(bare_api_server: ApiServer) -> None:
    done = bare_api_server.run("helm", "template", "graftwork", "charts/graftwork", "-n", "graftwork-system", cwd=ROOT)
    deployments = [item for item in yaml.safe_load_all(done.stdout) if item and item["kind"] == "Deployment"]
    (operator_pod,) = [item["spec"]["template"]["metadata"]["labels"] for item in deployments]
    assert OPERATOR_LABELS.items() <= operator_pod.items()


def _within(want: Any, have: Any) -> bool:
    """Whether `have` is `want` with defaults added."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(key in have and _within(value, have[key]) for key, value in want.items())
    if isinstance(want, list):
        return isinstance(have, list) and len(want) == len(have) and all(map(_within, want, have))
    return bool(want == have)
