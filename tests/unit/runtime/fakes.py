"""Fakes of the outside for runtime tests: a clock moved by hand, an API server in memory, and a context made of them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from graftwork import names
from graftwork.cluster.kinds import KINDS, Key
from graftwork.cluster.mirror import Mirror
from graftwork.cluster.protocol import PeerView, PodRef
from graftwork.config import Config
from graftwork.errors import AlreadyExists, ApiError, Conflict, Invalid, NotFound
from graftwork.reconcile.context import Context

CONFIG = Config.model_validate({"images": {"engine": "engine:1", "agent": "agent:1", "trainer": "trainer:1"}, "lease": {"namespace": "graftwork"}})


async def settle() -> None:
    """Let every task that can run do so until all wait."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeClock:
    """Time that moves only by `advance`."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._start = datetime(2026, 11, 21, 13, tzinfo=UTC)
        self._timers: list[tuple[float, int, asyncio.Event]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds - 1000.0)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        await self._timer(seconds).wait()

    async def wait(self, event: asyncio.Event, timeout_seconds: float | None) -> bool:
        waiters = [asyncio.create_task(event.wait())]
        if timeout_seconds is not None:
            waiters.append(asyncio.create_task(self._timer(timeout_seconds).wait()))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move time, waking sleepers in the order of their times."""
        await settle()
        until = self.seconds + seconds
        while self._timers and self._timers[0][0] <= until:
            due, _, event = heapq.heappop(self._timers)
            self.seconds = max(self.seconds, due)
            event.set()
            await settle()
        self.seconds = until
        await settle()

    def _timer(self, seconds: float) -> asyncio.Event:
        event = asyncio.Event()
        if seconds <= 0:
            event.set()
        heapq.heappush(self._timers, (self.seconds + seconds, next(self._numbers), event))
        return event


