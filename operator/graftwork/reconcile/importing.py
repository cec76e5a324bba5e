"""Bringing an adapter from elsewhere into the store: its Job is made once, followed, and removed when the digest is pinned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from graftwork import names
from graftwork.api import LoRAAdapter
from graftwork.clock import parse_rfc3339
from graftwork.errors import Forbidden, Invalid, NameTaken
from graftwork.facts import imported
from graftwork.facts import pods as pod_facts
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import importing
from graftwork.reasons import Reason
from graftwork.reconcile import observe
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Key, Object
from graftwork.reconcile.objects import write_status
from graftwork.status.importing import Stand, stand
from graftwork.status.training import JobFacts, job_facts

POD_SECONDS = 20.0
"""How soon after its Job an import's pod is missed. The Job controller makes it within a second, and tells only in Events if it may not."""

PAUSE_SECONDS = 600.0
"""How long a Job that gave up stays before another one is made: an outage must end without anybody's doing."""


@dataclass(frozen=True)
class Step:
    """What one pass did for an import. `obj` is the LoRAAdapter as it is then; without a problem its status pins the digest."""

    obj: Object
    problem: Problem | None = None
    again_seconds: float | None = None


async def follow(key: Key, ctx: Context, obj: Object, adapter: LoRAAdapter) -> Step:
    """Bring the import one step further."""
    refusal = importing.account_problem(adapter, ctx.config)
    if refusal:
        return Step(obj, Problem(Reason.SERVICE_ACCOUNT_NOT_ALLOWED, refusal))
    try:
        job = await _job(ctx, obj, adapter)
    except NameTaken as error:
        problem = observe.name_taken(key, error)
        return Step(obj, problem, observe.LEFTOVER_SECONDS if problem.reason is Reason.PROGRESSING else observe.REFUSED_SECONDS)
    except (Forbidden, Invalid) as error:
        return Step(obj, observe.refused(error), observe.REFUSED_SECONDS)
    facts = job_facts(job)
    found = await _look(ctx, key, adapter, job, facts)
    if found.result:
        return Step(await _pin(ctx, obj, adapter, found.result))
    if found.over and found.problem and not found.problem.needs_user:
        return await _again(ctx, obj, job, facts, found.problem)
    expected = not (found.over or facts.suspended or job["metadata"].get("deletionTimestamp") or _pods(ctx, key, job))
    return _without_pod(ctx, obj, job, found.problem) if expected else Step(obj, found.problem)


def _without_pod(ctx: Context, obj: Object, job: Object, problem: Problem | None) -> Step:
    return Step(obj, *without_pod(ctx, job, problem))


def without_pod(ctx: Context, job: Object, problem: Problem | None) -> tuple[Problem | None, float]:
    """Say that a Job has no pod, once it should have one: a quota, an admission policy, no such ServiceAccount; and when to look again."""
    name = job["metadata"]["name"]
    began = (job.get("status") or {}).get("startTime") or job["metadata"].get("creationTimestamp")  # set anew when a Job is resumed
    age = (ctx.clock.now() - parse_rfc3339(began)).total_seconds() if began else 0.0
    if age < POD_SECONDS:
        return problem, POD_SECONDS - age
    text = (
        f"Job {name} has had no pod for {POD_SECONDS:.0f} s: most likely the API server refuses to make it - a quota, an admission policy, a "
        f"ServiceAccount that does not exist; `kubectl describe job {name}` shows its words. It is made as soon as it may be"
    )
    return Problem(Reason.PODS_REFUSED, text, needs_user=False), observe.REFUSED_SECONDS


def _pods(ctx: Context, key: Key, job: Object) -> list[Pod]:
    return [pod for pod in observe.pods(ctx, key.namespace, {names.LABEL_ADAPTER: key.name}) if pod.controller == job["metadata"]["uid"]]


async def clear(ctx: Context, obj: Object) -> None:
    """Remove the Job of an adapter whose digest is pinned: it has nothing more to say, and its pod holds the files a second time."""
    job = _own_job(ctx, obj)
    if job:
        await ctx.cluster.delete("Job", obj["metadata"]["namespace"], job["metadata"]["name"], uid=job["metadata"]["uid"])


def _own_job(ctx: Context, obj: Object) -> Object | None:
    metadata = obj["metadata"]
    job = ctx.mirror.get("Job", metadata["namespace"], names.import_job(metadata["name"]))
    if job and not job["metadata"].get("deletionTimestamp") and (job["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID) == metadata["uid"]:
        return job
    return None


async def _job(ctx: Context, obj: Object, adapter: LoRAAdapter) -> Object:
    live = _own_job(ctx, obj)
    if live:
        return live
    manifest = importing.import_job(adapter, ctx.config)
    outcome = await apply_children(ctx, obj, [manifest], prune_kinds=())
    return outcome.live["Job", manifest["metadata"]["name"]]


async def _look(ctx: Context, key: Key, adapter: LoRAAdapter, job: Object, facts: JobFacts) -> Stand:
    """Return how it stands; what looks like an end without a result is looked at again in the pods as they are, not as they were told."""
    uid, labels = job["metadata"]["uid"], {names.LABEL_ADAPTER: key.name}
    found = stand(adapter, facts, _pods(ctx, key, job))
    if found.over and not found.result:
        listed = [pod_facts.pod(item) for item in await ctx.cluster.list("Pod", key.namespace, labels)]
        found = stand(adapter, facts, [pod for pod in listed if pod.controller == uid])
    return found


async def _pin(ctx: Context, obj: Object, adapter: LoRAAdapter, result: imported.ImportResult) -> Object:
    """Write what was imported into the status, before anything is decided by it."""
    fields = imported.pinned(result)
    obj = await write_status(ctx, obj, {**(obj.get("status") or {}), **fields})
    resolved = fields.get("resolved") or {}
    revision = f" at revision {resolved['revision']}" if resolved.get("revision") else ""
    ctx.events.record(obj, str(Reason.IMPORTED), f"imported {adapter.spec.source}{revision} as {fields['digest']}")
    return obj


async def _again(ctx: Context, obj: Object, job: Object, facts: JobFacts, problem: Problem) -> Step:
    """Make room for another Job: at once where only the result was lost, after a pause where the source or the store did not answer."""
    left = 0.0
    if facts.failed_at:
        left = (parse_rfc3339(facts.failed_at) + timedelta(seconds=PAUSE_SECONDS) - ctx.clock.now()).total_seconds()
    if left > 0:
        return Step(obj, problem, left)
    await ctx.cluster.delete("Job", obj["metadata"]["namespace"], job["metadata"]["name"], uid=job["metadata"]["uid"])
    return Step(obj, problem, observe.LEFTOVER_SECONDS)
