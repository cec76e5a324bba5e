"""What `spec.access` makes; the whole manifests are in tests/golden/cases/serving-access.out.yaml."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import InvalidObjectError, LLMDeployment
from graftwork.plan import access

from tests.unit.runtime.fakes import CONFIG


def deployment(**spec: Any) -> LLMDeployment:
    return LLMDeployment.from_object({"metadata": {"name": "support", "namespace": "ml"}, "spec": {"model": {"source": "s3://models/tiny"}, **spec}})


def test_nothing_is_made_that_was_not_asked_for() -> None:
    for resource in (deployment(), deployment(access={})):
        assert access.ingress(resource) is None
        assert access.http_route(resource) is None
        assert access.network_policy(resource, CONFIG) is None


def test_an_ingress_without_class_and_certificate_leaves_both_to_the_cluster() -> None:
    made = access.ingress(deployment(access={"ingress": {"host": "chat.example.com"}}))
    assert made
    assert made["spec"].keys() == {"rules"}
    (path,) = made["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/v1", "metrics and health are not published unless asked for"


@pytest.mark.parametrize(("answer_seconds", "waits"), [(300, "3600"), (7200, "7200")])
def test_a_proxy_waits_at_least_as_long_as_the_longest_answer(answer_seconds: int, waits: str) -> None:
    made = access.ingress(deployment(access={"ingress": {"host": "a.example"}}, rollout={"answerSeconds": answer_seconds}))
    assert made
    assert made["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == waits


def test_annotations_of_the_user_win() -> None:
    own = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "9", "a.example/b": "c"}
    made = access.ingress(deployment(access={"ingress": {"host": "a.example", "annotations": own}}))
    assert made
    assert own.items() <= made["metadata"]["annotations"].items()


def test_a_route_has_no_timeout_that_could_cut_a_stream() -> None:
    made = access.http_route(deployment(access={"route": {"parentRefs": [{"name": "public"}]}}, service={"port": 9000}))
    assert made
    (rule,) = made["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": "support", "port": 9000}]
    assert made["spec"]["parentRefs"] == [{"name": "public"}]
    assert "hostnames" not in made["spec"]


def test_a_policy_without_clients_lets_everybody_ask_and_only_the_operator_reach_the_agents() -> None:
    made = access.network_policy(deployment(access={"networkPolicy": {}}), CONFIG)
    assert made
    clients, agents = made["spec"]["ingress"]
    assert clients == {"ports": [{"protocol": "TCP", "port": "http"}]}
    assert agents["ports"] == [{"protocol": "TCP", "port": 9901}]
    (operator,) = agents["from"]
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": CONFIG.lease.namespace}
    assert made["spec"]["policyTypes"] == ["Ingress"], "a model or a store may lie anywhere: what goes out is not bounded"


def test_scrapers_reach_both_ports() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    made = access.network_policy(deployment(access={"networkPolicy": {"from": [{"podSelector": {}}], "scrapers": [peer]}}), CONFIG)
    assert made
    assert [peer in rule["from"] for rule in made["spec"]["ingress"]] == [True, True]
    assert {"podSelector": {}} in made["spec"]["ingress"][0]["from"]
    assert {"podSelector": {}} not in made["spec"]["ingress"][1]["from"]


@pytest.mark.parametrize(
    "settings",
    [
        {"ingress": {"host": "Chat.example.com"}},
        {"ingress": {"host": "chat.example.com:443"}},
        {"ingress": {"host": "a.example", "path": "v1"}},
        {"ingress": {"host": "a.example", "path": "/v1/../metrics"}},
        {"ingress": {"host": "a.example", "path": "//v1"}},
        {"route": {"parentRefs": []}},
        {"networkPolicy": {"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}},
    ],
    ids=str,
)
def test_what_no_proxy_would_take_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidObjectError, match=r"spec\.access\."):
        deployment(access=settings)