class FakeCluster:
    """Objects in a dictionary, with resourceVersions, uids and conflicts. `writes` has (verb, kind, name); `fail` may raise before a request."""

    def __init__(self, mirror: Mirror | None = None) -> None:
        self.mirror = mirror
        self.objects: dict[Key, dict[str, Any]] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.missing: set[str] = set()  # kinds whose CRD is not installed
        self.fail: Callable[[str, str], ApiError | None] = lambda verb, kind: None
        self._versions = itertools.count(101)

    def seed(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Put an object as if somebody else had made it and a watch had told."""
        stored = self._store(obj)
        if self.mirror:
            self.mirror.put(stored)
        return stored

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        self._may("get", kind)
        return self.objects.get(Key(kind, namespace, name))

    async def serves(self, kind: str) -> bool:
        self._may("discover", kind)
        return kind not in self.missing

    async def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        self._may("list", kind)
        wanted = (labels or {}).items()
        return [
            obj
            for key, obj in self.objects.items()
            if key.kind == kind and namespace in (None, key.namespace) and wanted <= (obj["metadata"].get("labels") or {}).items()
        ]

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        known = self.objects.get(_key(obj))
        if obj["kind"] == "PersistentVolumeClaim" and known:
            _refuse_claim(known, obj)
            obj = {**obj, "status": known.get("status") or {}}
        return self._write("apply", {**obj, "metadata": {**obj["metadata"], "managedFields": [_owned(obj)]}})

    async def try_apply(self, obj: dict[str, Any]) -> None:
        self._may("apply", obj["kind"])

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if _key(obj) in self.objects:
            self._may("create", obj["kind"])
            raise AlreadyExists(f"{_key(obj)} exists")
        return self._write("create", obj)

    async def delete(self, kind: str, namespace: str, name: str, uid: str | None = None, propagation: str = "Background") -> None:
        self._may("delete", kind)
        self.writes.append(("delete", kind, name))
        known = self.objects.get(Key(kind, namespace, name))
        if known and uid in (None, known["metadata"]["uid"]):
            del self.objects[Key(kind, namespace, name)]
            if self.mirror:
                self.mirror.remove(kind, namespace, name)

    async def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], resource_version: str) -> dict[str, Any]:
        return self._change("patch_status", Key(kind, namespace, name), resource_version, status=dict(status))

    async def set_finalizers(self, kind: str, obj: dict[str, Any], finalizers: Sequence[str]) -> dict[str, Any]:
        metadata = {**obj["metadata"], "finalizers": list(finalizers)}
        return self._change("patch", _key(obj), obj["metadata"]["resourceVersion"], metadata=metadata)

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> dict[str, Any]:
        return await self.merge("Pod", namespace, name, {"metadata": {"annotations": dict(annotations)}})

    async def merge(self, kind: str, namespace: str, name: str, patch: dict[str, Any], *, request_seconds: float = 20) -> dict[str, Any]:
        self._may("patch", kind)
        known = self._known(Key(kind, namespace, name), patch.get("metadata", {}).get("resourceVersion"))
        merged = _merge(known, patch)
        return self._write("patch", merged)

    def _change(self, verb: str, key: Key, version: str, **fields: Any) -> dict[str, Any]:
        self._may(verb, key.kind)
        return self._write(verb, {**self._known(key, version), **fields})

    def _known(self, key: Key, version: str | None) -> dict[str, Any]:
        known = self.objects.get(key)
        if known is None:
            raise NotFound(f"{key} not found")
        if version and version != known["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} is not of version {version}")
        return known

    def _write(self, verb: str, obj: dict[str, Any]) -> dict[str, Any]:
        self._may(verb, obj["kind"])
        self.writes.append((verb, obj["kind"], obj["metadata"]["name"]))
        stored = self._store(obj)
        if self.mirror:
            self.mirror.put(stored, written=True)
        return stored

    def _store(self, obj: dict[str, Any]) -> dict[str, Any]:
        key = _key(obj)
        known = self.objects.get(key)
        uid = known["metadata"]["uid"] if known else obj["metadata"].get("uid") or f"uid-{key.name}-{next(self._versions)}"
        metadata = {**obj["metadata"], "uid": uid, "resourceVersion": str(next(self._versions))}
        self.objects[key] = {**obj, "metadata": metadata}
        return self.objects[key]

    def _may(self, verb: str, kind: str) -> None:
        missing = NotFound("the server could not find the requested resource") if kind in self.missing and verb == "apply" else None
        error = self.fail(verb, kind) or missing
        if error:
            raise error


class FakeEvents:
    """Keeps what was recorded: (kind/name, reason, message)."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, str]] = []

    def record(self, obj: dict[str, Any], reason: str, message: str, *, warning: bool = False) -> None:
        self.recorded.append((f"{obj['kind']}/{obj['metadata']['name']}", str(reason), message))


class FakePeers:
    """Views by pod uid, set by the test; `watched` has the last list by resource."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.views: dict[str, PeerView] = {}
        self.watched: dict[Key, list[PodRef]] = {}

    def watch(self, key: Key, pods: Sequence[PodRef]) -> None:
        self.watched[key] = list(pods)

    def get(self, pod_uid: str) -> PeerView:
        return self.views.get(pod_uid, PeerView(None, False, self.clock.now()))


def new_context(config: Config = CONFIG) -> Context:
    """Return a context of fakes; `wake` does nothing until a Runner replaces it."""
    clock, mirror = FakeClock(), Mirror()
    peers = [FakePeers(clock) for _ in range(3)]
    return Context(FakeCluster(mirror), mirror, config, clock, FakeEvents(), *peers, lambda key, after=0: None)


def obj_of(kind: str, name: str = "one", namespace: str = "ml", **metadata: Any) -> dict[str, Any]:
    """Return an object of a kind with the label that the mirror asks of children."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGER, **metadata.pop("labels", {})}
    return {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "resourceVersion": "1", "labels": labels, **metadata},
    }


def _key(obj: dict[str, Any]) -> Key:
    return Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


def _refuse_claim(known: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse what the API server refuses of a claim: any change, but a first class, and a larger request of one that has its volume."""
    before, after = ({"storageClassName": wanted["spec"].get("storageClassName"), **known["spec"]}, {"storageClassName": None, **wanted["spec"]})
    if (known.get("status") or {}).get("phase") == "Bound":
        before, after = ({**item, "resources": None} for item in (before, after))
    if before != after:
        raise Invalid("spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims")


def _merge(base: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _owned(obj: dict[str, Any]) -> dict[str, Any]:
    return {
        "manager": names.FIELD_MANAGER,
        "operation": "Apply",
        "fieldsV1": field_set({k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}),
    }


def field_set(value: Any) -> dict[str, Any]:
    """Return the field set of a manifest, with lists as leaves, and without what identifies the object (the API server leaves that out too)."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{key}": field_set(child) for key, child in value.items() if key not in ("name", "namespace", "uid", "resourceVersion")}
