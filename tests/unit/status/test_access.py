from __future__ import annotations

from typing import Any

import pytest
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status.access import Child, condition, kept, settled

PUBLIC = {"name": "public", "namespace": "gateways"}
POLICY = Child("NetworkPolicy", "support", {})


def ingress(**status: Any) -> Child:
    return Child("Ingress", "support", {"spec": {"rules": [{"host": "chat.example.com"}]}, "status": status})


def route(*parents: dict[str, Any], generation: int = 2) -> Child:
    live = {"metadata": {"generation": generation}, "spec": {"parentRefs": [PUBLIC]}, "status": {"parents": list(parents)}}
    return Child("HTTPRoute", "support", live)


def parent(accepted: str = "True", resolved: str = "True", seen: int = 2, **reference: Any) -> dict[str, Any]:
    said = [("Accepted", accepted, "NotAllowedByListeners"), ("ResolvedRefs", resolved, "BackendNotFound")]
    conditions = [{"type": kind, "status": status, "reason": reason, "message": "no", "observedGeneration": seen} for kind, status, reason in said]
    return {"parentRef": {**PUBLIC, **reference}, "conditions": conditions}


CASES: list[tuple[str, list[Child], str, Reason, str]] = [
    ("an address", [ingress(loadBalancer={"ingress": [{"ip": "192.0.2.1"}]})], "True", Reason.ACCESS_APPLIED, "chat.example.com: at 192.0.2.1"),
    ("no address yet", [ingress()], "Unknown", Reason.INGRESS_PENDING, "no Ingress controller has given it an address"),
    ("a policy", [POLICY], "True", Reason.ACCESS_APPLIED, "enforced only by networks that know"),
    ("a route that is taken", [route(parent())], "True", Reason.ACCESS_APPLIED, "accepted by Gateway gateways/public"),
    ("a route of which nobody spoke", [route()], "Unknown", Reason.ROUTE_PENDING, "gateways/public has not said yet"),
    ("a word about an older route", [route(parent(seen=1))], "Unknown", Reason.ROUTE_PENDING, "has not said yet"),
    ("a word of another listener", [route(parent(sectionName="http"))], "Unknown", Reason.ROUTE_PENDING, "has not said yet"),
    ("a route that is refused", [route(parent(accepted="False"))], "False", Reason.ROUTE_NOT_ACCEPTED, "gateways/public: NotAllowedByListeners: no"),
    ("a route to nothing", [route(parent(resolved="False"))], "False", Reason.ROUTE_NOT_ACCEPTED, "BackendNotFound"),
    ("the worst of all", [ingress(), route(), POLICY], "Unknown", Reason.INGRESS_PENDING, "chat.example.com"),
    (
        "a problem beside what is well",
        [ingress(), Child("NetworkPolicy", "support", problem=Problem(Reason.ACCESS_REFUSED, "quota"))],
        "False",
        Reason.ACCESS_REFUSED,
        "quota",
    ),
]


@pytest.mark.parametrize(("children", "status", "reason", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_access_ready_is_what_was_seen(children: list[Child], status: str, reason: Reason, says: str) -> None:
    found = condition(children)
    assert found
    assert (found.type, found.status, found.reason) == ("AccessReady", status, reason)
    assert says in found.message


def test_there_is_no_condition_where_nothing_is_asked_for() -> None:
    assert condition([]) is None


def test_a_condition_survives_a_pass_that_could_not_look() -> None:
    written = {"type": "AccessReady", "status": "False", "reason": "GatewayMissing", "message": "install it"}
    found = kept({"conditions": [{"type": "Ready", "status": "True", "reason": "Reconciled"}, written]})
    assert found
    assert (found.status, found.reason, found.message) == ("False", Reason.GATEWAY_MISSING, "install it")
    assert kept({}) is None
    assert kept({"conditions": [{**written, "reason": "OfANewerRelease"}]}) is None


def test_a_route_is_looked_at_again_until_its_gateways_have_taken_it() -> None:
    assert settled(route(parent()).live or {})
    assert not settled(route().live or {})
    assert not settled(route(parent(accepted="False")).live or {})
