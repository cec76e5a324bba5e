"""How the look at a model's source stands, and what the status of its LLMDeployment says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.facts import inspected
from graftwork.facts.inspected import DEADLINE_SECONDS, KEPT_SECONDS, RETRIES, Resolution, Resolved
from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.text import clip
from graftwork.reasons import Reason, known
from graftwork.status.attempts import last_failure, under_way
from graftwork.status.conditions import FALSE, MODEL_RESOLVED, TRUE, Condition, find
from graftwork.status.training import JobFacts


@dataclass(frozen=True)
class Asked:
    """What is looked up, for whom and under which key."""

    deployment: str
    key: str
    source: str
    requested: str
    refresh: str = ""

    @property
    def text(self) -> str:
        """The source as a person would write it in one line."""
        return f"{self.source}@{self.requested}" if self.requested else self.source


@dataclass(frozen=True)
class Stand:
    """What came of a look: what the source is frozen to, or what there is to say instead. `lost`: it ended, and its result is gone."""

    resolved: Resolved | None = None
    problem: Problem | None = None
    over: bool = False
    lost: bool = False


def stand(asked: Asked, job: JobFacts, pods: Sequence[Pod]) -> Stand:
    """Return how the Job stands."""
    ordered = sorted(pods, key=lambda pod: (pod.created, pod.name))
    for pod in reversed(ordered):
        container = pod.container(names.CONTAINER_INSPECT)
        if container and container.has_ended and container.ended and container.ended.exit_code == 0:
            return _ended_well(asked, container.ended.message)
    if job.failed:
        return Stand(problem=_failed(asked, job, ordered), over=True)
    if job.complete_at:
        text = f"the look at {asked.text} ended, but its pod is gone and with it its result; it is made again"
        return Stand(problem=Problem(Reason.MODEL_RESOLVING, text, needs_user=False), over=True, lost=True)
    running = Problem(Reason.MODEL_RESOLVING, f"looking up what {asked.text} is, before pods are made for it", needs_user=False)
    return Stand(problem=under_way(ordered, _words, RETRIES + 1, running))


def _ended_well(asked: Asked, message: str) -> Stand:
    result = inspected.parse(message)
    resolved = inspected.frozen(result, asked.key, asked.source, asked.requested, asked.refresh) if result else None
    if resolved:
        return Stand(resolved=resolved, over=True)
    words = inspected.last_words(message)[1]
    text = f"the look at {asked.text} ended with exit code 0 and a result that cannot be used: {words or 'nothing'}"
    return Stand(problem=_for_the_user(asked, Reason.INSPECT_FAILED, text), over=True)


def _failed(asked: Asked, job: JobFacts, ordered: Sequence[Pod]) -> Problem:
    assert job.failed is not None
    found = last_failure(ordered, _words)
    if found and found.final:
        return _for_the_user(asked, found.reason, found.text)
    unsaid = f"the Job that looks at {asked.text} failed ({job.failed[0]}): {clip(job.failed[1])}"
    reason, text = (found.reason, found.text) if found else (Reason.INSPECT_FAILED, unsaid)
    if job.failed[0] == "DeadlineExceeded":
        text = f"the look at {asked.text} did not end within {DEADLINE_SECONDS // 60} minutes{f' ({text})' if found else ''}"
    again = f"after {RETRIES + 1} attempts it is made again every {KEPT_SECONDS // 60} minutes"
    return Problem(reason, f"{text}; {again}", needs_user=False)


def _for_the_user(asked: Asked, reason: Reason, text: str) -> Problem:
    again = _refresh(asked.deployment)
    return Problem(reason, f"{text}. It is looked up again when model.source, revision or credentialsSecret changes, or by `{again}`")


def _refresh(deployment: str) -> str:
    return f"kubectl annotate llmd {deployment} {names.ANNOTATION_REFRESH}=$(date +%s) --overwrite"


def with_remedy(problem: Problem, deployment: str) -> Problem:
    """Return what keeps a pod from starting; of a bucket that has changed since it was frozen, with how to serve what it has now."""
    if problem.reason is not Reason.SOURCE_CHANGED:
        return problem
    text = f"{problem.message}. To serve what is there now: `{_refresh(deployment)}`"
    return Problem(problem.reason, text, problem.needs_user)


def _words(_: Container, message: str) -> tuple[Reason, str]:
    return inspected.last_words(message)


def said(resolved: Resolved) -> str:
    """Return what a source is frozen to, in one line."""
    facts = resolved.facts
    quantized = f", {facts.quantization}" if facts.quantization else ""
    frozen = "is commit" if resolved.source.startswith("hf://") else f"has {resolved.files.count} files, and is frozen to their listing"
    return (
        f"{resolved.source}{f' ({resolved.requested})' if resolved.requested else ''} {frozen} {resolved.revision}: "
        f"{facts.architecture or 'a model'}, {facts.parameters} parameters, {facts.weights_bytes} bytes of weights{quantized}"
    )


def condition(resolution: Resolution | None, before: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    """Return ModelResolved, for a source that is looked up; what was said before where nobody asked this time."""
    if resolution is None:
        old = find(before, MODEL_RESOLVED)
        reason = known(old.get("reason"))
        return (Condition(MODEL_RESOLVED, old["status"], reason, old.get("message") or ""),) if reason else ()
    if not resolution.wanted:
        return ()
    if resolution.resolved:
        text = "; ".join(part for part in (said(resolution.resolved), resolution.detected) if part)
        return (Condition(MODEL_RESOLVED, TRUE, Reason.MODEL_RESOLVED, text),)
    problem = resolution.problem or Problem(Reason.MODEL_RESOLVING, "")
    return (Condition(MODEL_RESOLVED, FALSE, problem.reason, problem.message),)


def model(facts: Mapping[str, Any] | None, before: Mapping[str, Any] | None, resolution: Resolution | None) -> Mapping[str, Any] | None:
    """Return `status.model`: what the agents read, what the source is frozen to (that of before, while a new one is looked up), or its refusal."""
    kept = before or {}
    found = {key: value for key, value in (facts or {}).items() if key not in ("resolved", "refused")}
    if resolution is None:
        found |= {key: kept[key] for key in ("resolved", "refused") if key in kept}
    elif resolution.resolved:
        found["resolved"] = resolution.resolved.to_object()
    elif resolution.wanted:
        found |= {"resolved": kept["resolved"]} if "resolved" in kept else {}
        problem = resolution.problem
        if problem and resolution.refused:
            refused = {"key": resolution.wanted, "refresh": resolution.refresh, "reason": str(problem.reason), "message": problem.message}
            found["refused"] = refused
    if "resolved" in found:
        found.pop("facts", None)  # it has them already
    return found or None
