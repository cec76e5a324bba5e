"""What every reconciler does to its own object: finalizer and status, each written only when it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork import names
from graftwork.cluster.protocol import Object
from graftwork.errors import NotFound
from graftwork.reconcile.context import Context


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
    """Replace the status if it differs from the object's (None counts as absent); return the object as it is then."""
    wanted = without_none(status)
    if wanted == (obj.get("status") or {}):
        return obj
    metadata = obj["metadata"]
    return await ctx.cluster.patch_status(obj["kind"], metadata["namespace"], metadata["name"], wanted, metadata["resourceVersion"])


def without_none(value: Any) -> Any:
    """Return a deep copy without the dictionary entries that are None, as the API server would store it."""
    if isinstance(value, Mapping):
        return {key: without_none(child) for key, child in value.items() if child is not None}
    if isinstance(value, list | tuple):
        return [without_none(child) for child in value]
    return value
