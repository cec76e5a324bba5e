"""What a reconciler gets and gives back.

A reconciler is a class without constructor arguments whose `reconcile(key, ctx)` does one pass for one resource::

    class LLMDeploymentReconciler:
        async def reconcile(self, key: Key, ctx: Context) -> Result:
            obj = ctx.mirror.get(key.kind, key.namespace, key.name)
            if obj is None:
                return Result(gone=True)                      # ends the resource's task
            if is_deleting(obj):
                ...                                           # clean up, then drop_finalizer(ctx, obj)
            obj = await ensure_finalizer(ctx, obj)            # writes only if it is missing
            pods = ctx.mirror.list("Pod", key.namespace, {LABEL_DEPLOYMENT: key.name})
            ctx.agents.watch(key, [...])                      # every pass, with the pods of now
            outcome = await apply_children(ctx, obj, desired) # diff, apply what differs, prune what is ours and not desired
            await write_status(ctx, obj, status)              # writes only if it differs
            return Result(requeue_after_seconds=12.5)         # a deadline of the plan, or None

Rules that the engine relies on:

- One pass runs per resource at a time; passes of different resources run side by side. A wake during a pass means exactly one more pass.
- Passes begin only after the mirror holds a complete listing of every watched kind, so "not in the mirror" is "not there" for our three
  kinds and for whatever carries the label managed-by=graftwork. Objects without that label are not in it: ask `ctx.cluster.get`. **Pod
  templates must carry managed-by=graftwork, and graftwork.dev/deployment, /job, /adapter, /inspects or /fills**, or their pods are never seen.
- What the mirror returns is shared and read-only.
- Wakes come by themselves: from the resource's own changes, from children (by controller owner reference, else by the labels
  graftwork.dev/deployment and graftwork.dev/job), from agents, trainers and fills that are watched, from deadlines. A LoRAAdapter wakes every
  LLMDeployment of its namespace, and the FineTuneJob that published it; an LLMDeployment wakes the LoRAAdapters of its namespace and
  the FineTuneJobs that refer to it. A resource is not woken by the echo of its own status write. `ctx.wake` is for everything else.
- Raise what goes wrong. Conflict is tried again at once, without noise; Unavailable with backoff; anything else with backoff 1 s to
  60 s, one log line and one Event per distinct message. What the user must change is not an exception: put it in the status.
- An Event is for a transition. Recording the same one in each pass is tolerated (it is dropped), but not after a restart.
- `write_status` and `ensure_finalizer` return the object as written: go on with that one, or the next write is a Conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from graftwork.clock import Clock
from graftwork.cluster.kinds import Key
from graftwork.cluster.protocol import (
    AgentView,
    ClusterApi,
    EventRecorderApi,
    MirrorApi,
    Object,
    PeerWatcherApi,
    PodRef,
    PrometheusApi,
    TrainerView,
    WakeApi,
)
from graftwork.config import Config
from graftwork.reconcile.memo import Memory

__all__ = ["AgentView", "Context", "Key", "Object", "PodRef", "Reconciler", "Result", "TrainerView", "WakeApi"]


@dataclass(frozen=True)
class Result:
    """What a pass asks for: another pass after so many seconds (None: only on a wake or the slow resync), or the end of the task."""

    requeue_after_seconds: float | None = None
    gone: bool = False


@dataclass(frozen=True)
class Context:
    """The outside world of a reconciler."""

    cluster: ClusterApi
    mirror: MirrorApi
    config: Config
    clock: Clock
    events: EventRecorderApi
    agents: PeerWatcherApi
    trainers: PeerWatcherApi
    fills: PeerWatcherApi
    wake: WakeApi
    prometheus: PrometheusApi | None = None
    """None: the configuration names none."""
    memory: Memory = field(default_factory=Memory)


class Reconciler(Protocol):
    """One per kind."""

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Do one pass: observe, plan, apply, write the status if it changed."""
        ...
