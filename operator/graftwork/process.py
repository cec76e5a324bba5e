"""The parts of the operator put together: who starts when, what ends the process, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from graftwork.clock import Clock, SystemClock
from graftwork.cluster.agent import AgentWatcher
from graftwork.cluster.client import Cluster
from graftwork.cluster.connect import connect
from graftwork.cluster.events import EventRecorder
from graftwork.cluster.filler import FillWatcher
from graftwork.cluster.kinds import SWEEP
from graftwork.cluster.lease import Lease, identity
from graftwork.cluster.mirror import Change, Mirror
from graftwork.cluster.peers import new_session
from graftwork.cluster.prometheus import Prometheus
from graftwork.cluster.trainer import TrainerWatcher
from graftwork.config import Config
from graftwork.errors import LeaseLost
from graftwork.handlers.audit import Audit
from graftwork.handlers.routes import concerned, standing
from graftwork.handlers.watch import Watches
from graftwork.health import Health
from graftwork.reconcile.context import Context, Reconciler
from graftwork.reconcile.runner import Runner

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0
PASS_LIMIT_SECONDS = 300.0
WATCHES_START_SECONDS = 30.0


def reconcilers() -> dict[str, Reconciler]:
    """Return the reconciler of each of our kinds, and of the tasks that belong to a namespace."""
    from graftwork.reconcile.finetunejob import FineTuneJobReconciler
    from graftwork.reconcile.llmdeployment import LLMDeploymentReconciler
    from graftwork.reconcile.loraadapter import LoRAAdapterReconciler
    from graftwork.reconcile.sweep import SweepReconciler

    return {
        "LLMDeployment": LLMDeploymentReconciler(),
        "FineTuneJob": FineTuneJobReconciler(),
        "LoRAAdapter": LoRAAdapterReconciler(),
        SWEEP: SweepReconciler(),
    }


class Process:
    """One operator. `run` returns the exit code, or raises LeaseLost: then nothing more may be written."""

    def __init__(
        self, config: Config, by_kind: Mapping[str, Reconciler], lost: Callable[[LeaseLost], None] | None = None, clock: Clock | None = None
    ) -> None:
        """`lost` is called at once when the Lease is lost; it should not return."""
        self.config = config
        self._lost = lost
        self.clock = clock or SystemClock()
        self.mirror = Mirror()
        self.health = Health(self.clock)
        self.port = 0
        self._by_kind = by_kind
        self._stop = asyncio.Event()
        self._kopf_stop = asyncio.Event()
        self._essential: set[asyncio.Task[Any]] = set()
        self._closing: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def stop(self) -> None:
        """Ask `run` to end in order; may be called from a signal handler."""
        self._stop.set()

    async def run(self, watching: Callable[[], None] | None = None) -> int:
        """Serve /healthz, wait for the Lease, then act until told to stop. `watching` is called once all watch streams run."""
        try:
            self.port = await self.health.serve(self.config.port)
            self._closing.append(self.health.close)
            self._start("tick", self.health.tick())
            cluster = Cluster(await connect(), self.mirror)
            self._closing.append(cluster.close)
            lease = Lease(cluster, self.clock, self.config.lease, identity())
            self.health.add_ready("lease", lambda: "the API server does not answer" if lease.waiting_for_api else "")
            if await self._unless_stopped(lease.acquire()):
                return await self._lead(cluster, lease, watching)
            return 0
        finally:
            for close in reversed(self._closing):
                with contextlib.suppress(Exception):
                    await close()

    async def _lead(self, cluster: Cluster, lease: Lease, watching: Callable[[], None] | None) -> int:
        cluster.may_write = lambda: lease.held
        self._start("lease", lease.keep())
        self.health.add_live("lease", lambda: "" if lease.held else "not renewed in time")
        self.health.add_ready("mirror", lambda: "" if self.mirror.synced.is_set() else "the first listing is not complete")
        audit = Audit(cluster, self.mirror, self.clock, self.config.watch_namespaces, self.config.resync_seconds)
        runner: Runner | None = None
        code = 0
        try:
            if await self._unless_stopped(audit.fill()):
                runner = self._begin(cluster, audit)
                await self._watch(cluster, audit, watching)
                await self._unless_stopped(asyncio.Event().wait())
        except LeaseLost as error:
            if self._lost:
                self._lost(error)
            raise
        except Exception:
            logger.exception("the operator cannot go on and ends")
            code = 1
        if runner:
            await runner.stop(STOP_SECONDS)
        for task in self._essential:
            if task.get_name() != "watches":
                task.cancel()
        await lease.release()
        self._kopf_stop.set()
        await asyncio.wait(self._essential, timeout=3)
        return code

    def _begin(self, cluster: Cluster, audit: Audit) -> Runner:
        """Start reconciling; the mirror is complete."""
        events = EventRecorder(cluster, self.clock, identity())
        session = new_session()
        runner: Runner

        def wake(key: Any, after: float = 0) -> None:
            runner.wake(key, after)

        agents = AgentWatcher(wake, self.clock, session)
        trainers = TrainerWatcher(wake, self.clock, session)
        fills = FillWatcher(wake, self.clock, session)
        self._closing += [session.close, fills.close, trainers.close, agents.close]
        prometheus = Prometheus(self.config.prometheus.url, wake, self.clock) if self.config.prometheus.url else None
        self._closing += [prometheus.close] if prometheus else []
        context = Context(cluster, self.mirror, self.config, self.clock, events, agents, trainers, fills, wake, prometheus)
        runner = Runner(self._by_kind, context)

        def changed(change: Change) -> None:
            for key in concerned(change, self.mirror):
                runner.wake(key)

        self.mirror.subscribe(changed)
        self._start("events", events.run())
        self._start("audit", audit.run())
        self.health.add_live("passes", lambda: _too_long(runner.longest_pass_seconds()))
        for key in standing(self.mirror):
            runner.wake(key)
        return runner

    async def _watch(self, cluster: Cluster, audit: Audit, watching: Callable[[], None] | None) -> None:
        watches = Watches(self.mirror, audit.relisted, cluster.configuration, self.config.watch_namespaces)
        self._start("watches", watches.run(self._kopf_stop))
        begun = self.clock.monotonic()

        def missing() -> str:
            count = watches.missing()
            return f"{count} watch streams do not run" if count and self.clock.monotonic() - begun > WATCHES_START_SECONDS else ""

        self.health.add_live("watches", missing)
        while watches.missing() and await self._unless_stopped(self.clock.sleep(0.1)):
            pass
        if watching:
            watching()

    def _start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        self._essential.add(asyncio.create_task(work, name=name))

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do the work; False if told to stop meanwhile; raises if an essential task ends, which none should."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({task, stop, *self._essential}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            task.cancel()
        ended = done & self._essential
        for each in sorted(ended, key=lambda each: each.get_name() != "lease"):
            each.result()
            if each.get_name() == "watches":  # kopf returns without an error only when told to: by us, or by a signal before our handlers were back
                self.stop()
            if not self._stop.is_set():
                raise RuntimeError(f"{each.get_name()} ended")
        if ended or stop in done:
            return False
        if task in done:
            task.result()
        return True


def _too_long(seconds: float) -> str:
    return f"a pass has been running for {seconds:.0f} s" if seconds > PASS_LIMIT_SECONDS else ""
