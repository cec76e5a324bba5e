"""The status of a FineTuneJob: its phase from Job, pods and the trainer's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.result import Result, last_words, parse
from graftwork.facts.text import clip
from graftwork.reasons import Reason
from graftwork.status import conditions
from graftwork.status.conditions import Condition
from graftwork.status.failures import pod_problem

TERMINAL = ("Succeeded", "Rejected", "Failed")
_PHASE_REASON = {
    "Pending": Reason.PENDING,
    "Preparing": Reason.PREPARING,
    "Training": Reason.TRAINING,
    "Evaluating": Reason.EVALUATING,
    "Publishing": Reason.PUBLISHING,
}


@dataclass(frozen=True)
class JobFacts:
    """What the Kubernetes Job says. `failed` has (reason, message) of its Failed condition."""

    exists: bool
    suspended: bool = False
    started: str = ""
    complete_at: str = ""
    failed: tuple[str, str] | None = None
    failed_at: str = ""


def job_facts(obj: Mapping[str, Any] | None) -> JobFacts:
    """Return the facts of a Job object."""
    if obj is None:
        return JobFacts(exists=False)
    status = obj.get("status") or {}
    on = {item["type"]: item for item in status.get("conditions") or [] if item.get("status") == "True"}
    failed = on.get("Failed") or on.get("FailureTarget")
    complete = on.get("Complete")
    return JobFacts(
        exists=True,
        suspended=bool((obj.get("spec") or {}).get("suspend")),
        started=status.get("startTime") or "",
        complete_at=(status.get("completionTime") or complete.get("lastTransitionTime") or "") if complete else "",
        failed=(failed.get("reason") or "", failed.get("message") or "") if failed else None,
        failed_at=(failed.get("lastTransitionTime") or "") if failed else "",
    )


@dataclass(frozen=True)
class Ending:
    """How the run ended: a result that is believed, or a failure."""

    phase: str
    reason: Reason
    message: str
    at: str = ""
    result: Result | None = None


@dataclass(frozen=True)
class Observed:
    """Everything that the status of a FineTuneJob is computed from."""

    generation: int
    run: int
    suspend: bool
    job: JobFacts
    pods: Sequence[Pod]
    progress: Mapping[str, Any] | None
    """The trainer's last `/progress`, if it answers."""
    ending: Ending | None
    adapter: str
    problem: Problem | None
    """What keeps the run from being made, or from being brought to its end."""
    before: Mapping[str, Any]
    now: str
    retry_limit: int = 0


def ending(job: JobFacts, pods: Sequence[Pod]) -> Ending | None:
    """Return how the run ended, or None while it goes on (a failed attempt that will be tried again is no end)."""
    ordered = sorted(pods, key=lambda pod: (pod.created, pod.name))
    for pod in reversed(ordered):
        trainer = pod.container(names.CONTAINER_TRAINER)
        if trainer and trainer.has_ended and trainer.ended and trainer.ended.exit_code == 0:
            return _good_end(trainer)
    if job.failed:
        return _failure(job, ordered)
    if job.complete_at:
        return Ending("Failed", Reason.TRAINING_FAILED, "the run ended, but its pod is gone and with it its result; train again", job.complete_at)
    return None


def _good_end(trainer: Container) -> Ending:
    assert trainer.ended is not None
    result, at = parse(trainer.ended.message), trainer.ended.finished_at
    if result and result.outcome == "Rejected":
        return Ending("Rejected", Reason.BELOW_GATE, clip(result.message), at, result)
    if result and result.outcome == "Succeeded" and result.adapter and result.base:
        twelve = result.adapter.digest.removeprefix("sha256:")[:12]
        if result.adapter.source.endswith(f"/{twelve}"):
            return Ending("Succeeded", Reason.PUBLISHED, clip(result.message), at, result)
    words = last_words(trainer.ended.message, Reason.TRAINING_FAILED)[1]
    return Ending(
        "Failed", Reason.TRAINING_FAILED, f"the trainer ended with exit code 0 and a result that cannot be used: {words or 'nothing'}", at, result
    )


def _failure(job: JobFacts, ordered: Sequence[Pod]) -> Ending:
    assert job.failed is not None
    why, text = job.failed
    found = last_failure(ordered)
    if why == "DeadlineExceeded":
        return Ending("Failed", Reason.TIME_LIMIT, "timeLimit passed before the run ended; raise timeLimit in a new FineTuneJob", job.failed_at)
    if found is None:
        return Ending("Failed", Reason.TRAINING_FAILED, f"the Job failed ({why or 'no reason'}): {clip(text)}", job.failed_at)
    reason, message, result = found
    return Ending("Failed", reason, message, job.failed_at, result)


def last_failure(ordered: Sequence[Pod]) -> tuple[Reason, str, Result | None] | None:
    """Return reason, message and result of the latest pod that failed by itself (else of the latest that the cluster ended)."""
    failed = [pod for pod in ordered if pod.phase == "Failed" or any(_failed(container) for container in pod.containers)]
    own = [pod for pod in failed if not pod.disrupted]
    for pod in reversed(own or failed):
        for container in pod.containers:
            if _failed(container):
                return _container_failure(pod, container)
        return Reason.TRAINING_FAILED, f"pod {pod.name} failed: {clip(pod.message) or pod.reason or 'no message'}", None
    return None


def _failed(container: Container) -> bool:
    return bool(container.ended and container.has_ended and container.ended.exit_code != 0)


def _container_failure(pod: Pod, container: Container) -> tuple[Reason, str, Result | None]:
    ended = container.ended
    assert ended is not None
    where = f"container {container.name} of pod {pod.name}"
    if ended.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, f"{where} used more memory than its limit and was killed; raise pod.resources.limits.memory", None
    default = Reason.TRAINING_FAILED if container.name == names.CONTAINER_TRAINER else Reason.SOURCE_UNREACHABLE
    reason, words = last_words(ended.message, default)
    result = parse(ended.message)
    if result:
        return reason, words, result
    return reason, f"{where} ended with exit code {ended.exit_code}: {words or ended.reason or 'no message'}", None


