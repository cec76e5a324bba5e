"""Complete listings: once before anything acts, then now and then to find what no watch told."""

from __future__ import annotations

import asyncio
import logging
import random

from graftwork.clock import Clock
from graftwork.cluster import metrics
from graftwork.cluster.client import Cluster
from graftwork.cluster.kinds import WATCHED
from graftwork.cluster.mirror import Mirror
from graftwork.errors import ApiError, NotFound
from graftwork.reconcile.backoff import Backoff

logger = logging.getLogger(__name__)

FIRST_AUDIT_SECONDS = 5.0
SETTLE_SECONDS = 1.0
RETRY_SECONDS = 10.0


class Audit:
    """Compares the mirror with complete listings of each kind."""

    def __init__(self, cluster: Cluster, mirror: Mirror, clock: Clock, namespaces: tuple[str, ...], period_seconds: float) -> None:
        """`namespaces` empty means all."""
        self._cluster = cluster
        self._mirror = mirror
        self._clock = clock
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._period_seconds = period_seconds
        self._wanted: set[str] = set()
        self._listed_once: set[str] = set()
        self._wish = asyncio.Event()

    async def fill(self) -> None:
        """List every watched kind; trying again until the API server answers and all our kinds are installed."""
        backoff, told = Backoff(first=0.5, most=15.0), ""
        while True:
            try:
                for kind in WATCHED:
                    await self._list(kind.name)
            except ApiError as error:
                remedy = " Are the CRDs installed (chart graftwork-crds)?" if isinstance(error, NotFound) else ""
                if str(error) != told:
                    logger.error("nothing is reconciled before everything has been listed: %s.%s Trying again", error, remedy)
                    told = str(error)
                await self._clock.sleep(backoff.next_delay())
            else:
                self._mirror.synced.set()
                return

    def relisted(self, kind: str) -> None:
        """Ask for an audit soon: a kind's watch began anew, and deletions in between are told by nobody.

        All kinds are audited then: watches mostly break together, and one that listed nothing (all of its objects are gone) says nothing.
        """
        self._wanted.add(kind)
        self._wish.set()

    async def run(self) -> None:
        """Audit what was asked for, and everything shortly after the start and in every period, until cancelled."""
        due = self._clock.monotonic() + FIRST_AUDIT_SECONDS
        while True:
            await self._clock.wait(self._wish, max(due - self._clock.monotonic(), 0.0))
            if self._wish.is_set():
                await self._clock.sleep(SETTLE_SECONDS)
            self._wish.clear()
            kinds, self._wanted = self._wanted, set()
            for kind in kinds & self._listed_once:
                metrics.WATCH_RESTARTS.labels(kind).inc()
            self._listed_once |= kinds
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + self._period_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            complete = [await self._audit(kind.name) for kind in WATCHED]
            if not all(complete):  # what was asked for is still to be done
                due = min(due, self._clock.monotonic() + RETRY_SECONDS)

    async def _audit(self, kind: str) -> bool:
        """Compare one kind; return whether it could be listed."""
        try:
            repaired = await self._list(kind)
        except ApiError as error:
            logger.warning("%s was not audited: %s", kind, error)
            return False
        if repaired:
            metrics.MIRROR_REPAIRS.labels(kind).inc(repaired)
            logger.info("%s: a complete listing had %d changes that no watch had told yet", kind, repaired)
        return True

    async def _list(self, kind: str) -> int:
        changed = 0
        for namespace in self._namespaces:
            items, version = await self._cluster.listing(kind, namespace, _SELECTORS[kind])
            changed += self._mirror.replace(kind, namespace, items, version)
        return changed


_SELECTORS = {kind.name: kind.label_selector for kind in WATCHED}
