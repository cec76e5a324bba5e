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
from graftwork.facts.text import clip
from graftwork.reasons import Reason
from graftwork.status.attempts import last_failure, under_way
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
    running = Problem(Reason.IMPORTING, f"importing {adapter.spec.source} into the store", needs_user=False)
    return Stand(problem=under_way(ordered, _words, RETRIES + 1, running))


def _ended_well(adapter: LoRAAdapter, container: Container) -> Stand:
    assert container.ended is not None
    found = imported.parse(container.ended.message)
    if found is None or found.outcome != "Succeeded" or found.adapter is None:
        words = imported.last_words(container.ended.message)[1]
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
    found = last_failure(ordered, _words)
    if found and found.final:
        return Stand(problem=_for_the_user(adapter, found.reason, found.text), over=True)
    unsaid = f"the import Job failed ({job.failed[0] or 'no reason'}): {clip(job.failed[1])}"
    reason, text = (found.reason, found.text) if found else (Reason.IMPORT_FAILED, unsaid)
    if job.failed[0] == "DeadlineExceeded":
        text = f"the import of {adapter.spec.source} did not end within {DEADLINE_SECONDS // 3600} hours{f' ({text})' if found else ''}"
    return Stand(problem=Problem(reason, f"{text}; after {RETRIES + 1} attempts it is tried again every ten minutes", needs_user=False), over=True)


def _for_the_user(adapter: LoRAAdapter, reason: Reason, text: str) -> Problem:
    return Problem(reason, f"{text}. To import again when that is mended, delete Job {names.import_job(adapter.metadata.name)}")


def _words(container: Container, message: str) -> tuple[Reason, str]:
    if container.name == names.CONTAINER_DOWNLOAD:
        return result.last_words(message, Reason.SOURCE_UNREACHABLE)
    return imported.last_words(message)
