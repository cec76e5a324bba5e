"""Sweeping the store of a namespace: nobody's object, so its task has a key of its own and its memory is the newest Job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from graftwork import names
from graftwork.clock import parse_rfc3339
from graftwork.errors import AlreadyExists
from graftwork.facts import imported, result, swept
from graftwork.facts.pods import Pod
from graftwork.plan import sweep
from graftwork.reconcile import observe
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.status.training import TERMINAL, job_facts

logger = logging.getLogger(__name__)


class SweepReconciler:
    """One pass for one namespace."""

    def __init__(self) -> None:
        self._seen: dict[Key, frozenset[str]] = {}
        self._told: dict[Key, str] = {}

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Make the next sweep when it is due, at most one at a time."""
        if not ctx.config.store.url:
            return Result(gone=True)
        keep = frozenset(_references(ctx, key.namespace))
        jobs = sorted(ctx.mirror.list("Job", key.namespace, {names.LABEL_SWEEP: "true"}), key=_number)
        last = _last(ctx, key, jobs[-1]) if jobs else None
        lost = bool(self._seen.get(key, frozenset()) - keep)
        if last and last.over:
            self._tell(ctx, key, jobs[-1], last)
        if last and not last.over:
            await _instruct(ctx, key, jobs[-1], keep)
        wait = sweep.due(ctx.clock.now(), keep, last, oldest=_oldest(ctx, key.namespace), lost=lost, retain_seconds=ctx.config.store.retain_seconds)
        if wait is None:
            self._seen[key] = keep
            return Result(gone=not (keep or jobs))
        if wait.total_seconds() > 0:
            if last:  # without one, `lost` must be remembered until there is
                self._seen[key] = keep
            else:
                self._seen[key] = self._seen.get(key, frozenset()) | keep
            return Result(requeue_after_seconds=wait.total_seconds())
        await _begin(ctx, key, jobs, keep)
        self._seen[key] = keep
        return Result()

    def _tell(self, ctx: Context, key: Key, job: Object, last: sweep.Last) -> None:
        """Log how the newest sweep ended, once."""
        uid = job["metadata"]["uid"]
        if self._told.get(key) == uid:
            return
        self._told[key] = uid
        text = next((message for message in _messages(ctx, key.namespace, job) if message), "")
        level = logging.WARNING if last.failed else logging.INFO
        logger.log(level, "sweep of namespace %s, Job %s: %s", key.namespace, job["metadata"]["name"], swept.words(text) or "no message")


def _references(ctx: Context, namespace: str) -> Iterator[str]:
    """Yield every digest that something refers to, or is about to: LoRAAdapters as they are written, runs and imports that have just ended."""
    for obj in ctx.mirror.list("LoRAAdapter", None):
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        of_here = str(spec.get("source") or "").startswith(f"{names.STORE_SCHEME}{namespace}/")  # another namespace may serve our files
        if of_here or obj["metadata"]["namespace"] == namespace:
            yield from (str(part["digest"]) for part in (spec, status) if part.get("digest"))
    going = {obj["metadata"]["name"] for obj in ctx.mirror.list("FineTuneJob", namespace) if (obj.get("status") or {}).get("phase") not in TERMINAL}
    for job in going:
        for message in _last_words(observe.pods(ctx, namespace, {names.LABEL_JOB: job}), names.CONTAINER_TRAINER):
            published = result.parse(message)
            if published and published.adapter:
                yield published.adapter.digest
    for obj in ctx.mirror.list("LoRAAdapter", namespace):
        for message in _last_words(observe.pods(ctx, namespace, {names.LABEL_ADAPTER: obj["metadata"]["name"]}), names.CONTAINER_IMPORT):
            brought = imported.parse(message)
            if brought and brought.adapter:
                yield brought.adapter.digest


def _last_words(pods: list[Pod], container: str) -> list[str]:
    found = [pod.container(container) for pod in pods]
    return [item.ended.message for item in found if item and item.ended]


def _messages(ctx: Context, namespace: str, job: Object) -> list[str]:
    pods = [pod for pod in observe.pods(ctx, namespace, {names.LABEL_SWEEP: "true"}) if pod.controller == job["metadata"]["uid"]]
    return _last_words(sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True), names.CONTAINER_SWEEP)


def _number(job: Object) -> int:
    tail = str(job["metadata"]["name"]).rpartition("-")[2]
    return int(tail) if tail.isdecimal() else 0


def _oldest(ctx: Context, namespace: str) -> datetime | None:
    created = [parse_rfc3339(obj["metadata"]["creationTimestamp"]) for obj in ctx.mirror.list("LoRAAdapter", namespace)]
    return min(created, default=None)


def _last(ctx: Context, key: Key, job: Object) -> sweep.Last:
    facts = job_facts(job)
    ended = facts.complete_at or facts.failed_at
    found = [number for message in _messages(ctx, key.namespace, job) if (number := swept.waiting(message)) is not None]
    return sweep.Last(
        number=_number(job),
        over=bool(ended),
        failed=facts.failed is not None,
        at=parse_rfc3339(ended or job["metadata"].get("creationTimestamp") or observe.now(ctx)),
        keep=sweep.kept(ctx.mirror.get("ConfigMap", key.namespace, job["metadata"]["name"])),
        waiting=found[0] if found else None,
    )


async def _begin(ctx: Context, key: Key, jobs: list[Object], keep: frozenset[str]) -> None:
    """Make the Job, then what it reads (its pod waits for that), and remove the Jobs before it."""
    number = _number(jobs[-1]) + 1 if jobs else 1
    try:
        job = await ctx.cluster.create(sweep.sweep_job(key.namespace, number, ctx.config))
    except AlreadyExists:  # the answer to our own create was lost, or a watch is late: the next pass sees it
        ctx.wake(key, observe.LEFTOVER_SECONDS)
        return
    await _instruct(ctx, key, job, keep)
    for old in jobs:
        await ctx.cluster.delete("Job", key.namespace, old["metadata"]["name"], uid=old["metadata"]["uid"])


async def _instruct(ctx: Context, key: Key, job: Object, keep: frozenset[str]) -> None:
    """Write what a sweep reads, once: it belongs to one Job."""
    if ctx.mirror.get("ConfigMap", key.namespace, job["metadata"]["name"]) is None:
        document = sweep.instructions(key.namespace, keep, ctx.config.store.retain_seconds)
        await ctx.cluster.apply(sweep.sweep_config_map(job, document))
