"""What reconcilers may ask of the outside, as protocols: tests put fakes behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from graftwork.cluster.kinds import Key
from graftwork.facts.canary import Observation, Question

Object = dict[str, Any]
Objects = list[Object]  # a name of its own, because the protocols below have methods called `list`


class ClusterApi(Protocol):
    """The API server. Kinds are those of `kinds.KINDS`; objects are plain dicts with apiVersion and kind.

    Every method may raise Forbidden, Invalid or Unavailable besides what it names. What a method returns of a watched kind is in the
    mirror before it returns.
    """

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object from the API server; None if there is none."""
        ...

    async def serves(self, kind: str) -> bool:
        """Ask whether the API server has the kind at all: the CRD of an optional one may not be installed."""
        ...

    async def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> Objects:
        """Read all objects of a namespace (None: of all namespaces) whose labels have these values."""
        ...

    async def apply(self, obj: Object) -> Object:
        """Server-side apply as manager `graftwork`, with force; creates or changes. Prefer `children.apply_children`, which diffs first."""
        ...

    async def try_apply(self, obj: Object) -> None:
        """Ask whether `apply` would be taken, and change nothing; raises Invalid or Forbidden if it would not."""
        ...

    async def create(self, obj: Object) -> Object:
        """Create; AlreadyExists if the name is taken."""
        ...

    async def delete(self, kind: str, namespace: str, name: str, uid: str | None = None, propagation: str = "Background") -> None:
        """Delete, only if the object has that uid; an object that is gone already, or another one of that name, is no error."""
        ...

    async def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], resource_version: str) -> Object:
        """Replace the whole status; Conflict if the object is not of that resourceVersion any more, NotFound if it is gone."""
        ...

    async def set_finalizers(self, kind: str, obj: Object, finalizers: Sequence[str]) -> Object:
        """Set exactly these finalizers; Conflict if the object changed since `obj` was read, NotFound if it is gone."""
        ...

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> Object:
        """Set (or, by None, remove) annotations of a pod and nothing else; NotFound if it is gone."""
        ...


class MirrorApi(Protocol):
    """The last seen state of the watched kinds. What it returns is shared: never change it; copy first."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return the object as last seen or written; None if there is none (for children: none with our managed-by label)."""
        ...

    def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> Objects:
        """Return the objects of a namespace (None: of all), by name, whose labels have these values."""
        ...


@dataclass(frozen=True)
class PodRef:
    """A pod that serves an HTTP contract of ours."""

    namespace: str
    name: str
    uid: str
    ip: str


@dataclass(frozen=True)
class PeerView:
    """What is known of one pod's agent or trainer.

    `status` is the last valid answer (None: never had one). `reachable` is True while it answers; when False, `status` is old news and
    the truth is Unknown. `since` is when `reachable` last changed, or when watching began.
    """

    status: Object | None
    reachable: bool
    since: datetime


AgentView = PeerView
TrainerView = PeerView


class WakeApi(Protocol):
    """Ask for a pass of a resource."""

    def __call__(self, key: Key, after: float = 0) -> None:
        """Now, or after so many seconds; several wishes make one pass, at the earliest of their times."""
        ...


class PeerWatcherApi(Protocol):
    """Keeps one hanging GET open to each pod of a resource, and wakes the resource when an answer changes."""

    def watch(self, key: Key, pods: Sequence[PodRef]) -> None:
        """Watch exactly these pods for the resource, from now on; call it in every pass (an unchanged list costs nothing)."""
        ...

    def get(self, pod_uid: str) -> PeerView:
        """Return what is known of the pod; an unwatched pod is unreachable with no status."""
        ...


class PrometheusApi(Protocol):
    """Asks Prometheus in the background, so that no pass ever waits for it, and wakes the resource when an answer has come."""

    def ask(self, key: Key, question: Question, pause_seconds: float) -> Observation | None:
        """Return the newest answer to this very question (None: none yet), and ask again unless that was less than the pause ago."""
        ...

    def forget(self, key: Key, but: Sequence[str] = ()) -> None:
        """Drop the resource's questions, but those of these aliases."""
        ...


class EventRecorderApi(Protocol):
    """Kubernetes Events, written in the background; never raises, never waits."""

    def record(self, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event about an object; the same (object, reason, message) again is dropped while it keeps coming."""
        ...
