"""Children of a resource: made owned, compared with what is there, applied only where they differ, pruned when nobody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork import names
from graftwork.cluster.kinds import KINDS
from graftwork.cluster.protocol import Object
from graftwork.errors import AlreadyExists, NameTaken
from graftwork.reconcile.context import Context
from graftwork.reconcile.diff import needs_apply
from graftwork.reconcile.objects import without_none

PRUNED_KINDS = ("Deployment", "Service", "ConfigMap", "PodDisruptionBudget")


@dataclass
class Outcome:
    """What `apply_children` did. `live` has each desired child as it is now, by (kind, name)."""

    live: dict[tuple[str, str], Object] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)


def owner_reference(owner: Object) -> dict[str, Any]:
    """Return the controller owner reference to a resource."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned(owner: Object, child: Object) -> Object:
    """Return a copy of the child in the owner's namespace with the labels and the owner reference that make it the owner's."""
    result: Object = without_none(child)
    metadata = result.setdefault("metadata", {})
    metadata["namespace"] = owner["metadata"]["namespace"]
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_OWNER_UID: owner["metadata"]["uid"],
    }
    metadata["ownerReferences"] = [owner_reference(owner)]
    return result


async def apply_children(ctx: Context, owner: Object, desired: Sequence[Object], prune_kinds: Sequence[str] = PRUNED_KINDS) -> Outcome:
    """Make the owner's children be these, in this order; each is awaited before the next. A child that is as desired costs no request.

    Kinds that are made once (Job, ControllerRevision, PersistentVolumeClaim) are created where they are missing and never changed.
    Children of `prune_kinds` that carry the owner's label and controller reference and are not desired are deleted. Raises NameTaken, before
    anything is written, when a child's name belongs to an object that is not the owner's.
    """
    outcome = Outcome()
    children = [owned(owner, child) for child in desired]
    found = await asyncio.gather(*(_live(ctx, child) for child in children))
    for live in found:
        if live is not None:
            refuse_foreign(owner, live)
    for child, live in zip(children, found, strict=True):
        await _apply_one(ctx, owner, child, live, outcome)
    for kind in prune_kinds:
        await _prune(ctx, owner, kind, outcome)
    return outcome


async def _live(ctx: Context, child: Object) -> Object | None:
    """Return the child as it is: an object without our label is not in the mirror, and an apply by force would take it over."""
    kind, metadata = child["kind"], child["metadata"]
    live = ctx.mirror.get(kind, metadata["namespace"], metadata["name"])
    return live if live is not None else await ctx.cluster.get(kind, metadata["namespace"], metadata["name"])


async def _apply_one(ctx: Context, owner: Object, child: Object, live: Object | None, outcome: Outcome) -> None:
    kind, name = child["kind"], child["metadata"]["name"]
    if live is not None and (KINDS[kind].create_once or not needs_apply(child, live)):
        outcome.live[kind, name] = live
        return
    if KINDS[kind].create_once:
        outcome.live[kind, name] = await _create_once(ctx, owner, child)
    else:
        outcome.live[kind, name] = await ctx.cluster.apply(child)
    outcome.applied.append(f"{kind}/{name}")


async def _create_once(ctx: Context, owner: Object, child: Object) -> Object:
    metadata = child["metadata"]
    try:
        return await ctx.cluster.create(child)
    except AlreadyExists:
        live = await ctx.cluster.get(child["kind"], metadata["namespace"], metadata["name"])
        if live is None:
            raise
        refuse_foreign(owner, live)
        return live


def refuse_foreign(owner: Object, live: Object) -> None:
    """Raise NameTaken unless the object is the owner's child: by controller reference, or by our label with no controller at all."""
    metadata = live["metadata"]
    uid = owner["metadata"]["uid"]
    controllers = [reference for reference in metadata.get("ownerReferences") or [] if reference.get("controller")]
    if controllers:
        if controllers[0].get("uid") == uid:
            return
        held_by = f"{controllers[0].get('kind')} {controllers[0].get('name')}"
    elif (metadata.get("labels") or {}).get(names.LABEL_OWNER_UID) == uid:
        return
    else:
        held_by = "somebody else (it has no owner reference of ours)"
    raise NameTaken(live["kind"], metadata.get("namespace", ""), metadata["name"], held_by)


def is_controlled(owner: Object, child: Object) -> bool:
    """Return whether the owner, and nobody else, is the child's controller."""
    references = child["metadata"].get("ownerReferences") or []
    return [reference.get("uid") for reference in references if reference.get("controller")] == [owner["metadata"]["uid"]]


async def _prune(ctx: Context, owner: Object, kind: str, outcome: Outcome) -> None:
    metadata = owner["metadata"]
    for child in ctx.mirror.list(kind, metadata["namespace"], {names.LABEL_OWNER_UID: metadata["uid"]}):
        name = child["metadata"]["name"]
        if (kind, name) in outcome.live or child["metadata"].get("deletionTimestamp"):
            continue
        if not is_controlled(owner, child):
            continue  # a label alone is easily copied: what we made has us as its controller
        await ctx.cluster.delete(kind, metadata["namespace"], name, uid=child["metadata"]["uid"])
        outcome.pruned.append(f"{kind}/{name}")
