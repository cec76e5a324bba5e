"""Telling pods that their adapters ConfigMap changed: an annotation makes the kubelet refresh the volume at once.

The ConfigMap must have been written, and the write awaited, before this runs: a pod that is told earlier may read the old file for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.errors import NotFound
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Pod
from graftwork.reconcile.context import Context

FIRST_SECONDS, MOST_SECONDS = 2.0, 60.0


@dataclass
class _Patience:
    wanted: str
    again_at: float
    pause: float


class Teller:
    """Writes the hash to pods, and again with growing pauses to those whose agent still reads another file."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Patience] = {}

    async def tell(self, ctx: Context, namespace: str, pods: Sequence[Pod], agents: Mapping[str, Agent], wanted: str) -> float | None:
        """Annotate what needs it; return in how many seconds to look again, None if every agent that answers reads the wanted file."""
        now = ctx.clock.monotonic()
        told = [pod for pod in pods if pod.active and pod.node]
        fresh = [pod for pod in told if pod.adapters_hash != wanted]
        behind = [pod for pod in told if pod.adapters_hash == wanted and _reads_another(agents.get(pod.uid), wanted)]
        again = [pod for pod in behind if self._is_due(pod, wanted, now)]
        for pod in fresh:
            self._waiting[pod.uid] = _Patience(wanted, now + FIRST_SECONDS, FIRST_SECONDS)
        await _each([_annotate(ctx, namespace, pod.name, wanted, clear=pod in again) for pod in [*fresh, *again]])
        alive = {pod.uid for pod in [*fresh, *behind]}
        self._waiting = {uid: patience for uid, patience in self._waiting.items() if uid in alive}
        return min((max(0.1, patience.again_at - now) for patience in self._waiting.values()), default=None)

    def _is_due(self, pod: Pod, wanted: str, now: float) -> bool:
        patience = self._waiting.get(pod.uid)
        if patience is None or patience.wanted != wanted:
            self._waiting[pod.uid] = _Patience(wanted, now + FIRST_SECONDS, FIRST_SECONDS)
            return False
        if now < patience.again_at:
            return False
        patience.pause = min(MOST_SECONDS, patience.pause * 2)
        patience.again_at = now + patience.pause
        return True


def _reads_another(agent: Agent | None, wanted: str) -> bool:
    return agent is not None and agent.reachable and agent.observed_hash != wanted


async def _annotate(ctx: Context, namespace: str, pod: str, wanted: str, *, clear: bool) -> None:
    """Write the annotation; its present value again would be no change and wake no kubelet, so it is taken away first."""
    try:
        if clear:
            await ctx.cluster.annotate_pod(namespace, pod, {names.ANNOTATION_ADAPTERS_HASH: None})
        await ctx.cluster.annotate_pod(namespace, pod, {names.ANNOTATION_ADAPTERS_HASH: wanted})
    except NotFound:
        return


async def _each(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; one that fails does not keep the others from being done."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
