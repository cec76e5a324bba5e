"""Children of kinds that the cluster may not have: an HTTPRoute, whose CRD is somebody else's.

Such a kind is never watched, because everything waits for a complete listing of what is watched. Its few objects are read by name, and kept: they are
looked at again when a pass finds what it knows too old.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from graftwork.cluster.kinds import Key, key_of
from graftwork.cluster.protocol import Object
from graftwork.errors import NotFound
from graftwork.reconcile.children import is_controlled, owned, refuse_foreign
from graftwork.reconcile.context import Context
from graftwork.reconcile.diff import needs_apply


class KindMissingError(Exception):
    """The API server does not have the kind."""


@dataclass(frozen=True)
class _Known:
    owner_uid: str
    live: Object | None
    looked: float


class OptionalChildren:
    """What this process knows of them: which kinds there are, and one child per owner and kind."""

    def __init__(self) -> None:
        self._served: dict[str, tuple[bool, float]] = {}
        self._asking = asyncio.Lock()
        self._known: dict[tuple[Key, str], _Known] = {}

    def forget(self, owner: Key) -> None:
        """Drop what is known of the children of an owner that is gone."""
        for known in [known for known in self._known if known[0] == owner]:
            del self._known[known]

    async def apply(self, ctx: Context, owner: Object, child: Object, fresh_seconds: float) -> Object:
        """Make the child be as described and return it as it is, seen not more than `fresh_seconds` ago.

        Raises KindMissingError without the kind, which was asked for not more than `fresh_seconds` ago, and NameTaken if the name is somebody else's.
        """
        wanted = owned(owner, child)
        kind, metadata = wanted["kind"], wanted["metadata"]
        if not await self._serves(ctx, kind, fresh_seconds):
            raise KindMissingError(kind)
        live = await self._look(ctx, owner, kind, metadata["name"], fresh_seconds)
        if live is not None:
            refuse_foreign(owner, live)
        if live is None or needs_apply(wanted, live):
            try:
                live = await ctx.cluster.apply(wanted)
            except NotFound as error:  # the CRD has gone since
                self._served.pop(kind, None)
                raise KindMissingError(kind) from error
            finally:
                self._known.pop((key_of(owner), kind), None)
            self._keep(ctx, owner, kind, live)
        return live

    async def prune(self, ctx: Context, owner: Object, kind: str, name: str) -> None:
        """Delete the child if it is there and the owner's. It is looked for once in the life of this process, and not where there is no such kind."""
        known = self._of(owner, kind)
        if known is not None and known.live is None:
            return
        if not await self._serves(ctx, kind, ctx.config.resync_seconds):
            return
        live = await self._look(ctx, owner, kind, name, 0.0)
        if live is not None and is_controlled(owner, live):
            await ctx.cluster.delete(kind, owner["metadata"]["namespace"], name, uid=live["metadata"]["uid"])
        self._keep(ctx, owner, kind, None)

    async def _look(self, ctx: Context, owner: Object, kind: str, name: str, fresh_seconds: float) -> Object | None:
        known = self._of(owner, kind)
        if known is None or known.live is None or ctx.clock.monotonic() - known.looked >= fresh_seconds:
            live = await ctx.cluster.get(kind, owner["metadata"]["namespace"], name)
            self._keep(ctx, owner, kind, live)
            return live
        return known.live

    def _of(self, owner: Object, kind: str) -> _Known | None:
        known = self._known.get((key_of(owner), kind))
        return known if known and known.owner_uid == owner["metadata"]["uid"] else None

    def _keep(self, ctx: Context, owner: Object, kind: str, live: Object | None) -> None:
        self._known[key_of(owner), kind] = _Known(owner["metadata"]["uid"], live, ctx.clock.monotonic())

    async def _serves(self, ctx: Context, kind: str, fresh_seconds: float) -> bool:
        async with self._asking:  # many passes begin at once, and one answer is enough for all of them
            served, asked = self._served.get(kind, (False, float("-inf")))
            fresh = ctx.config.resync_seconds if served else fresh_seconds
            if ctx.clock.monotonic() - asked >= fresh:
                served = await ctx.cluster.serves(kind)
                self._served[kind] = (served, ctx.clock.monotonic())
            return served
