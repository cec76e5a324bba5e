"""Looking up what a model's source is, once per text: its Job is made, followed, and what it found is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.clock import parse_rfc3339
from graftwork.cluster import metrics
from graftwork.facts import inspected
from graftwork.facts import pods as pod_facts
from graftwork.facts.inspected import Resolution, Resolved
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import adopting, inspecting, revisions
from graftwork.plan.sources import Source
from graftwork.reasons import Reason
from graftwork.reconcile import observe
from graftwork.reconcile.children import PRUNED_KINDS, apply_children
from graftwork.reconcile.context import Context, Object
from graftwork.reconcile.importing import without_pod
from graftwork.status.conditions import MODEL_RESOLVED, find
from graftwork.status.resolving import Asked, Stand, said, stand
from graftwork.status.training import job_facts

PRUNED_WHILE_WAITING = tuple(kind for kind in PRUNED_KINDS if kind != "Deployment")
"""What serves stays as it is until it is known what is to follow it."""


async def resolve(ctx: Context, obj: Object, deployment: LLMDeployment, source: Source) -> Resolution:
    """Bring the look at the source one step further. What is known of its text is never asked again, whatever lies there by now."""
    if not source.resolved:
        return Resolution()
    refresh = inspecting.refresh(deployment)
    asked = Asked(deployment.metadata.name, inspecting.key(deployment), source.text, deployment.spec.model.revision, refresh)
    known = inspected.remembered(deployment.status, asked.key) or _restored(ctx, obj, deployment, asked)
    if known:
        return Resolution(asked.key, known)
    refused = inspected.refused(deployment.status, asked.key)
    if refused:
        return Resolution(asked.key, problem=refused, refused=True, refresh=refresh)
    if any(adopting.adopted(deployment, source, item, ctx.config) for item in _serving(ctx, obj)):
        return Resolution()
    manifest = inspecting.inspect_job(deployment, source, ctx.config)
    outcome = await apply_children(ctx, obj, [manifest], prune_kinds=())
    job = outcome.live["Job", manifest["metadata"]["name"]]
    if inspecting.overtaken(job, manifest) and not any(pod.begun for pod in _pods(ctx, asked, job)):
        await ctx.cluster.delete("Job", obj["metadata"]["namespace"], job["metadata"]["name"], uid=job["metadata"]["uid"])
        text = f"the Job that looks at {asked.text} is made again as the spec says now"
        return Resolution(asked.key, problem=Problem(Reason.MODEL_RESOLVING, text, needs_user=False), again_seconds=observe.LEFTOVER_SECONDS)
    return await _follow(ctx, obj, asked, job)


async def _follow(ctx: Context, obj: Object, asked: Asked, job: Object) -> Resolution:
    """Return what the Job has come to."""
    found = await _look(ctx, asked, job)
    took = _seconds(ctx, job) if found.over else None
    if found.resolved:
        ctx.events.record(obj, str(Reason.MODEL_RESOLVED), said(found.resolved))
        return Resolution(asked.key, found.resolved, took_seconds=took)
    if found.lost:
        await ctx.cluster.delete("Job", obj["metadata"]["namespace"], job["metadata"]["name"], uid=job["metadata"]["uid"])
        return Resolution(asked.key, problem=found.problem, again_seconds=observe.LEFTOVER_SECONDS)
    expected = not (found.over or job_facts(job).suspended or job["metadata"].get("deletionTimestamp") or _pods(ctx, asked, job))
    if expected:
        problem, again = without_pod(ctx, job, found.problem)
        return Resolution(asked.key, problem=problem, again_seconds=again)
    final = bool(found.over and found.problem and found.problem.needs_user)
    return Resolution(asked.key, problem=found.problem, refused=final, refresh=asked.refresh, took_seconds=took)


def count(source: Source | None, resolution: Resolution | None, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Count a look that has just ended, once its status is written: one that gave up is seen again by every pass until it is made anew."""
    if source is None or resolution is None or resolution.took_seconds is None:
        return
    old, new = (find(status.get("conditions") or [], MODEL_RESOLVED) for status in (before, after))
    if new and any(old.get(part) != new.get(part) for part in ("status", "reason", "message")):
        metrics.INSPECT_SECONDS.labels(source.kind, new["reason"]).observe(resolution.took_seconds)


def _seconds(ctx: Context, job: Object) -> float | None:
    made = job["metadata"].get("creationTimestamp")
    return (ctx.clock.now() - parse_rfc3339(made)).total_seconds() if made else None


def frozen(deployment: LLMDeployment) -> Resolved | Problem:
    """Return what the source of a deployment that was resolved is frozen to, by its status; or why it is not."""
    where = f"LLMDeployment {deployment.metadata.namespace}/{deployment.metadata.name}"
    key = inspecting.key(deployment)
    refused = inspected.refused(deployment.status, key)
    if refused:
        return Problem(refused.reason, f"the model of {where} was refused: {refused.message}", needs_user=False)
    text = f"{where} does not know yet which commit {deployment.spec.model.source} is; the run starts when it does"
    return inspected.remembered(deployment.status, key) or Problem(Reason.MODEL_RESOLVING, text, needs_user=False)


def _restored(ctx: Context, obj: Object, deployment: LLMDeployment, asked: Asked) -> Resolved | None:
    """Return what the revision that serves was frozen to, where the status was lost (a restored backup); a branch may have moved since."""
    if Resolved.from_object((deployment.status.get("model") or {}).get("resolved")):
        return None
    for item in _serving(ctx, obj):
        found = Resolved.from_object((item.get("data") or {}).get("model"))
        if found and (found.source, found.requested) == (asked.source, asked.requested):
            return found.model_copy(update={"key": asked.key, "refresh": asked.refresh})
    return None


def _serving(ctx: Context, obj: Object) -> list[Object]:
    """Return the revision that the Deployment has; the newest one where there is no Deployment."""
    metadata = obj["metadata"]
    stored = ctx.mirror.list("ControllerRevision", metadata["namespace"], {names.LABEL_OWNER_UID: metadata["uid"]})
    child = ctx.mirror.get("Deployment", metadata["namespace"], metadata["name"]) or {}
    template = (((child.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("annotations") or {}
    applied = template.get(names.ANNOTATION_TEMPLATE_HASH)
    newest = sorted(stored, key=lambda item: int(item.get("revision") or 0), reverse=True)
    return [item for item in newest if revisions.stored_hash(item) == applied] if applied else newest[:1]


async def _look(ctx: Context, asked: Asked, job: Object) -> Stand:
    """Return how it stands; what looks like an end without a result is looked at again in the pods as they are, not as they were told."""
    found = stand(asked, job_facts(job), _pods(ctx, asked, job))
    if found.over and not found.resolved:
        metadata = job["metadata"]
        listed = [pod_facts.pod(item) for item in await ctx.cluster.list("Pod", metadata["namespace"], {names.LABEL_INSPECTS: asked.deployment})]
        found = stand(asked, job_facts(job), [pod for pod in listed if pod.controller == metadata["uid"]])
    return found


def _pods(ctx: Context, asked: Asked, job: Object) -> list[Pod]:
    labels = {names.LABEL_INSPECTS: asked.deployment}
    return [pod for pod in observe.pods(ctx, job["metadata"]["namespace"], labels) if pod.controller == job["metadata"]["uid"]]
