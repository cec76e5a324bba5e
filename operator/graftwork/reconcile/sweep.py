"""Sweeping the store of a namespace: nobody's object, so its task has a key of its own and its memory is the newest Job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from graftwork import names
from graftwork.clock import parse_rfc3339
from graftwork.errors import AlreadyExists, Forbidden, NameTaken, NotFound
from graftwork.facts import imported, result, swept
from graftwork.facts.pods import Pod
from graftwork.plan import adapters_file, sweep
from graftwork.reconcile import observe
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.status.training import TERMINAL, job_facts

logger = logging.getLogger(__name__)


_NAMES_TRIED = 10
_TERMINATING = "because it is being terminated"
"""How the API server refuses to make anything in a namespace that is being deleted; it has no code of its own."""


class SweepReconciler:
    """One pass for one namespace."""

    def __init__(self) -> None:
        self._seen: dict[Key, frozenset[str]] = {}
        self._told: dict[Key, str] = {}
        self._installation = ""

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Make the next sweep when it is due, at most one at a time."""
        if not ctx.config.store.url:
            return Result(gone=True)
        try:
            result = await self._pass(key, ctx)
        except (Forbidden, NotFound) as error:
            if isinstance(error, Forbidden) and _TERMINATING not in str(error):
                raise
            result = Result(gone=True)  # the namespace is deleted: no Job can run there, so what it has in the store stays
        if result.gone:
            self._seen.pop(key, None)
            self._told.pop(key, None)
        return result

    async def _pass(self, key: Key, ctx: Context) -> Result:
        keep = frozenset(_references(ctx, key.namespace))
        jobs = sorted(ctx.mirror.list("Job", key.namespace, {names.LABEL_SWEEP: "true"}), key=_number)
        last = _last(ctx, key, jobs[-1]) if jobs else None
        lost = bool(self._seen.get(key, frozenset()) - keep)
        if last and last.over:
            self._tell(ctx, key, jobs[-1], last)
        if last and not last.over:
            await self._instruct(ctx, key, jobs[-1], keep)
        wait = sweep.due(ctx.clock.now(), keep, last, oldest=_oldest(ctx, key.namespace), lost=lost, retain_seconds=ctx.config.store.retain_seconds)
        self._seen[key] = self._seen.get(key, frozenset()) | keep  # what goes is remembered until a sweep begins
        if wait is None:
            return Result(gone=not (keep or jobs))
        if wait.total_seconds() > 0:
            return Result(requeue_after_seconds=wait.total_seconds())
        await self._begin(ctx, key, jobs, keep)
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
        said = swept.words(text) or "no message"
        logger.log(level, "sweep of namespace %s, Job %s: %s", key.namespace, job["metadata"]["name"], said)
        reason = swept.reason(text)
        if last.failed and reason:
            ctx.events.record(job, str(reason), said, warning=True)

    async def _begin(self, ctx: Context, key: Key, jobs: list[Object], keep: frozenset[str]) -> None:
        """Make the Job, then what it reads (its pod waits for that), and remove the Jobs before it."""
        first = _number(jobs[-1]) + 1 if jobs else 1
        for number in range(first, first + _NAMES_TRIED):
            try:
                job = await ctx.cluster.create(sweep.sweep_job(key.namespace, number, ctx.config))
            except AlreadyExists:
                live = await ctx.cluster.get("Job", key.namespace, names.sweep_job(number))
                if live is None or _is_sweep(live):  # the answer to our own create was lost, or a watch is late: the next pass sees it
                    ctx.wake(key, observe.LEFTOVER_SECONDS)
                    return
                continue  # somebody else's
            await self._instruct(ctx, key, job, keep)
            for old in jobs:
                await ctx.cluster.delete("Job", key.namespace, old["metadata"]["name"], uid=old["metadata"]["uid"])
            return
        raise NameTaken("Job", key.namespace, names.sweep_job(first), "somebody else, and the names after it as well")

    async def _instruct(self, ctx: Context, key: Key, job: Object, keep: frozenset[str]) -> None:
        """Write what a sweep reads, and write it again when more is to be kept: the sweep looks before each removal."""
        found = ctx.mirror.get("ConfigMap", key.namespace, job["metadata"]["name"])
        told = sweep.kept(found)
        if found is None or keep - told:
            owner = await self._owner(ctx)
            document = sweep.instructions(key.namespace, owner, keep | told, ctx.config.store.retain_seconds)
            await ctx.cluster.apply(sweep.sweep_config_map(job, document))

    async def _owner(self, ctx: Context) -> str:
        """Return who we are to other installations that use the store."""
        if not self._installation:
            lease = ctx.config.lease
            found = await ctx.cluster.get("Namespace", "", lease.namespace)
            if found is None:
                raise RuntimeError(f"namespace {lease.namespace} of the operator's Lease does not exist")
            self._installation = sweep.installation(lease, found["metadata"]["uid"])
        return self._installation


def _references(ctx: Context, namespace: str) -> Iterator[str]:
    """Yield every digest that something refers to, or is about to: LoRAAdapters as they are written, runs and imports that have just ended."""
    for obj in ctx.mirror.list("LoRAAdapter", None):
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        of_here = str(spec.get("source") or "").startswith(f"{names.STORE_SCHEME}{namespace}/")  # another namespace may serve our files
        if of_here or obj["metadata"]["namespace"] == namespace:
            yield from (str(part["digest"]) for part in (spec, status) if part.get("digest"))
    for obj in ctx.mirror.list("LLMDeployment", None):  # what pods were told to load may have to be fetched again, whoever has deleted it since
        metadata = obj["metadata"]
        told = adapters_file.digests(ctx.mirror.get("ConfigMap", metadata["namespace"], names.adapters_config_map(metadata["name"])))
        yield from (digest for source, digest in told if source.startswith(f"{names.STORE_SCHEME}{namespace}/"))
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


def _is_sweep(job: Object) -> bool:
    labels = job["metadata"].get("labels") or {}
    return labels.get(names.LABEL_MANAGED_BY) == names.MANAGER and names.LABEL_SWEEP in labels


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