def status(seen: Observed) -> dict[str, Any]:
    """Return the whole status."""
    phase, all_conditions = _phase(seen)
    before = seen.before
    progress = _progress(seen)
    result = seen.ending.result if seen.ending else None
    starts = [text for pod in seen.pods if (text := pod.started)]
    return {
        "observedGeneration": seen.generation,
        "conditions": conditions.written(all_conditions, before.get("conditions") or [], seen.generation, seen.now),
        "phase": phase,
        "progress": progress or None,
        "progressText": _progress_text(progress),
        "dataset": _dataset(seen, result) or before.get("dataset"),
        "evaluation": (result.evaluation.model_dump(mode="json", by_alias=True) if result and result.evaluation else None)
        or before.get("evaluation"),
        "adapter": seen.adapter or before.get("adapter"),
        "run": seen.run if seen.job.exists else before.get("run"),
        "attempts": max(len(seen.pods), int(before.get("attempts") or 0)) or None,
        "startedAt": before.get("startedAt") or (min(starts) if starts else None),
        "finishedAt": before.get("finishedAt") or ((seen.ending.at or seen.now) if seen.ending and not seen.problem else None),
        "publishedAt": before.get("publishedAt")
        or (result.published_at if result and seen.ending and seen.ending.phase == "Succeeded" else "")
        or None,
        "memory": (result.memory.model_dump(mode="json", by_alias=True) if result and result.memory else None) or before.get("memory"),
    }


def _phase(seen: Observed) -> tuple[str, Sequence[Condition]]:
    if seen.problem:
        return _phase_with_problem(seen), conditions.of_problem(seen.problem)
    if seen.ending:
        return seen.ending.phase, _ended(seen)
    if seen.suspend:
        return "Suspended", conditions.waiting(Reason.SUSPENDED, "spec.suspend is true; set it to false to train from the beginning")
    phase, message = _running(seen)
    current = _newest_active(seen.pods)
    problem = pod_problem(current) if current and phase == "Pending" else None
    if problem:
        return phase, conditions.of_problem(problem)
    return phase, conditions.progressing(_PHASE_REASON[phase], message)


def _phase_with_problem(seen: Observed) -> str:
    """Return how far the run is: a phase that is not the last, because it goes on when the problem has gone."""
    if seen.ending:
        return "Publishing"
    return _running(seen)[0] if seen.job.exists else "Pending"


def _ended(seen: Observed) -> Sequence[Condition]:
    end = seen.ending
    assert end is not None
    if end.phase == "Succeeded":
        return conditions.ready(Reason.PUBLISHED, f"published as LoRAAdapter {seen.adapter}")
    return conditions.stalled(end.reason, end.message)


def _newest_active(pods: Sequence[Pod]) -> Pod | None:
    return max((pod for pod in pods if pod.active), key=lambda pod: (pod.created, pod.name), default=None)


def _running(seen: Observed) -> tuple[str, str]:
    """Return phase and message of a run that goes on."""
    pod = _newest_active(seen.pods)
    again = _attempt_text(seen)
    if pod is None:
        return "Pending", f"waiting for the Job to make a pod{again}"
    trainer = pod.container(names.CONTAINER_TRAINER)
    if trainer and trainer.running:
        phase = str((seen.progress or {}).get("phase") or _last_phase(seen))
        return phase, f"pod {pod.name}{again}"
    if any(container.init and (container.running or container.ended) for container in pod.containers):
        return "Preparing", f"downloading in pod {pod.name}{again}"
    return "Pending", f"pod {pod.name} is starting{again}"


def _last_phase(seen: Observed) -> str:
    """Return the phase to show while the trainer does not answer: what was shown last, if it was one of a running trainer."""
    last = str(seen.before.get("phase") or "")
    return last if last in ("Preparing", "Training", "Evaluating", "Publishing") else "Preparing"


def _attempt_text(seen: Observed) -> str:
    """Return ` (attempt 2 of 4; the last one: …)` after a failed attempt."""
    found = last_failure(sorted(seen.pods, key=lambda pod: (pod.created, pod.name)))
    if not found:
        return ""
    failures = sum(1 for pod in seen.pods if pod.phase == "Failed")
    return f" (attempt {failures + 1} of {seen.retry_limit + 1}; the last one: {found[0]}: {found[1]})"


def _progress(seen: Observed) -> dict[str, Any]:
    keys = ("step", "steps", "epoch", "tokensPerSecond", "etaSeconds", "loss", "evalLoss")
    live = {key: seen.progress[key] for key in keys if seen.progress.get(key) is not None} if seen.progress else {}
    found = live or dict(seen.before.get("progress") or {})
    result = seen.ending.result if seen.ending else None
    if result and result.training:
        found |= {"step": result.training.steps, "steps": result.training.steps}
        if result.training.loss is not None:
            found["loss"] = result.training.loss
        found.pop("etaSeconds", None)
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}  # kubectl prints all digits


def _progress_text(progress: Mapping[str, Any]) -> str | None:
    if progress.get("step") is None or not progress.get("steps"):
        return None
    return f"{progress['step']}/{progress['steps']}"


def _dataset(seen: Observed, result: Result | None) -> dict[str, Any] | None:
    if result and result.dataset:
        return {key: value for key, value in result.dataset.model_dump(mode="json", by_alias=True).items() if value is not None}
    live = (seen.progress or {}).get("dataset")
    return {key: value for key, value in live.items() if value is not None} if live else None
