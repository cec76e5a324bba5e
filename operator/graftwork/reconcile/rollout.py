"""Rolling a revision out: what is gathered for the decision, and what is written down before anything acts on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.cluster import metrics
from graftwork.facts.agents import Agent
from graftwork.facts.inspected import Resolved
from graftwork.facts.pods import Pod
from graftwork.facts.rollout import COMPLETED, ROLLED_BACK, Record, progress, record
from graftwork.plan import revisions, rollout
from graftwork.plan.mode import ADAPTERS_ON, Mode
from graftwork.plan.pods import Manifest
from graftwork.plan.revisions import Revision
from graftwork.plan.rollout import Decision
from graftwork.reconcile import observe
from graftwork.reconcile.children import owned
from graftwork.reconcile.context import Context, Key, Object
from graftwork.reconcile.objects import write_status
from graftwork.status.cold_start import fresh


@dataclass(frozen=True)
class Rollout:
    """`wanted` is the revision that the spec asks for, `applied` the one that the Deployment gets."""

    wanted: Revision
    applied: Revision
    decision: Decision
    replicas: int | None = None
    """How many pods the Deployment may have; None: as many as the spec says."""


@dataclass
class Watching:
    """Since when this process looks at each deployment, in monotonic seconds."""

    _since: dict[Key, float] = field(default_factory=dict)

    def seconds(self, key: Key, ctx: Context) -> float:
        """Return for how long the deployment has been looked at."""
        now = ctx.clock.monotonic()
        return now - self._since.setdefault(key, now)

    def forget(self, key: Key) -> None:
        """Forget a deployment that is gone."""
        self._since.pop(key, None)


def plan(
    ctx: Context,
    obj: Object,
    resource: LLMDeployment,
    *,
    render: Callable[[str], Manifest],
    images: Mapping[str, str],
    pods: Sequence[Pod],
    agents: Mapping[str, Agent],
    watched_seconds: float,
    resolved: Resolved | None = None,
    mode: Mode = ADAPTERS_ON,
) -> Rollout:
    """Return which revision the Deployment gets. `render` makes the template of the spec, if it was never made before.

    `resolved` is what the model's source is frozen to; None: a source that is not looked up. `mode`: how the model is served.
    """
    scene = _scene(ctx, obj)
    kept = {scene.record.last_good, scene.applied, *(pod.template_hash for pod in pods)}
    wanted = revisions.revision(resource, scene.stored, render, images, kept=kept, resolved=resolved, applied=scene.applied, mode=mode)
    return _decided(ctx, scene, resource, wanted, pods=pods, agents=agents, watched_seconds=watched_seconds)


def held(
    ctx: Context, obj: Object, resource: LLMDeployment, *, pods: Sequence[Pod], agents: Mapping[str, Agent], watched_seconds: float
) -> Rollout | None:
    """Return how what the Deployment has goes on while no pods of the present spec can be made; None where it has nothing of ours.

    It is scaled, reached and, if it is bad itself, rolled back as ever. What is remembered of a failure stays: it may be what is asked for again.
    """
    scene = _scene(ctx, obj)
    standing = revisions.stored_revision(scene.stored, scene.applied)
    if standing is None:
        return None
    rolled = _decided(ctx, scene, resource, standing, pods=pods, agents=agents, watched_seconds=watched_seconds)
    known = rolled.decision.record
    record = replace(known, failed=known.failed or scene.record.failed)
    return replace(rolled, decision=replace(rolled.decision, record=record))


@dataclass(frozen=True)
class _Scene:
    """What was stored of a deployment's rollouts. `applied` is the hash of what its Deployment has."""

    stored: Sequence[Object]
    record: Record
    applied: str
    one_at_a_time: bool


def _scene(ctx: Context, obj: Object) -> _Scene:
    metadata = obj["metadata"]
    live = ctx.mirror.get("Deployment", metadata["namespace"], metadata["name"]) or {}
    strategy = (live.get("spec") or {}).get("strategy") or {}
    return _Scene(
        stored=ctx.mirror.list("ControllerRevision", metadata["namespace"], {names.LABEL_OWNER_UID: metadata["uid"]}),
        record=record((obj.get("status") or {}).get("rollout")),
        applied=_applied_hash(live),
        one_at_a_time=(strategy.get("rollingUpdate") or {}).get("maxSurge") == 0,
    )


def _decided(
    ctx: Context,
    scene: _Scene,
    resource: LLMDeployment,
    wanted: Revision,
    *,
    pods: Sequence[Pod],
    agents: Mapping[str, Agent],
    watched_seconds: float,
) -> Rollout:
    failed = scene.record.failed
    goes_back = failed is not None and failed.template_hash == wanted.template_hash and scene.applied == scene.record.last_good
    seen = rollout.Seen(
        wanted=wanted.template_hash,
        revisions={**revisions.numbers(scene.stored), wanted.template_hash: wanted.number},
        progress=progress(pods, agents, wanted.template_hash),
        record=scene.record,
        watched_seconds=watched_seconds,
        now=observe.now(ctx),
        # Of this rollout, forth or back: that of an earlier template is no more than what the spec said then.
        one_at_a_time=scene.one_at_a_time and (scene.applied == wanted.template_hash or goes_back),
    )
    decision = rollout.decide(rollout.policy(resource), seen)
    found = wanted if decision.applied == wanted.template_hash else revisions.stored_revision(scene.stored, decision.applied)
    assert found is not None, "only a stored revision is rolled back to"
    return Rollout(wanted, found, decision)


def _applied_hash(deployment: Object) -> str:
    """Return what a Deployment's template was rendered from; empty if it has none of ours."""
    return revisions.stored_hash((deployment.get("spec") or {}).get("template") or {"metadata": {}})


async def remember(ctx: Context, live: Object, rolled: Rollout) -> Object:
    """Write that a revision has failed before another one is applied, and return the object as it is then.

    The other way around a pass that ended in between would leave nobody who knows, and the failed revision would be tried once more.
    """
    if not rolled.decision.newly_failed:
        return live
    status = live.get("status") or {}
    written = await write_status(ctx, live, {**status, "rollout": {**(status.get("rollout") or {}), **rolled.decision.record.to_status()}})
    metrics.ROLLOUTS.labels(ROLLED_BACK).inc()
    return written


async def check(ctx: Context, obj: Object, deployment: Object) -> None:
    """Ask the API server whether it takes the Deployment with a template that it has not, before anything else is written.

    Its refusal (requests above limits, an unknown PriorityClass) would come last, when the Service already has what the new spec says.
    """
    metadata = obj["metadata"]
    live = ctx.mirror.get("Deployment", metadata["namespace"], metadata["name"])
    if live is not None and _applied_hash(live) != _applied_hash(deployment):
        await ctx.cluster.try_apply(owned(obj, deployment))


def count(rolled: Rollout | None, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Count what has just come to an end, once its status is written: a rollout, the start of a pod."""
    if rolled and rolled.decision.completed:
        metrics.ROLLOUTS.labels(COMPLETED).inc()
    for phase, seconds in fresh(before.get("coldStart"), after.get("coldStart")).items():
        metrics.COLD_START_SECONDS.labels(phase).observe(seconds)
