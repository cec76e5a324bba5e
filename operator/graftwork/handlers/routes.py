"""Which resources a change concerns."""

from __future__ import annotations

from collections.abc import Iterator

from graftwork import names
from graftwork.cluster.kinds import FINE_TUNE_JOB, KINDS, LLM_DEPLOYMENT, LORA_ADAPTER, WATCHED, Key, key_of, sweep_key
from graftwork.cluster.mirror import Change
from graftwork.cluster.protocol import MirrorApi, Object

_OWNERS = {
    names.LABEL_DEPLOYMENT: LLM_DEPLOYMENT,
    names.LABEL_INSPECTS: LLM_DEPLOYMENT,
    names.LABEL_FILLS: LLM_DEPLOYMENT,
    names.LABEL_JOB: FINE_TUNE_JOB,
    names.LABEL_ADAPTER: LORA_ADAPTER,
}


def concerned(change: Change, mirror: MirrorApi) -> Iterator[Key]:
    """Yield the resources to wake for a change; a resource can come more than once.

    A resource is not woken by the answer to a write of its own status or finalizer: its pass goes on with that answer. It is woken by
    everything that a watch tells of it, and by having been created (a FineTuneJob creates LoRAAdapters).
    """
    obj = change.after or change.before
    if obj is None:
        return
    if not KINDS[obj["kind"]].ours:
        owner = owner_of(obj)
        if owner:
            yield owner
        return
    if not change.written or _says_more_than_status(change):
        yield key_of(obj)
    match obj["kind"]:
        case "LoRAAdapter":
            yield from _from_adapter(obj, change, mirror)
        case "LLMDeployment":
            yield from _from_deployment(obj, change, mirror)


def standing(mirror: MirrorApi) -> Iterator[Key]:
    """Yield everything that has a task when the operator starts; a key can come more than once."""
    for kind in WATCHED:
        if kind.ours:
            yield from (key_of(obj) for obj in mirror.list(kind.name, None))
    yield from (sweep_key(obj["metadata"]["namespace"]) for obj in mirror.list(LORA_ADAPTER, None))
    yield from (sweep_key(obj["metadata"]["namespace"]) for obj in mirror.list("Job", None, {names.LABEL_SWEEP: "true"}))


def owner_of(child: Object) -> Key | None:
    """Return the resource of ours that a child belongs to: its controller, or for pods, whose controller is another, the one in the labels."""
    metadata = child["metadata"]
    namespace = metadata.get("namespace", "")
    for reference in metadata.get("ownerReferences") or []:
        if reference.get("controller") and str(reference.get("apiVersion", "")).startswith(f"{names.GROUP}/"):
            return Key(reference["kind"], namespace, reference["name"])
    labels = metadata.get("labels") or {}
    for label, kind in _OWNERS.items():
        if name := labels.get(label):
            return Key(kind, namespace, name)
    if names.LABEL_SWEEP in labels:
        return sweep_key(namespace)
    return None


def _from_adapter(adapter: Object, change: Change, mirror: MirrorApi) -> Iterator[Key]:
    namespace = adapter["metadata"]["namespace"]
    publisher = (adapter["metadata"].get("labels") or {}).get(names.LABEL_PUBLISHED_BY)
    if publisher:
        yield from (key_of(job) for job in mirror.list(FINE_TUNE_JOB, namespace) if job["metadata"]["uid"] == publisher)
    if not _says_more_than_status(change) and not _imported(change):
        return  # nobody decides anything by the rest of an adapter's status
    yield sweep_key(namespace)
    yield from _borrowed(adapter, mirror)
    yield from (key_of(deployment) for deployment in mirror.list(LLM_DEPLOYMENT, namespace))
    alias = (adapter.get("spec") or {}).get("alias")
    yield from (key_of(other) for other in mirror.list(LORA_ADAPTER, namespace) if (other.get("spec") or {}).get("alias") == alias)


def _borrowed(adapter: Object, mirror: MirrorApi) -> Iterator[Key]:
    """Yield the sweep of another namespace whose files the adapter names, if that one has a sweep."""
    source = str((adapter.get("spec") or {}).get("source") or "")
    namespace = source.removeprefix(names.STORE_SCHEME).partition("/")[0] if source.startswith(names.STORE_SCHEME) else ""
    if namespace and (mirror.list(LORA_ADAPTER, namespace) or mirror.list("Job", namespace, {names.LABEL_SWEEP: "true"})):
        yield sweep_key(namespace)


def _from_deployment(deployment: Object, change: Change, mirror: MirrorApi) -> Iterator[Key]:
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    if _says_more_than_status(change):  # what a status says of adapters is told by the pass that writes it (reconcile/news.py)
        yield from (key_of(adapter) for adapter in mirror.list(LORA_ADAPTER, namespace))
    yield from (key_of(job) for job in mirror.list(FINE_TUNE_JOB, namespace) if (job.get("spec") or {}).get("deploymentRef") == name)


def _imported(change: Change) -> bool:
    """Whether an import has just told what the adapter is: from then on it can be served."""
    source = str(((change.after or {}).get("spec") or {}).get("source") or "")
    if not source or source.startswith(names.STORE_SCHEME):
        return False
    before, after = ((obj or {}).get("status") or {} for obj in (change.before, change.after))
    return any(before.get(field) != after.get(field) for field in ("digest", "source", "rank", "baseModel"))


def _says_more_than_status(change: Change) -> bool:
    if change.before is None or change.after is None:
        return True
    before, after = change.before["metadata"], change.after["metadata"]
    return any(before.get(field) != after.get(field) for field in ("uid", "generation", "labels", "annotations", "deletionTimestamp"))
