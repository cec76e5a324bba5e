"""One asyncio task per resource: when a pass begins, what a failure does, and how everything stops."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from graftwork.cluster import metrics
from graftwork.cluster.kinds import Key
from graftwork.errors import Conflict, Forbidden, Unavailable
from graftwork.reasons import Reason
from graftwork.reconcile.backoff import Backoff
from graftwork.reconcile.context import Context, Reconciler, Result

logger = logging.getLogger(__name__)

PARALLEL_PASSES = 16
PASS_SECONDS = 120.0
CONFLICT_SECONDS = 0.05
ERROR_FLOOR_SECONDS = 1.0
RESYNC_JITTER = 0.1


@dataclass
class _Resource:
    """What the engine knows of one resource. Times are the clock's monotonic seconds; `due` None means: no wish but the slow resync."""

    key: Key
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    due: float | None = None
    woken_at: float | None = None
    not_before: float = 0.0
    running_since: float | None = None
    last_error: str = ""
    errors: Backoff = field(default_factory=Backoff)
    conflicts: Backoff = field(default_factory=lambda: Backoff(first=CONFLICT_SECONDS, most=5.0))
    task: asyncio.Task[None] | None = None


class Runner:
    """Runs reconcilers. A resource's task begins with its first wake and ends when its reconciler says that the resource is gone."""

    def __init__(self, reconcilers: Mapping[str, Reconciler], ctx: Context, *, parallel: int = PARALLEL_PASSES, seed: int | None = None) -> None:
        """Take one reconciler per kind; `ctx.wake` is replaced by this runner's."""
        self._reconcilers = reconcilers
        self._ctx = replace(ctx, wake=self.wake)
        self._clock = ctx.clock
        self._resources: dict[Key, _Resource] = {}
        self._slots = asyncio.Semaphore(parallel)
        self._random = random.Random(seed)  # noqa: S311 - jitter
        self._stopping = False

    def wake(self, key: Key, after: float = 0) -> None:
        """Ask for a pass of the resource, now or after so many seconds; several wishes make one pass, at the earliest of their times."""
        if self._stopping or key.kind not in self._reconcilers:
            return
        resource = self._resources.get(key)
        if resource is None:
            resource = self._resources[key] = _Resource(key)
            resource.task = asyncio.create_task(self._run(resource), name=f"reconcile {key}")
            metrics.RESOURCES.labels(key.kind).inc()
        now = self._clock.monotonic()
        if resource.due is None or now + after < resource.due:
            resource.due = now + after
        if after <= 0 and resource.woken_at is None:
            resource.woken_at = now
        resource.woken.set()

    def longest_pass_seconds(self) -> float:
        """Return how long the longest pass that runs now has been running; 0 if none runs."""
        now = self._clock.monotonic()
        return max((now - each.running_since for each in self._resources.values() if each.running_since is not None), default=0.0)

    async def stop(self, timeout_seconds: float) -> None:
        """Begin no more passes, give those that run so many seconds, then cancel them."""
        self._stopping = True
        running = [each.task for each in self._resources.values() if each.task and each.running_since is not None]
        for each in self._resources.values():
            if each.task and each.running_since is None:
                each.task.cancel()
        if running:
            _, pending = await asyncio.wait(running, timeout=timeout_seconds)
            for task in pending:
                task.cancel()
        await asyncio.gather(*(each.task for each in self._resources.values() if each.task), return_exceptions=True)

    async def _run(self, resource: _Resource) -> None:
        try:
            while not self._stopping:
                await self._until_due(resource)
                async with self._slots:
                    if self._stopping:
                        return
                    gone = await self._pass(resource)
                if gone and resource.due is None:
                    return
        finally:
            self._forget(resource)

    async def _until_due(self, resource: _Resource) -> None:
        resync = self._ctx.config.resync_seconds * self._random.uniform(1 - RESYNC_JITTER, 1 + RESYNC_JITTER)
        at_latest = self._clock.monotonic() + resync
        while True:
            resource.woken.clear()
            due = at_latest if resource.due is None else min(resource.due, at_latest)
            wait_seconds = max(due, resource.not_before) - self._clock.monotonic()
            if wait_seconds <= 0:
                return
            await self._clock.wait(resource.woken, wait_seconds)

    async def _pass(self, resource: _Resource) -> bool:
        """Run one pass; return whether the resource is gone. A wake from here on asks for one more pass."""
        kind, now = resource.key.kind, self._clock.monotonic()
        if resource.woken_at is not None:
            metrics.WAKE_SECONDS.labels(kind).observe(now - resource.woken_at)
        resource.due, resource.woken_at, resource.not_before = None, None, 0.0
        resource.running_since = now
        result = Result()
        try:
            async with asyncio.timeout(PASS_SECONDS):
                result = await self._reconcilers[kind].reconcile(resource.key, self._ctx)
        except Conflict as error:
            self._after_conflict(resource, error)
        except Exception as error:  # noqa: BLE001 - one resource's error is that resource's alone
            self._after_error(resource, error)
        else:
            self._after_success(resource, result)
        finally:
            metrics.PASS_SECONDS.labels(kind).observe(self._clock.monotonic() - now)
            resource.running_since = None
        return result.gone

    def _after_success(self, resource: _Resource, result: Result) -> None:
        metrics.PASSES.labels(resource.key.kind, "ok").inc()
        if resource.last_error:
            logger.info("%s: recovered", resource.key)
            metrics.FAILING.labels(resource.key.kind).dec()
        resource.last_error = ""
        resource.errors.reset()
        resource.conflicts.reset()
        if result.requeue_after_seconds is not None and not result.gone:
            self.wake(resource.key, max(result.requeue_after_seconds, 0.001))

    def _after_conflict(self, resource: _Resource, error: Conflict) -> None:
        metrics.PASSES.labels(resource.key.kind, "conflict").inc()
        delay = resource.conflicts.next_delay()
        logger.debug("%s: changed while it was decided upon, again in %.2f s (%s)", resource.key, delay, error)
        self._retry(resource, delay, delay)

    def _after_error(self, resource: _Resource, error: Exception) -> None:
        metrics.PASSES.labels(resource.key.kind, "error").inc()
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"the pass did not end within {PASS_SECONDS:g} s")
        text = f"{type(error).__name__}: {error}"
        delay = resource.errors.next_delay()
        if text != resource.last_error:
            expected = isinstance(error, Unavailable | Forbidden)
            logger.error("%s: %s (tried again with backoff)", resource.key, text, exc_info=None if expected else error)
            if not resource.last_error:
                metrics.FAILING.labels(resource.key.kind).inc()
            obj = self._ctx.mirror.get(resource.key.kind, resource.key.namespace, resource.key.name)
            if obj is not None and not isinstance(error, Unavailable):
                self._ctx.events.record(obj, Reason.RECONCILE_FAILED, text, warning=True)
        else:
            logger.debug("%s: %s, again in %.1f s", resource.key, text, delay)
        resource.last_error = text
        self._retry(resource, delay, min(delay, ERROR_FLOOR_SECONDS))

    def _retry(self, resource: _Resource, delay: float, floor: float) -> None:
        """Ask for a pass after the delay; a wake may bring it forward, but not before the floor, or a flapping child would undo the backoff."""
        resource.not_before = self._clock.monotonic() + floor
        self.wake(resource.key, delay)

    def _forget(self, resource: _Resource) -> None:
        self._resources.pop(resource.key, None)
        metrics.RESOURCES.labels(resource.key.kind).dec()
        if resource.last_error:
            metrics.FAILING.labels(resource.key.kind).dec()
        self._ctx.agents.watch(resource.key, [])
        self._ctx.trainers.watch(resource.key, [])
        self._ctx.fills.watch(resource.key, [])
