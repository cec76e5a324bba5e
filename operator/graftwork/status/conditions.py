"""Conditions as kstatus reads them: Ready, Reconciling, Stalled, each with the generation that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graftwork.facts.problem import Problem
from graftwork.reasons import Reason

READY, RECONCILING, STALLED, SERVING, ADAPTERS_LOADED = "Ready", "Reconciling", "Stalled", "Serving", "AdaptersLoaded"
MODEL_RESOLVED, MODEL_CACHED = "ModelResolved", "ModelCached"
PLACED, ROLLED_BACK = "Placed", "RolledBack"
ACCESS_READY = "AccessReady"
POD_SECURITY = "PodSecurity"
TRUE: Literal["True"] = "True"
FALSE: Literal["False"] = "False"
UNKNOWN: Literal["Unknown"] = "Unknown"


@dataclass(frozen=True)
class Condition:
    """One condition, before it has times."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""


def ready(reason: Reason, message: str) -> tuple[Condition, ...]:
    """Return the three of a resource that is as asked."""
    return (Condition(READY, TRUE, reason, message), Condition(RECONCILING, FALSE, reason), Condition(STALLED, FALSE, reason))


def progressing(reason: Reason, message: str) -> tuple[Condition, ...]:
    """Return the three of a resource that is getting there by itself."""
    return (Condition(READY, FALSE, reason, message), Condition(RECONCILING, TRUE, reason, message), Condition(STALLED, FALSE, reason))


def waiting(reason: Reason, message: str) -> tuple[Condition, ...]:
    """Return the three of a resource that is not ready, but neither at work nor wrong."""
    return (Condition(READY, FALSE, reason, message), Condition(RECONCILING, FALSE, reason), Condition(STALLED, FALSE, reason))


def stalled(reason: Reason, message: str) -> tuple[Condition, ...]:
    """Return the three of a resource that somebody must change."""
    return (Condition(READY, FALSE, reason, message), Condition(RECONCILING, FALSE, reason), Condition(STALLED, TRUE, reason, message))


def of_problem(problem: Problem) -> tuple[Condition, ...]:
    """Return the three for a problem, by whether waiting can help."""
    make = stalled if problem.needs_user else progressing
    return make(problem.reason, problem.message)


def written(conditions: Sequence[Condition], before: Sequence[Mapping[str, Any]], generation: int, now: str) -> list[dict[str, Any]]:
    """Return the conditions as they are written; a time changes only when its status does."""
    old = {item.get("type"): item for item in before}
    return [_written(condition, old.get(condition.type), generation, now) for condition in conditions]


def _written(condition: Condition, old: Mapping[str, Any] | None, generation: int, now: str) -> dict[str, Any]:
    same = old is not None and old.get("status") == condition.status and old.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": str(condition.reason),
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else now,
    }


def find(conditions: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """Return the written condition of a type; empty if there is none."""
    return next((item for item in conditions if item.get("type") == kind), {})
