"""Whether what `spec.access` asks for is there, as far as the API server, the Ingress controller and the Gateways say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status import conditions
from graftwork.status.conditions import ACCESS_READY, FALSE, TRUE, UNKNOWN, Condition

WARNINGS = (Reason.ACCESS_REFUSED, Reason.GATEWAY_MISSING, Reason.ROUTE_NOT_ACCEPTED)

GATEWAY_REMEDY = (
    "the cluster has no HTTPRoute (gateway.networking.k8s.io/v1), so access.route cannot be made; install the Gateway API's CRDs (standard channel, "
    "https://gateway-api.sigs.k8s.io) and a Gateway, or remove access.route. It is looked for again, and everything else goes on"
)


@dataclass(frozen=True)
class Child:
    """One Ingress, HTTPRoute or NetworkPolicy: as the API server shows it, or why it is not there."""

    kind: str
    name: str
    live: Mapping[str, Any] | None = None
    problem: Problem | None = None


def condition(children: Sequence[Child]) -> Condition | None:
    """Return AccessReady; None where nothing is asked for and nothing is left over."""
    if not children:
        return None
    problems = [child.problem for child in children if child.problem]
    if problems:
        return Condition(ACCESS_READY, FALSE, problems[0].reason, "; ".join(problem.message for problem in problems))
    said = [(child, *_said(child)) for child in children]
    text = "; ".join(f"{child.kind} {child.name}{message}" for child, _, _, message in said)
    for _, status, reason, _ in sorted(said, key=lambda item: _WORST.index(item[1])):
        return Condition(ACCESS_READY, status, reason, text)
    return None


_WORST = (FALSE, UNKNOWN, TRUE)


def kept(before: Mapping[str, Any]) -> Condition | None:
    """Return the condition of a status that was written earlier, for a pass that could not look."""
    old = conditions.find(before.get("conditions") or [], ACCESS_READY)
    if not old or old.get("reason") not in set(Reason):
        return None
    return Condition(ACCESS_READY, old["status"], Reason(old["reason"]), old.get("message") or "")


def settled(route: Mapping[str, Any]) -> bool:
    """Return whether the Gateways have taken the HTTPRoute, so that there is little reason to look again soon."""
    return _route(route)[0] == TRUE


_Said = tuple[Literal["True", "False", "Unknown"], Reason, str]


def _said(child: Child) -> _Said:
    live = child.live or {}
    if child.kind == "HTTPRoute":
        return _route(live)
    if child.kind == "Ingress":
        return _ingress(live)
    return TRUE, Reason.ACCESS_APPLIED, " (it is enforced only by networks that know NetworkPolicy)"


def _ingress(live: Mapping[str, Any]) -> _Said:
    points = ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    addresses = [point.get("ip") or point.get("hostname") for point in points]
    host = next((rule.get("host") for rule in (live.get("spec") or {}).get("rules") or []), "")
    found = ", ".join(sorted(address for address in addresses if address))
    if found:
        return TRUE, Reason.ACCESS_APPLIED, f" for {host}: at {found}"
    name = (live.get("spec") or {}).get("ingressClassName") or "the default one"
    text = f" for {host}: no Ingress controller has given it an address; is there one for class {name}? Some never write addresses"
    return UNKNOWN, Reason.INGRESS_PENDING, text


def _route(live: Mapping[str, Any]) -> _Said:
    """Return what the Gateways say. Each writes Accepted, and ResolvedRefs about the Service behind."""
    generation = live.get("metadata", {}).get("generation")
    wanted = [_parent(item) for item in (live.get("spec") or {}).get("parentRefs") or []]
    refusals, accepted = [], set()
    for parent in (live.get("status") or {}).get("parents") or []:
        name = _parent(parent.get("parentRef") or {})
        found = {item["type"]: item for item in parent.get("conditions") or [] if item.get("observedGeneration", generation) == generation}
        refusals += [f"Gateway {name}: {item.get('reason')}: {item.get('message')}" for item in _refused(found)]
        if found.get("Accepted", {}).get("status") == "True":
            accepted.add(name)
    if refusals:
        return FALSE, Reason.ROUTE_NOT_ACCEPTED, f": {', '.join(refusals)}"
    if missing := [name for name in wanted if name not in accepted]:
        return UNKNOWN, Reason.ROUTE_PENDING, f": Gateway {', '.join(missing)} has not said yet whether it takes it; is there such a Gateway?"
    return TRUE, Reason.ACCESS_APPLIED, f": accepted by Gateway {', '.join(wanted)}"


def _refused(found: Mapping[str, Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return [found[name] for name in ("Accepted", "ResolvedRefs") if found.get(name, {}).get("status") == "False"]


def _parent(reference: Mapping[str, Any]) -> str:
    section = f" ({reference['sectionName']})" if reference.get("sectionName") else ""
    namespace = f"{reference['namespace']}/" if reference.get("namespace") else ""
    return f"{namespace}{reference.get('name')}{section}"
