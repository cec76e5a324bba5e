"""The last seen state of our three kinds and of their children, so that a pass reads without asking the API server.

It is filled by one complete listing per kind before anything acts, kept by watch events and by the answers to our own writes (what we
wrote is there when the write returns), and compared with a complete listing again in the slow resync, which finds what a watch missed.
Of two states of an object the one with the higher resourceVersion stays; the API server promises that they can be compared as numbers.

It is built for hundreds of resources: what belongs to one of them is found by an index of labels, and equal parts of objects are held once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.cluster import metrics
from graftwork.cluster.kinds import KINDS, WATCHED, Key
from graftwork.cluster.protocol import Object, Objects
from graftwork.cluster.sharing import Sharing

_REMEMBERED_DELETIONS = 4096
_INDEXED = (
    names.LABEL_OWNER_UID,
    names.LABEL_DEPLOYMENT,
    names.LABEL_JOB,
    names.LABEL_ADAPTER,
    names.LABEL_FILLS,
    names.LABEL_INSPECTS,
    names.LABEL_PUBLISHED_BY,
    names.LABEL_SWEEP,
)
"""Labels by which resources look for what is theirs: without an index each of n would look at what belongs to all n, in each pass."""


@dataclass(frozen=True)
class Change:
    """One object became known, changed, or went (`after` None). `written`: we know it from the answer to our own write."""

    before: Object | None
    after: Object | None
    written: bool = False


class Mirror:
    """See the module; `synced` is set once every watched kind has been listed."""

    def __init__(self) -> None:
        self.synced = asyncio.Event()
        self._objects: dict[str, dict[str, dict[str, Object]]] = {kind.name: {} for kind in WATCHED}
        self._labelled: dict[tuple[str, str, str, str], set[str]] = {}  # kind, namespace, label, value -> names
        self._sharing = Sharing()
        self._deleted: OrderedDict[str, int] = OrderedDict()
        self._listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call the listener after every change, from now on; it must neither raise nor wait."""
        self._listeners.append(listener)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return the object as last seen or written; shared, never change it."""
        return self._objects.get(kind, {}).get(namespace, {}).get(name)

    def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> Objects:
        """Return the objects of a namespace (None: of all), by namespace and name, whose labels have these values; shared, never change them."""
        namespaces = sorted(self._objects[kind]) if namespace is None else [namespace]
        found = []
        for each in namespaces:
            objects = self._objects[kind].get(each, {})
            found += [objects[name] for name in sorted(self._candidates(kind, each, objects, labels)) if _has_labels(objects[name], labels)]
        return found

    def _candidates(self, kind: str, namespace: str, objects: Mapping[str, Object], labels: Mapping[str, str] | None) -> Iterable[str]:
        """Return the names of objects that can have the labels: by an index where there is one, else all."""
        for label in _INDEXED:
            if labels and label in labels:
                return self._labelled.get((kind, namespace, label, labels[label]), ())
        return objects

    def keys(self, kind: str) -> Sequence[Key]:
        """Return the keys of all objects of a kind."""
        return [Key(kind, namespace, name) for namespace, objects in self._objects[kind].items() for name in objects]

    def put(self, obj: Object, *, written: bool = False) -> bool:
        """Take an object as seen, or as written by us; return whether it is news (we had neither this state nor a newer one)."""
        kind, metadata = obj["kind"], obj["metadata"]
        if kind not in self._objects or not _is_tracked(obj):
            return False
        if self._deleted.get(metadata["uid"], -1) >= _version(obj):
            return False  # a late answer to a write must not bring back what is gone
        objects = self._objects[kind].setdefault(metadata["namespace"], {})
        known = objects.get(metadata["name"])
        if known is not None and _version(known) >= _version(obj):
            return False
        objects[metadata["name"]] = slim = self.slim(obj, known)
        self._index(known, slim)
        if known is None:
            metrics.MIRROR_OBJECTS.labels(kind).inc()
        self._tell(Change(known, slim, written))
        return True

    def remove(self, kind: str, namespace: str, name: str, uid: str | None = None, version: str = "") -> bool:
        """Forget an object that is gone (if a uid is given: only that one), as of a resourceVersion if it is known; return whether it was there."""
        if kind not in self._objects:
            return False
        objects = self._objects[kind].get(namespace, {})
        known = objects.get(name)
        gone = uid or (known["metadata"]["uid"] if known else None)
        if gone:
            self._deleted[gone] = int(version) if version else (_version(known) if known else 0)
            if len(self._deleted) > _REMEMBERED_DELETIONS:
                self._deleted.popitem(last=False)
        if known is None or (uid and known["metadata"]["uid"] != uid):
            return False
        del objects[name]
        self._index(known, None)
        if not objects:
            del self._objects[kind][namespace]
        metrics.MIRROR_OBJECTS.labels(kind).dec()
        self._tell(Change(known, None))
        return True

    def replace(self, kind: str, namespace: str | None, items: Iterable[Object], resource_version: str) -> int:
        """Take a complete listing of a namespace (None: of all) as of a resourceVersion; return how many objects changed by it."""
        items = list(items)
        changed = sum(self.put(obj) for obj in items)
        listed = {obj["metadata"]["uid"] for obj in items}
        for obj in self.list(kind, namespace):
            metadata = obj["metadata"]
            if metadata["uid"] not in listed and _version(obj) <= int(resource_version):
                changed += self.remove(kind, metadata["namespace"], metadata["name"], metadata["uid"], resource_version)
        return changed

    def slim(self, obj: Object, known: Object | None = None) -> Object:
        """Return the object as it is kept: without what nobody here reads, and sharing what it has in common with others and with its state before.

        Of managedFields only our own applies are read, and they are most of a pod's bytes.
        """
        metadata, before = dict(obj["metadata"]), (known or {}).get("metadata") or {}
        ours = [
            field for field in metadata.pop("managedFields", ()) if field.get("manager") == names.FIELD_MANAGER and field.get("operation") == "Apply"
        ]
        if ours:
            metadata["managedFields"] = ours
        same = known if known and all(before.get(key) == metadata.get(key) for key in ("uid", "generation")) else {}
        slim = {key: self._kept(value, same.get(key)) for key, value in obj.items() if key != "metadata"}
        slim["metadata"] = {key: self._kept(value, before.get(key)) for key, value in metadata.items()}
        return slim

    def _kept(self, value: Any, before: Any) -> Any:
        """Return what is held already if the value is that: comparing is many times quicker than sharing."""
        if type(before) is type(value) and before == value:
            return before
        return self._sharing.shared(value) if isinstance(value, dict | list) else value

    def _index(self, before: Object | None, after: Object | None) -> None:
        obj = after or before
        assert obj is not None
        old, new = (((each or {}).get("metadata") or {}).get("labels") or {} for each in (before, after))
        kind, namespace, name = obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"]
        for label in _INDEXED:
            if old.get(label) == new.get(label):
                continue
            if label in old:
                entry = (kind, namespace, label, old[label])
                self._labelled[entry].discard(name)
                if not self._labelled[entry]:
                    del self._labelled[entry]
            if label in new:
                self._labelled.setdefault((kind, namespace, label, new[label]), set()).add(name)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)


def _has_labels(obj: Object, labels: Mapping[str, str] | None) -> bool:
    if not labels:
        return True
    present = obj["metadata"].get("labels") or {}
    return all(present.get(key) == value for key, value in labels.items())


def _is_tracked(obj: Object) -> bool:
    """Return whether the watch of the kind would show the object: all of ours, and of other kinds those with our label."""
    return KINDS[obj["kind"]].ours or _has_labels(obj, {names.LABEL_MANAGED_BY: names.MANAGER})


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
