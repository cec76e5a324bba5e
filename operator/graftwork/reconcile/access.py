"""Ingress, HTTPRoute and NetworkPolicy of an LLMDeployment: made, kept and removed. Whatever goes wrong here stays here: serving goes on."""

from __future__ import annotations

from dataclasses import dataclass

from graftwork.api import LLMDeployment
from graftwork.cluster.kinds import HTTP_ROUTE, Key
from graftwork.cluster.protocol import Object
from graftwork.errors import ApiError, NameTaken
from graftwork.facts.problem import Problem
from graftwork.plan import access as plan
from graftwork.plan.pods import Manifest
from graftwork.reasons import Reason
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context
from graftwork.reconcile.optional import KindMissingError, OptionalChildren
from graftwork.status import access as status
from graftwork.status.conditions import Condition

LOOK_SECONDS = 15.0
"""How soon to look again for what no watch tells of: a CRD that is installed, a Gateway's word, a webhook that admits again."""


@dataclass(frozen=True)
class Outcome:
    """The condition AccessReady (None: nothing was asked for), and in how many seconds to look again."""

    condition: Condition | None = None
    look_again_seconds: float | None = None


class Access:
    """Keeps nothing that must survive: only what is known of HTTPRoutes, which are not watched."""

    def __init__(self) -> None:
        self._optional = OptionalChildren()

    def forget(self, key: Key) -> None:
        """Drop what is known of an LLMDeployment that is deleted; its children go by their owner references."""
        self._optional.forget(key)

    async def apply(self, ctx: Context, owner: Object, resource: LLMDeployment | None) -> Outcome:
        """Make the three be as the spec says; without a spec that can be served they stay as they are, and so does the condition."""
        if resource is None:
            return Outcome(status.kept(owner.get("status") or {}))
        found = [
            await self._watched(ctx, owner, "Ingress", plan.ingress(resource)),
            await self._watched(ctx, owner, "NetworkPolicy", plan.network_policy(resource, ctx.config)),
            await self._route(ctx, owner, plan.http_route(resource)),
        ]
        children = [child for child in found if child is not None]
        soon = any(child.problem or (child.kind == HTTP_ROUTE and not status.settled(child.live or {})) for child in children)
        return Outcome(status.condition(children), LOOK_SECONDS if soon else None)

    async def _watched(self, ctx: Context, owner: Object, kind: str, manifest: Manifest | None) -> status.Child | None:
        name = owner["metadata"]["name"]
        try:
            outcome = await apply_children(ctx, owner, [manifest] if manifest else [], prune_kinds=(kind,))
        except (ApiError, NameTaken) as error:
            return status.Child(kind, name, problem=_problem(error))
        return status.Child(kind, name, outcome.live[kind, name]) if manifest else None

    async def _route(self, ctx: Context, owner: Object, manifest: Manifest | None) -> status.Child | None:
        name = owner["metadata"]["name"]
        try:
            if manifest is None:
                await self._optional.prune(ctx, owner, HTTP_ROUTE, name)
                return None
            live = await self._optional.apply(ctx, owner, manifest, LOOK_SECONDS)
        except KindMissingError:
            return status.Child(HTTP_ROUTE, name, problem=Problem(Reason.GATEWAY_MISSING, status.GATEWAY_REMEDY))
        except (ApiError, NameTaken) as error:
            if manifest is None and status.kept(owner.get("status") or {}) is None:
                return None  # most never asked for a route: that nobody could look for a leftover is no news to them
            return status.Child(HTTP_ROUTE, name, problem=_problem(error))
        return status.Child(HTTP_ROUTE, name, live)


def _problem(error: ApiError | NameTaken) -> Problem:
    if isinstance(error, NameTaken):
        return Problem(Reason.NAME_TAKEN, str(error))
    return Problem(Reason.ACCESS_REFUSED, f"{error}; it is tried again every {LOOK_SECONDS:.0f} s, and serving goes on", needs_user=False)
