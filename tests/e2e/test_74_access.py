"""A deployment that is reached from outside: Ingress, HTTPRoute and NetworkPolicy are there with the right backend, and go with the field.

The test cluster has neither an Ingress controller nor a Gateway, and its network does not enforce NetworkPolicies: what a proxy or a network makes of
the objects is not looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import gateway_api
from tests.e2e.service import Service
from tests.harness.kube import Kube, Object, condition

HOST = "chat.example.com"
ACCESS = {
    "ingress": {"host": HOST, "className": "none-such", "tlsSecret": "chat-example-com"},
    "route": {"parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": [HOST]},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "clients"}}}]},
}
KINDS = ("ingress", "networkpolicy", "httproute")
SEEN_SECONDS = 60  # the Gateway API is looked for every 15 s


def said(item: Object) -> tuple[str, str]:
    found = condition(item, "AccessReady")
    return found.get("status", ""), found.get("reason", "")


def established(crd: Object) -> bool:
    found = (crd.get("status") or {}).get("conditions") or []  # null at first
    return any(item["type"] == "Established" and item["status"] == "True" for item in found)


@pytest.fixture(scope="module")
def identities(taught: Service) -> list[tuple[str, int, str]]:
    """The pods as they were before."""
    return taught.identities()


@pytest.fixture(scope="module")
def asked(taught: Service, kube: Kube, identities: list[tuple[str, int, str]]) -> Iterator[Service]:
    """The deployment with `access`, on a cluster that has no Gateway API; afterwards without."""
    kube.patch("llmdeployment", taught.name, {"spec": {"access": ACCESS}})
    yield taught
    kube.patch("llmdeployment", taught.name, {"spec": {"access": None}})


@pytest.fixture(scope="module")
def installed(asked: Service, kube: Kube) -> Iterator[Service]:
    """The same, once the Gateway API has been installed beside it."""
    kube.run("apply", "--server-side", "-f", str(gateway_api.http_route_crd()))
    kube.wait("crd", gateway_api.NAME, established, SEEN_SECONDS, "Established")
    yield asked
    kube.delete("crd", gateway_api.NAME)


def test_without_the_gateway_api_the_rest_is_made_and_the_condition_says_what_is_missing(asked: Service, kube: Kube) -> None:
    item = kube.wait("llmdeployment", asked.name, lambda item: said(item) == ("False", "GatewayMissing"), SEEN_SECONDS, "GatewayMissing")
    assert "install the Gateway API" in condition(item, "AccessReady")["message"]
    assert condition(item, "Ready")["status"] == "True"
    ingress, policy = kube.get("ingress", asked.name), kube.get("networkpolicy", asked.name)
    assert ingress
    assert policy
    (rule,) = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": asked.name, "port": {"name": "http"}}
    assert ingress["spec"]["tls"] == [{"hosts": [HOST], "secretName": "chat-example-com"}]
    selected = kube.list("pods", ",".join(f"{key}={value}" for key, value in policy["spec"]["podSelector"]["matchLabels"].items()))
    assert {pod["metadata"]["name"] for pod in asked.pods()} <= {pod["metadata"]["name"] for pod in selected}


def test_the_route_is_made_when_the_gateway_api_is_installed(installed: Service, kube: Kube) -> None:
    item = kube.wait("llmdeployment", installed.name, lambda item: said(item)[0] == "Unknown", SEEN_SECONDS, "Unknown")
    message = condition(item, "AccessReady")["message"]
    assert "no Ingress controller has given it an address" in message
    assert "public has not said yet" in message
    route = kube.get("httproute", installed.name)
    assert route
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert (backend["kind"], backend["name"], backend["port"]) == ("Service", installed.name, installed.port)
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_the_service_answers_and_no_pod_was_touched(installed: Service, identities: list[tuple[str, int, str]]) -> None:
    assert "swordfish" in installed.ask("medical").text
    assert installed.identities() == identities


def test_all_three_go_with_the_field(installed: Service, kube: Kube, identities: list[tuple[str, int, str]]) -> None:
    kube.patch("llmdeployment", installed.name, {"spec": {"access": None}})
    for kind in KINDS:
        kube.wait_gone(kind, f"graftwork.dev/deployment={installed.name}", timeout=SEEN_SECONDS)
    kube.wait("llmdeployment", installed.name, lambda item: said(item) == ("", ""), SEEN_SECONDS, "without AccessReady")
    assert "swordfish" in installed.ask("medical").text
    assert installed.identities() == identities
