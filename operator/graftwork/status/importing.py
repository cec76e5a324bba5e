"""How an import stands, from its Job, its pods and their last words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftwork import names
from graftwork.api import LoRAAdapter
from graftwork.facts import imported, result
from graftwork.facts.imported import DEADLINE_SECONDS, RETRIES, ImportResult
from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.result import DEFINITIVE_EXITS
from graftwork.facts.text import clip
from graftwork.reasons import Reason
from graftwork.status.failures import pod_problem
from graftwork.status.training import JobFacts


@dataclass(frozen=True)
class Stand:
    """What came of an import: a result that is believed, or what there is to say instead.

    `over`: its Job will do nothing more. With a problem that needs nobody it is to be made again after a pause.
    """

    result: ImportResult | None = None
    problem: Problem | None = None
    over: bool = False


def stand(adapter: LoRAAdapter, job: JobFacts, pods: Sequence[Pod]) -> Stand:
    """Return how the import stands."""
    ordered = sorted(pods, key=lambda pod: (pod.created, pod.name))
    for pod in reversed(ordered):
        container = pod.container(names.CONTAINER_IMPORT)
        if container and container.has_ended and container.ended and container.ended.exit_code == 0:
            return _ended_well(adapter, container)
    if job.failed:
        return _failed(adapter, job, ordered)
    if job.complete_at:
        text = f"the import of {adapter.spec.source} ended, but its pod is gone and with it its result; it is imported again"
        return Stand(problem=Problem(Reason.IMPORTING, text, needs_user=False), over=True)
    return Stand(problem=_under_way(adapter, ordered))


def _ended_well(adapter: LoRAAdapter, container: Container) -> Stand:
    assert container.ended is not None
    found = imported.parse(container.ended.message)
    if found is None or found.outcome != "Succeeded" or found.adapter is None:
        words = imported.last_words(container.ended.message, Reason.IMPORT_FAILED)[1]
        text = f"the import ended with exit code 0 and a result that cannot be used: {words or 'nothing'}"
        return Stand(problem=_for_the_user(adapter, Reason.IMPORT_FAILED, text), over=True)
    wanted, digest = adapter.spec.digest, found.adapter.digest
    if wanted and wanted != digest:
        text = f"spec.digest is {wanted}, and what lies at {adapter.spec.source} has {digest}; apply a LoRAAdapter with the digest of these files"
        return Stand(problem=_for_the_user(adapter, Reason.DIGEST_MISMATCH, text), over=True)
    place = f"{names.STORE_SCHEME}{adapter.metadata.namespace}/{adapter.spec.alias}/{digest.removeprefix('sha256:')[:12]}"
    if found.adapter.source != place:
        text = f"the import says that it wrote {found.adapter.source}, and its place is {place}; the agent's image and the operator do not fit"
        return Stand(problem=_for_the_user(adapter, Reason.IMPORT_FAILED, text), over=True)
    return Stand(result=found, over=True)


def _failed(adapter: LoRAAdapter, job: JobFacts, ordered: Sequence[Pod]) -> Stand:
    assert job.failed is not None
    found = _last_failure(ordered)
    reason, text, definitive = found or (
        Reason.IMPORT_FAILED,
        f"the import Job failed ({job.failed[0] or 'no reason'}): {clip(job.failed[1])}",
        False,
    )
    if definitive:
        return Stand(problem=_for_the_user(adapter, reason, text), over=True)
    if job.failed[0] == "DeadlineExceeded":
        text = f"the import of {adapter.spec.source} did not end within {DEADLINE_SECONDS // 3600} hours{f' ({text})' if found else ''}"
    return Stand(problem=Problem(reason, f"{text}; after {RETRIES + 1} attempts it is tried again every ten minutes", needs_user=False), over=True)


def _for_the_user(adapter: LoRAAdapter, reason: Reason, text: str) -> Problem:
    return Problem(reason, f"{text}. To import again when that is mended, delete Job {names.import_job(adapter.metadata.name)}")


def _last_failure(ordered: Sequence[Pod]) -> tuple[Reason, str, bool] | None:
    """Return reason and words of the latest pod that failed by itself (else of the latest that the cluster ended), and whether they are final."""
    failed = [(pod, container) for pod in ordered for container in pod.containers if _has_failed(container)]
    own = [item for item in failed if not item[0].disrupted] or failed
    return _words(*own[-1]) if own else None


def _has_failed(container: Container) -> bool:
    return bool(container.ended and container.has_ended and container.ended.exit_code != 0)


def _words(pod: Pod, container: Container) -> tuple[Reason, str, bool]:
    ended = container.ended
    assert ended is not None
    if container.name == names.CONTAINER_DOWNLOAD:
        reason, words = result.last_words(ended.message, Reason.SOURCE_UNREACHABLE)
    else:
        reason, words = imported.last_words(ended.message, Reason.IMPORT_FAILED)
    if ended.reason == "OOMKilled":
        reason, words = Reason.OUT_OF_MEMORY, "it used more memory than there is"
    text = words or f"container {container.name} of pod {pod.name} ended with exit code {ended.exit_code}: {ended.reason or 'no message'}"
    return reason, text, ended.exit_code in DEFINITIVE_EXITS


def _under_way(adapter: LoRAAdapter, ordered: Sequence[Pod]) -> Problem:
    """Return what is to be said of an import that goes on: what keeps its pod from starting, what failed before, or just that it runs."""
    newest = max((pod for pod in ordered if pod.active), key=lambda pod: (pod.created, pod.name), default=None)
    problem = pod_problem(newest) if newest and not any(container.running for container in newest.containers) else None
    if problem:
        return problem
    found = _last_failure([pod for pod in ordered if not pod.active])
    if found:
        failures = sum(1 for pod in ordered if not pod.active and not pod.disrupted)
        text = f"{found[1]} (attempt {failures + 1} of {RETRIES + 1} follows)"
        return Problem(found[0], text, needs_user=False)
    return Problem(Reason.IMPORTING, f"importing {adapter.spec.source} into the store", needs_user=False)
