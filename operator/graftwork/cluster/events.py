"""Kubernetes Events, written in the background and never twice for the same news."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict

from graftwork import names
from graftwork.clock import Clock, rfc3339
from graftwork.cluster import metrics
from graftwork.cluster.protocol import ClusterApi, Object
from graftwork.errors import AlreadyExists, ApiError

logger = logging.getLogger(__name__)

QUIET_SECONDS = 1800.0
REMEMBERED = 8192
WAITING = 512
NOTE_LIMIT = 1000
ACTION = "Reconcile"


class EventRecorder:
    """Writes Events one after another; run `run()` as a task.

    The same (object, reason, message) is dropped while it keeps coming with less than `QUIET_SECONDS` between two times, so a pass that
    repeats itself writes nothing.
    """

    def __init__(self, cluster: ClusterApi, clock: Clock, instance: str) -> None:
        """`instance` names this process in the Events (its pod)."""
        self._cluster = cluster
        self._clock = clock
        self._instance = instance[:128]
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._queue: asyncio.Queue[Object] = asyncio.Queue(WAITING)

    def record(self, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event about an object; never raises, never waits."""
        news = (obj["metadata"]["uid"], str(reason), message)
        now = self._clock.monotonic()
        last = self._seen.pop(news, None)
        self._seen[news] = now
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if last is not None and now - last < QUIET_SECONDS:
            return
        try:
            self._queue.put_nowait(self._event(obj, str(reason), message, "Warning" if warning else "Normal"))
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.inc()

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._cluster.create(event)
            except AlreadyExists:
                pass
            except ApiError as error:  # an Event is a courtesy: it is not tried again
                metrics.EVENTS_DROPPED.inc()
                logger.debug("an Event was not written: %s", error)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until everything recorded so far was tried."""
        await self._queue.join()

    def _event(self, obj: Object, reason: str, message: str, kind: str) -> Object:
        metadata = obj["metadata"]
        moment = rfc3339(self._clock.now())
        digest = hashlib.sha256("\0".join((metadata["uid"], reason, message, moment)).encode()).hexdigest()[:16]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name'][:200]}.{digest}"},
            "eventTime": moment,
            "type": kind,
            "reason": reason,
            "note": message if len(message) <= NOTE_LIMIT else message[: NOTE_LIMIT - 1] + "…",
            "action": ACTION,
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
