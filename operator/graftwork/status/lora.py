"""The status of a LoRAAdapter: where it is loaded, or why it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.facts.adapters import Adapter, Decision
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status import conditions
from graftwork.status.conditions import Condition

_DEFINITIVE = (
    Reason.FOREIGN_SOURCE,
    Reason.ALIAS_TAKEN,
    Reason.VERSION_TAKEN,
    Reason.BASE_MISMATCH,
    Reason.LORA_NOT_SUPPORTED,
    Reason.RANK_TOO_HIGH,
    Reason.ROLLED_BACK,
    Reason.CAPACITY_EXCEEDED,
    Reason.CANARY_FAILED,
)


@dataclass(frozen=True)
class Place:
    """One LLMDeployment whose selector takes the adapter, and what was seen there."""

    deployment: str
    decision: Decision
    loaded: int
    of: int
    trouble: Problem | None = None
    silent: tuple[str, ...] = ()
    """Ready pods whose agents do not answer."""
    settling: bool = False
    """Whether those may still answer: this process has just begun to ask."""
    blocked: str = ""
    """Why the deployment is stalled, so that its pods are told of nothing new."""


@dataclass(frozen=True)
class Observed:
    """Everything that the status of a LoRAAdapter is computed from."""

    generation: int
    adapter: Adapter | None
    """None: it cannot be read, or its files are not in the store yet."""
    places: Sequence[Place]
    problem: Problem | None
    before: Mapping[str, Any]
    now: str
    unreadable: Sequence[str] = ()
    """What is wrong with LLMDeployments of which nobody knows whether they select it."""


def status(seen: Observed) -> dict[str, Any]:
    """Return the whole status."""
    offered = [place for place in seen.places if place.decision.offered]
    before = seen.before.get("conditions") or []
    if any(place.settling for place in offered) and before and not seen.problem:
        return {**seen.before, "observedGeneration": seen.generation}
    return {
        "observedGeneration": seen.generation,
        "conditions": conditions.written(_conditions(seen, offered), before, seen.generation, seen.now),
        **_files(seen),
        "deployments": [{"name": place.deployment, "loaded": place.loaded, "of": place.of} for place in _shown(seen.places)],
        "loadedText": f"{sum(place.loaded for place in offered)}/{sum(place.of for place in offered)}",
    }


def _files(seen: Observed) -> dict[str, Any]:
    """Return what the files are. What an import once pinned stays, whatever cannot be read at the moment."""
    known = {key: seen.before.get(key) for key in ("digest", "source", "rank", "baseModel", "resolved", "sizeBytes", "importedAt")}
    if seen.adapter is None:
        return known
    adapter = seen.adapter
    base = {key: value for key, value in (("source", adapter.base_source), ("fingerprint", adapter.fingerprint)) if value}
    return {**known, "digest": adapter.digest, "source": adapter.source, "rank": adapter.rank or None, "baseModel": base or None}


def _shown(places: Sequence[Place]) -> list[Place]:
    return sorted((place for place in places if place.decision.offered), key=lambda place: place.deployment)


def _conditions(seen: Observed, offered: Sequence[Place]) -> Sequence[Condition]:
    if seen.problem:
        return conditions.of_problem(seen.problem)
    if not seen.places:
        also = "".join(f"; {text}" for text in seen.unreadable)
        return conditions.waiting(Reason.NO_DEPLOYMENT, f"no LLMDeployment of the namespace selects this adapter (adapters.selector){also}")
    failed = [place for place in offered if place.decision.reason is Reason.CANARY_FAILED]
    if failed:  # loaded or not: somebody has to look at it
        return _refused(failed)
    return _offered(offered) if offered else _refused(seen.places)


def _offered(offered: Sequence[Place]) -> Sequence[Condition]:
    """Return the conditions of an adapter that agents were told to load."""
    troubles = [place.trouble for place in offered if place.trouble]
    refusal = next((problem for problem in troubles if problem.needs_user), None)
    if refusal:
        return conditions.stalled(refusal.reason, refusal.message)
    if troubles:
        return conditions.progressing(troubles[0].reason, troubles[0].message)
    silent = sorted(name for place in offered for name in place.silent)
    if silent:
        text = f"the agent does not answer in {', '.join(silent)}"
        return (
            Condition(conditions.READY, conditions.UNKNOWN, Reason.AGENT_UNREACHABLE, text),
            Condition(conditions.RECONCILING, conditions.TRUE, Reason.AGENT_UNREACHABLE, text),
            Condition(conditions.STALLED, conditions.FALSE, Reason.AGENT_UNREACHABLE),
        )
    loaded = ", ".join(f"{place.deployment} {place.loaded}/{place.of}" for place in _shown(offered))
    if all(place.of and place.loaded == place.of for place in offered):
        return conditions.ready(Reason.LOADED, f"loaded in every ready pod of: {loaded}{_base(offered)}")
    return conditions.progressing(Reason.LOADING, f"loaded in ready pods of: {loaded}{_blocked(offered)}")


def _blocked(places: Sequence[Place]) -> str:
    """Return which deployments cannot go on, and why: whoever waits for the adapter has to mend those."""
    return "".join(
        f"; LLMDeployment {place.deployment} is stalled and tells its pods nothing new ({place.blocked})" for place in places if place.blocked
    )


def _base(offered: Sequence[Place]) -> str:
    """Return what is served on trust: a base that no fingerprint vouches for."""
    adapters = [place.decision.adapter for place in offered]
    unknown = next((adapter for adapter in adapters if not adapter.fingerprint), None)
    if unknown:
        named = f"its files name {unknown.base_source}" if unknown.base_source else "its files name none"
        return f"; its base was not verified by a fingerprint ({named}), only names and shapes of its tensors were"
    declared = sorted(place.deployment for place in offered if place.decision.adapter.compatible)
    if declared:
        return f"; it was trained on {adapters[0].base_source}, which model.compatibleBases of {', '.join(declared)} admits"
    return ""


def _refused(places: Sequence[Place]) -> Sequence[Condition]:
    """Return the conditions of an adapter that no deployment takes: the first that only waits speaks before those that refuse."""
    decisions = [place.decision for place in sorted(places, key=lambda place: place.deployment)]
    for reason in (Reason.LOADING, Reason.RESTART_REQUIRED):
        waiting = next((item for item in decisions if item.reason is reason), None)
        if waiting:
            return conditions.progressing(reason, waiting.message + _blocked(places))
    superseded = next((item for item in decisions if item.reason is Reason.SUPERSEDED), None)
    if superseded:
        return conditions.waiting(Reason.SUPERSEDED, superseded.message)
    refused = next(item for item in decisions if item.reason in _DEFINITIVE)
    assert refused.reason is not None
    return conditions.stalled(refused.reason, refused.message)
