"""What the pods of a Job say of an attempt that failed or goes on, whatever the Job is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.reported import DEFINITIVE_EXITS
from graftwork.reasons import Reason
from graftwork.status.failures import pod_problem

Words = Callable[[Container, str], tuple[Reason, str]]
"""Reads the last message of a container that failed: its reason, and its words if it has any."""


@dataclass(frozen=True)
class Failure:
    """How an attempt failed. `final`: another one ends the same way."""

    reason: Reason
    text: str
    final: bool


def last_failure(ordered: Sequence[Pod], words: Words) -> Failure | None:
    """Return how the latest pod failed that failed by itself (else the latest that the cluster ended); `ordered` has the newest last."""
    failed = [(pod, container) for pod in ordered for container in pod.containers if _has_failed(container)]
    own = [item for item in failed if not item[0].disrupted] or failed
    return _failure(*own[-1], words) if own else None


def under_way(ordered: Sequence[Pod], words: Words, attempts: int, otherwise: Problem) -> Problem:
    """Return what is to be said of a Job that goes on: what keeps its pod from starting, what failed before, or just that it runs."""
    newest = max((pod for pod in ordered if pod.active), key=lambda pod: (pod.created, pod.name), default=None)
    problem = pod_problem(newest) if newest and not newest.begun else None
    if problem:
        return problem
    found = last_failure([pod for pod in ordered if not pod.active], words)
    if found is None:
        return otherwise
    failures = sum(1 for pod in ordered if not pod.active and not pod.disrupted)
    return Problem(found.reason, f"{found.text} (attempt {failures + 1} of {attempts} follows)", needs_user=False)


def _has_failed(container: Container) -> bool:
    return bool(container.ended and container.has_ended and container.ended.exit_code != 0)


def _failure(pod: Pod, container: Container, words: Words) -> Failure:
    ended = container.ended
    assert ended is not None
    reason, said = words(container, ended.message)
    if ended.reason == "OOMKilled":
        reason, said = Reason.OUT_OF_MEMORY, "it used more memory than there is"
    text = said or f"container {container.name} of pod {pod.name} ended with exit code {ended.exit_code}: {ended.reason or 'no message'}"
    return Failure(reason, text, ended.exit_code in DEFINITIVE_EXITS)
