"""How a shared cache stands, from its fill's Job, pods and last words, and what the status of its LLMDeployment says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.facts import cached
from graftwork.facts.cached import CACHED, DEADLINE_SECONDS, RETRIES, Caching
from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.text import clip
from graftwork.reasons import Reason, known
from graftwork.status.attempts import last_failure, under_way
from graftwork.status.conditions import FALSE, MODEL_CACHED, TRUE, Condition, find
from graftwork.status.training import JobFacts

_OF_VOLUMES = ("persistentvolumeclaim", "volumebinding", "binding volumes")


@dataclass(frozen=True)
class Asked:
    """What is filled: from where, into which claim, by which Job; `room` says what helps where the claim is full."""

    source: str
    claim: str
    job: str
    room: str


@dataclass(frozen=True)
class Stand:
    """What came of a fill. `over`: its Job will do nothing more; with a problem that needs nobody it is to be made again after a pause."""

    done: bool = False
    problem: Problem | None = None
    over: bool = False


def stand(asked: Asked, job: JobFacts, pods: Sequence[Pod]) -> Stand:
    """Return how the Job stands."""
    ordered = sorted(pods, key=lambda pod: (pod.created, pod.name))
    if job.complete_at or any(_ended_well(pod.container(names.CONTAINER_FILL)) for pod in ordered):
        return Stand(done=True, over=True)
    if job.failed:
        return Stand(problem=_failed(asked, job, ordered), over=True)
    text = f"bringing {asked.source} into claim {asked.claim}; pods are made of it when it is there"
    problem = under_way(ordered, _words, RETRIES + 1, Problem(Reason.CACHE_FILLING, text, needs_user=False))
    return Stand(problem=_roomless(asked, problem) if problem.reason is Reason.DISK_FULL else problem)


def _ended_well(container: Container | None) -> bool:
    return bool(container and container.has_ended and container.ended and container.ended.exit_code == 0)


def _roomless(asked: Asked, problem: Problem) -> Problem:
    return Problem(Reason.DISK_FULL, f"{problem.message}. {asked.room}")


def _failed(asked: Asked, job: JobFacts, ordered: Sequence[Pod]) -> Problem:
    assert job.failed is not None
    found = last_failure(ordered, _words)
    if found and found.final:
        return Problem(found.reason, f"{found.text}. To fill again when that is mended, delete Job {asked.job}")
    unsaid = f"the Job that fills claim {asked.claim} failed ({job.failed[0] or 'no reason'}): {clip(job.failed[1])}"
    reason, text = (found.reason, found.text) if found else (Reason.CACHE_FAILED, unsaid)
    if job.failed[0] == "DeadlineExceeded":
        text = f"the fill of claim {asked.claim} did not end within {DEADLINE_SECONDS // 3600} hours{f' ({text})' if found else ''}"
    problem = Problem(reason, f"{text}; after {RETRIES + 1} attempts it is tried again every ten minutes", needs_user=False)
    return _roomless(asked, problem) if reason is Reason.DISK_FULL else problem


def _words(_: Container, message: str) -> tuple[Reason, str]:
    return cached.last_words(message)


def unbound_since(claim: Mapping[str, Any], pods: Sequence[Pod]) -> str:
    """Return since when a fill's pod has waited for the claim's volume and for nothing else; empty if it does not."""
    if (claim.get("status") or {}).get("phase") == "Bound":
        return ""
    for pod in pods:
        other = pod.unschedulable and not any(word in pod.unschedulable.lower() for word in _OF_VOLUMES)
        if pod.active and not pod.node and not other:
            return pod.unschedulable_since or pod.created
    return ""


def condition(caching: Caching | None, before: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    """Return ModelCached, for a shared cache; what was said before where nobody looked this time."""
    if caching is None:
        old = find(before, MODEL_CACHED)
        reason = known(old.get("reason"))
        return (Condition(MODEL_CACHED, old["status"], reason, old.get("message") or ""),) if reason else ()
    if caching.mode != "Shared":
        return ()
    if caching.problem and caching.phase != CACHED:
        return (Condition(MODEL_CACHED, FALSE, caching.problem.reason, caching.problem.message),)
    return (Condition(MODEL_CACHED, TRUE, Reason.MODEL_CACHED, f"models/{caching.key} of claim {caching.claim} is complete and verified"),)


def cache(caching: Caching | None, before: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return `status.cache`."""
    if caching is None:
        return before
    if caching.mode != "Shared":
        return {"mode": caching.mode, "why": caching.why, **_models(caching)}
    old = before or {}
    return {
        "mode": caching.mode,
        "why": caching.why,
        "claim": caching.claim or None,
        "sizeBytes": caching.size_bytes if caching.size_bytes is not None else old.get("sizeBytes"),
        "key": caching.key or None,
        "phase": caching.phase or None,
        **_bytes(caching, old if old.get("key") == caching.key else {}),
        **_models(caching),
    }


def _models(caching: Caching) -> dict[str, Any]:
    """Return what lies in which claim, whether the present spec asks for it or not: an older revision of the pods may."""
    return {"claimUid": caching.claim_uid or None, "models": [item.to_object() for item in caching.held] or None}


def _bytes(caching: Caching, old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of progress; while nobody tells any, what is there stays and there is no speed."""
    if caching.phase == CACHED:
        total = caching.total_bytes if caching.total_bytes is not None else old.get("bytesTotal")
        return {"bytesDone": total, "bytesTotal": total}
    found = caching.progress
    if found is None:
        return {"bytesDone": old.get("bytesDone"), "bytesTotal": caching.total_bytes}
    return {
        "bytesDone": found.bytes_done,
        "bytesTotal": found.bytes_total,
        "bytesPerSecond": round(found.bytes_per_second),
        "etaSeconds": round(found.eta_seconds) if found.eta_seconds is not None else None,
    }
