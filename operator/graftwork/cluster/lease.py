"""The Lease that lets one operator act at a time.

Like every leader election on Leases it trusts no clock but its own: a holder is taken for dead when its record has not changed for the
whole duration *as we watched it*. The holder stops (`LeaseLost`) a margin before anybody else may take over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from datetime import datetime
from typing import Protocol

from graftwork.clock import Clock, rfc3339
from graftwork.cluster import metrics
from graftwork.cluster.protocol import Object
from graftwork.config import LeaseConfig
from graftwork.errors import AlreadyExists, ApiError, Conflict, LeaseLost

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
MARGIN_SECONDS = 2.0


class LeaseApi(Protocol):
    """The part of `Cluster` that a Lease needs."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object."""
        ...

    async def create(self, obj: Object) -> Object:
        """Create."""
        ...

    async def merge(self, kind: str, namespace: str, name: str, patch: Object, *, request_seconds: float = 20.0) -> Object:
        """Merge-patch."""
        ...


def identity() -> str:
    """Return who we are: the pod and its uid in a cluster (a restarted container is the same holder and need not wait), else host and a random id."""
    pod, uid = os.environ.get("POD_NAME", ""), os.environ.get("POD_UID", "")
    if pod and uid:
        return f"{pod}_{uid}"
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"


class Lease:
    """Acquire, then run `keep` as a task; when it raises LeaseLost, end the process without writing anything more."""

    def __init__(self, cluster: LeaseApi, clock: Clock, config: LeaseConfig, holder: str) -> None:
        """`holder` is what stands in holderIdentity."""
        self._cluster = cluster
        self._clock = clock
        self._config = config
        self._holder = holder
        self._observed: tuple[str, float] = ("", 0.0)
        self._version = ""
        self._renewed_at: float | None = None
        self.waiting_for_api = True

    @property
    def held(self) -> bool:
        """Return whether we hold the Lease now, with time left on it."""
        return self._renewed_at is not None and self._clock.monotonic() < self._expires()

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        told = ""
        while True:
            try:
                other = await self._try()
                self.waiting_for_api = False
            except Conflict:
                other = "another process that was quicker"
            except ApiError as error:
                self.waiting_for_api = True
                other = f"the API server: {error}"
            if other is None:
                metrics.LEASE_HELD.set(1)
                logger.info("lease %s/%s acquired by %s", self._config.namespace, self._config.name, self._holder)
                return
            if other != told:
                logger.info("waiting for lease %s/%s: %s", self._config.namespace, self._config.name, other)
                told = other
            await self._clock.sleep(RETRY_SECONDS)

    async def keep(self) -> None:
        """Renew until cancelled; LeaseLost when another process has it, or when it could not be renewed in time."""
        try:
            while True:
                await self._clock.sleep(self._config.renew_seconds)
                await self._renew()
        finally:
            metrics.LEASE_HELD.set(0)

    async def release(self) -> None:
        """Give the Lease up so that the next process need not wait; never raises."""
        if not self.held:
            return
        self._renewed_at = None
        try:
            try:
                await self._clear()
            except Conflict:  # a renewal was under way when we were told to stop
                await self._look()
                await self._clear()
            logger.info("lease %s/%s released", self._config.namespace, self._config.name)
        except (ApiError, LeaseLost) as error:
            logger.warning("lease %s/%s not released, it will expire: %s", self._config.namespace, self._config.name, error)

    async def _clear(self) -> None:
        patch = {"metadata": {"resourceVersion": self._version}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
        await self._cluster.merge("Lease", self._config.namespace, self._config.name, patch, request_seconds=3)

    async def _try(self) -> str | None:
        """Take the Lease if it is free; None if it is ours now, else who has it."""
        live = await self._cluster.get("Lease", self._config.namespace, self._config.name)
        asked = self._clock.monotonic()
        if live is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"namespace": self._config.namespace, "name": self._config.name},
            }
            try:
                self._took(await self._cluster.create({**body, "spec": self._spec(0, self._clock.now())}), asked)
            except AlreadyExists:
                return "another process that was quicker"
            return None
        spec = live.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._holder and not self._expired(live, asked):
            return f"{holder} holds it"
        transitions = int(spec.get("leaseTransitions") or 0) + (holder != self._holder)
        patch = {"metadata": {"resourceVersion": live["metadata"]["resourceVersion"]}, "spec": self._spec(transitions, self._clock.now())}
        self._took(await self._cluster.merge("Lease", self._config.namespace, self._config.name, patch, request_seconds=5), asked)
        return None

    def _expired(self, live: Object, now: float) -> bool:
        version = live["metadata"]["resourceVersion"]
        if self._observed[0] != version:
            self._observed = (version, now)
        duration = float((live.get("spec") or {}).get("leaseDurationSeconds") or self._config.duration_seconds)
        return now - self._observed[1] >= duration

    async def _renew(self) -> None:
        """Renew once, trying again until it succeeds or the time is over."""
        last = ""
        while True:
            asked = self._clock.monotonic()
            left = self._expires() - asked
            if left <= 0:
                raise LeaseLost(
                    f"lease {self._config.namespace}/{self._config.name} could not be renewed in time: {last or 'the process was held up'}"
                )
            patch = {
                "metadata": {"resourceVersion": self._version},
                "spec": {"holderIdentity": self._holder, "renewTime": rfc3339(self._clock.now())},
            }
            try:
                async with asyncio.timeout(left):
                    written = await self._cluster.merge("Lease", self._config.namespace, self._config.name, patch, request_seconds=min(left, 5.0))
            except Conflict:
                await self._look()
            except (ApiError, TimeoutError) as error:
                last = str(error) or "no answer"
                await self._clock.sleep(1.0)
            else:
                self._took(written, asked)
                return

    async def _look(self) -> None:
        """After a conflict: somebody wrote the Lease. If it is still ours (an annotation, say) go on with its new version."""
        try:
            live = await self._cluster.get("Lease", self._config.namespace, self._config.name)
        except ApiError:
            await self._clock.sleep(1.0)
            return
        holder = ((live or {}).get("spec") or {}).get("holderIdentity")
        if live is None or holder != self._holder:
            raise LeaseLost(f"lease {self._config.namespace}/{self._config.name} was taken by {holder or 'nobody: it was deleted or cleared'}")
        self._version = live["metadata"]["resourceVersion"]

    def _took(self, written: Object, asked: float) -> None:
        self._version = written["metadata"]["resourceVersion"]
        self._renewed_at = asked  # from before the request: others count from after it

    def _expires(self) -> float:
        assert self._renewed_at is not None
        return self._renewed_at + self._config.duration_seconds - min(MARGIN_SECONDS, self._config.duration_seconds / 4)

    def _spec(self, transitions: int, moment: datetime) -> Object:
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(self._config.duration_seconds),
            "acquireTime": rfc3339(moment),
            "renewTime": rfc3339(moment),
            "leaseTransitions": transitions,
        }
