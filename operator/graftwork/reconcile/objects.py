"""What every reconciler does to its own object: finalizer and status, each written only when it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork import names
from graftwork.cluster.kinds import key_of
from graftwork.cluster.protocol import Object
from graftwork.errors import NotFound
from graftwork.reconcile.context import Context

COUNT_SECONDS = 1.0
_COUNTS = frozenset({"summary", "replicas", "readyReplicas", "replicasText"})
_COUNTING = frozenset({"Ready", "Reconciling", "Serving"})
"""Conditions whose messages say how many; with the same reason, the message may wait."""


def is_deleting(obj: Object) -> bool:
    """Return whether somebody asked for the object's deletion."""
    return bool(obj["metadata"].get("deletionTimestamp"))


async def ensure_finalizer(ctx: Context, obj: Object) -> Object:
    """Put our finalizer on the object unless it is there or the object is being deleted; return the object as it is then."""
    finalizers = obj["metadata"].get("finalizers") or []
    if names.FINALIZER in finalizers or is_deleting(obj):
        return obj
    return await ctx.cluster.set_finalizers(obj["kind"], obj, [*finalizers, names.FINALIZER])


async def drop_finalizer(ctx: Context, obj: Object) -> None:
    """Take our finalizer off, which lets the API server delete the object; nothing to do if it is not there."""
    finalizers = obj["metadata"].get("finalizers") or []
    if names.FINALIZER not in finalizers:
        return
    try:
        await ctx.cluster.set_finalizers(obj["kind"], obj, [name for name in finalizers if name != names.FINALIZER])
    except NotFound:
        return


async def write_status(ctx: Context, obj: Object, status: Mapping[str, Any]) -> Object:
    """Replace the status if it differs from the object's (None counts as absent); return the object as it is then.

    What only counts on (pods that come and go, the texts that say how many) is written once a second at most, or a deployment of many pods would
    write for each of them: sooner than that the status stays, and the object is woken for it in time. Every other difference is written at once.
    """
    wanted, before = without_none(status), obj.get("status") or {}
    if wanted == before:
        return obj
    metadata = obj["metadata"]
    written = ctx.memory.written.get(str(metadata.get("uid")), list)
    early = written[0] + COUNT_SECONDS - ctx.clock.monotonic() if written else 0.0
    if early > 0 and _but_counts(wanted) == _but_counts(before):
        ctx.wake(key_of(obj), early)
        return obj
    result = await ctx.cluster.patch_status(obj["kind"], metadata["namespace"], metadata["name"], wanted, metadata["resourceVersion"])
    written[:] = [ctx.clock.monotonic()]
    return result


def _but_counts(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [{**item, "message": ""} if item["type"] in _COUNTING else item for item in status.get("conditions") or []]
    return {**{key: value for key, value in status.items() if key not in _COUNTS}, "conditions": conditions}


def without_none(value: Any) -> Any:
    """Return a deep copy without the dictionary entries that are None, as the API server would store it."""
    if isinstance(value, Mapping):
        return {key: without_none(child) for key, child in value.items() if child is not None}
    if isinstance(value, list | tuple):
        return [without_none(child) for child in value]
    return value
