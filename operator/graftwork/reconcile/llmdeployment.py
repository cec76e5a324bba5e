"""LLMDeployment: observe, plan, apply, tell the pods, write the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graftwork import names
from graftwork.api import InvalidObjectError, LLMDeployment
from graftwork.errors import Forbidden, Invalid, NameTaken
from graftwork.facts.adapters import NOTHING, Selection
from graftwork.facts.agents import Agent
from graftwork.facts.cached import Caching
from graftwork.facts.inspected import Resolution
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import (
    adapters_file,
    capacity,
    children,
    engine,
    engine_combinations,
    identity,
    mode,
    model_combinations,
    podsecurity,
    serving,
    sources,
)
from graftwork.plan.adapters import Rules
from graftwork.plan.mode import Mode
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source
from graftwork.reasons import Reason
from graftwork.reconcile import caching, canaries, modes, news, observe, resolving, rollout, weightless
from graftwork.reconcile.access import Access
from graftwork.reconcile.announce import announce
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.reconcile.objects import is_deleting, write_status
from graftwork.reconcile.rollout import Rollout, Watching
from graftwork.reconcile.tell import Teller
from graftwork.status import serving as serving_status
from graftwork.status.conditions import Condition

PROBLEM_RETRY_SECONDS = observe.REFUSED_SECONDS


@dataclass(frozen=True)
class _View:
    """What was gathered for one pass."""

    obj: Object
    resource: LLMDeployment | None
    source: Source | None
    pods: Sequence[Pod]
    agents: Mapping[str, Agent]
    selection: Selection
    rules: Rules | None
    problem: Problem | None
    adapters_problem: Problem | None


@dataclass
class _Made:
    """What a pass has come to, as far as it came. `rolled` None: nothing is known of what the Deployment has, or nothing may be changed."""

    live: Object
    problem: Problem | None = None
    resolution: Resolution | None = None
    weights: Caching | None = None
    rolled: Rollout | None = None

    def look_again(self) -> list[float | None]:
        """Return when to look again at what nobody may tell of."""
        waits = [_retry(self.problem)]
        waits += [self.resolution.again_seconds] if self.resolution else []
        waits += [self.weights.again_seconds] if self.weights else []
        return [*waits, self.rolled.decision.look_again_seconds if self.rolled else None]


class LLMDeploymentReconciler:
    """One pass for one LLMDeployment. It keeps nothing that must survive: only patience with slow pods, and what it told others."""

    def __init__(self) -> None:
        self._tellers: dict[Key, Teller] = {}
        self._news = news.News()
        self._watching = Watching()
        self._access = Access()

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Make the children be as the spec says; with a spec that cannot be served, leave them as they are and say why."""
        obj = ctx.mirror.get(key.kind, key.namespace, key.name)
        if obj is None or is_deleting(obj):  # the children go by their owner references
            self._forget(key, ctx)
            return Result(gone=obj is None)
        view = await _gather(key, ctx, obj)
        made = _Made(await _remember(key, ctx, view), view.problem)
        watched = self._watching.seconds(key, ctx)
        if view.resource and view.source and view.rules and not view.problem:
            await _make(key, ctx, view, made, watched=watched)
        again = None
        try:
            again = await self._tell(key, ctx, view)
        except (Forbidden, Invalid) as error:
            made.problem = made.problem or observe.refused(error)
        access = await self._access.apply(ctx, obj, view.resource if made.rolled else None)
        status = _status(key, ctx, replace(view, obj=made.live), made, access=access.condition)
        written = await write_status(ctx, made.live, status)
        rollout.count(made.rolled, obj.get("status") or {}, status)
        resolving.count(view.source, made.resolution, obj.get("status") or {}, status)
        announce(ctx, obj, status)
        self._wake_adapters(key, ctx, view, written)
        waits = [again, observe.settling(view.pods, view.agents), canaries.look_again(view.selection), access.look_again_seconds]
        waits += made.look_again()
        return Result(requeue_after_seconds=min((wait for wait in waits if wait is not None), default=None))

    def _forget(self, key: Key, ctx: Context) -> None:
        ctx.agents.watch(key, [])
        ctx.fills.watch(key, [])
        if ctx.prometheus:
            ctx.prometheus.forget(key)
        self._tellers.pop(key, None)
        self._news.forget(key)
        self._watching.forget(key)
        self._access.forget(key)

    async def _tell(self, key: Key, ctx: Context, view: _View) -> float | None:
        """Tell pods of the ConfigMap as it was written, whoever wrote it in whichever pass."""
        config_map = ctx.mirror.get("ConfigMap", key.namespace, names.adapters_config_map(key.name))
        text = ((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY)
        if text is None:
            return None
        teller = self._tellers.setdefault(key, Teller())
        return await teller.tell(ctx, key.namespace, view.pods, view.agents, adapters_file.content_hash(text))

    def _wake_adapters(self, key: Key, ctx: Context, view: _View, written: Object) -> None:
        """Wake the LoRAAdapters whose own statuses show something else now; what is decided of them follows from the status just written."""
        selection = NOTHING
        if view.resource:
            selection = observe.selection(ctx, LLMDeployment.from_object(written), view.pods, view.agents)
        listed = adapters_file.listed(ctx.mirror.get("ConfigMap", key.namespace, names.adapters_config_map(key.name)))
        settling = observe.settling(view.pods, view.agents) is not None
        general = news.general(view.pods, view.agents, settling=settling, stalled=observe.stalled(written))
        shown = news.shown(observe.adapters(ctx, key.namespace), selection, view.agents, listed)
        for name in self._news.concerned(key, general, shown):
            ctx.wake(Key("LoRAAdapter", key.namespace, name), 0)


def _retry(problem: Problem | None) -> float | None:
    """Return when to look at a problem again that nobody may tell of."""
    if problem is None:
        return None
    return observe.LEFTOVER_SECONDS if problem.reason is Reason.PROGRESSING else PROBLEM_RETRY_SECONDS


async def _gather(key: Key, ctx: Context, obj: Object) -> _View:
    pods = observe.pods(ctx, key.namespace, serving.selector(key.name))
    ctx.agents.watch(key, observe.refs(key.namespace, pods))
    agents = observe.agents(ctx, pods)
    try:
        resource = LLMDeployment.from_object(obj)
    except InvalidObjectError as error:
        return _View(obj, None, None, pods, agents, NOTHING, None, Problem(Reason.INVALID_SPEC, str(error)), None)
    store = await observe.store_problem(ctx, key.namespace)
    source = sources.parse("spec.model.source", resource.spec.model.source, sources.MODEL_KINDS)
    problems = [*_problems(resource, source), *_identity(resource, source, ctx)]
    if store and store.reason is Reason.STORE_NOT_SHARED:
        problems.append(store)
    adapters, rules, seen = observe.inputs(ctx, resource, pods, agents, nothing_new=store is not None)
    selection = canaries.decide(key, ctx, adapters, rules, seen, advance=not problems)
    unserved = store if store and observe.adapters(ctx, key.namespace) else None
    parsed = source if isinstance(source, Source) else None
    return _View(obj, resource, parsed, pods, agents, selection, rules, problems[0] if problems else None, unserved)


def _identity(resource: LLMDeployment, source: Source | Problem, ctx: Context) -> list[Problem]:
    found = identity.problem(resource, source, resource.spec.cache.mode, ctx.config) if isinstance(source, Source) else None
    return [found] if found else []


def _problems(resource: LLMDeployment, source: Source | Problem) -> list[Problem]:
    """Return what of the spec cannot be served and the schema could not know."""
    found = [source] if isinstance(source, Problem) else []
    found += engine.problems(resource.spec.engine)
    found += engine_combinations.problems(resource)
    aliases = [alias.name for alias in resource.spec.adapters.aliases]
    found += [
        Problem(Reason.INVALID_SPEC, f"spec.adapters.aliases has {name!r} twice; remove one of them")
        for name in sorted({name for name in aliases if aliases.count(name) > 1})
    ]
    return found


async def _remember(key: Key, ctx: Context, view: _View) -> Object:
    """Write what a canary has come to before pods are told of it, and return the object as it is then.

    The pods are told by a ConfigMap. A pass that ended between that and the status would leave the old standing, by which the next pass would take
    the decision back: a failed version would get its share again. This way around the next pass finds pods that were told less, and tells them.
    """
    if not canaries.decided(view.obj, view.selection):
        return view.obj
    rows = _status(key, ctx, view, _Made(view.obj, view.problem))["adapters"]
    live = await write_status(ctx, view.obj, {**(view.obj.get("status") or {}), "adapters": rows})
    canaries.tell(ctx, view.obj, view.selection)
    return live


async def _make(key: Key, ctx: Context, view: _View, made: _Made, *, watched: float) -> None:
    """Make the children, step by step; what has been found before something goes wrong stays in `made`."""
    assert view.resource
    assert view.source
    assert view.rules
    resource = capacity.resolved(view.resource, view.rules.max_rank)
    try:
        made.rolled = await _decide(ctx, view, resource, view.source, made, watched=watched)
        if made.rolled:
            made.live = await rollout.remember(ctx, made.live, made.rolled)
            await _apply(ctx, view, resource, view.rules, made.rolled)
        else:
            await apply_children(ctx, view.obj, _common(view, resource, view.rules), resolving.PRUNED_WHILE_WAITING)
    except (Forbidden, Invalid, NameTaken) as error:
        made.rolled, made.problem = None, observe.not_made(key, error)


async def _decide(ctx: Context, view: _View, resource: LLMDeployment, source: Source, made: _Made, *, watched: float) -> Rollout | None:
    """Return which pods there are to be: of the present spec when its model is known, can be served and is where they find it; else as they are."""
    resolution = await resolving.resolve(ctx, view.obj, resource, source)
    if resolution.resolved:
        resolution = replace(resolution, detected=mode.said(resource, resolution.resolved.facts))
    made.resolution, refused = resolution, model_combinations.problem(resource, resolution.resolved)
    made.problem = refused or resolution.problem
    served = modes.mode(ctx, resource, view.pods, view.agents, resolution.resolved)
    if not (resolution.waiting or refused):
        made.weights = await caching.follow(ctx, view.obj, resource, source, resolution.resolved, mode=served)
        made.problem = made.problem or made.weights.problem
    rolled: Rollout | None
    if made.weights is None or made.weights.waiting:
        rolled = rollout.held(ctx, view.obj, resource, pods=view.pods, agents=view.agents, watched_seconds=watched)
    else:
        rolled = _plan(ctx, view, resource, source, resolution=resolution, weights=made.weights, served=served, watched=watched)
    if rolled:
        held = made.weights.held if made.weights else caching.lying(ctx, view.obj, resource, source)
        rolled, weightless_problem = weightless.capped(rolled, resource, view.pods, held)
        made.problem = made.problem or weightless_problem
    return rolled


def _plan(
    ctx: Context, view: _View, resource: LLMDeployment, source: Source, *, resolution: Resolution, weights: Caching, served: Mode, watched: float
) -> Rollout:
    images = {"engine": resource.spec.engine.image or ctx.config.images.engine, "agent": ctx.config.images.agent}
    pinned = sources.pinned(source, resolution.resolved.revision) if resolution.resolved else source

    def render(template_hash: str) -> Manifest:
        return serving.pod_template(resource, serving.Inputs(pinned, resolution.resolved, served, caching.where(weights)), ctx.config, template_hash)

    return rollout.plan(
        ctx,
        view.obj,
        resource,
        render=render,
        images=images,
        pods=view.pods,
        agents=view.agents,
        watched_seconds=watched,
        resolved=resolution.resolved,
        mode=served,
    )


def _common(view: _View, resource: LLMDeployment, rules: Rules) -> list[Manifest]:
    """Return the children that need nothing of the model: the ConfigMap first, so that a taken name is found before a pod is made."""
    ready = sum(1 for pod in view.pods if pod.active and pod.ready)
    return [
        children.adapters_config_map(view.obj["metadata"]["name"], adapters_file.content(view.selection, rules, ready)),
        children.service(resource),
        children.disruption_budget(resource),
    ]


async def _apply(ctx: Context, view: _View, resource: LLMDeployment, rules: Rules, rolled: Rollout) -> None:
    """Apply the children, the Deployment last."""
    decision = rolled.decision
    strategy = {"surge": decision.surge, "unavailable": decision.unavailable}
    deployment = children.deployment(resource, rolled.applied.template, **strategy, replicas=rolled.replicas)
    await rollout.check(ctx, view.obj, deployment)
    await apply_children(ctx, view.obj, [*_common(view, resource, rules), rolled.wanted.manifest, deployment])
    for name in rolled.wanted.outdated:
        await ctx.cluster.delete("ControllerRevision", view.obj["metadata"]["namespace"], name)


def _status(key: Key, ctx: Context, view: _View, made: _Made, *, access: Condition | None = None) -> dict[str, object]:
    rolled = made.rolled
    deployment = ctx.mirror.get("Deployment", key.namespace, key.name) or {}
    service = ctx.mirror.get("Service", key.namespace, key.name) or {}
    ports = (service.get("spec") or {}).get("ports") or [{"port": names.PORT_ENGINE}]
    spec = deployment.get("spec") or {}
    before = view.obj.get("status") or {}
    template = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    wanted = view.resource.spec.replicas if view.resource else int(spec.get("replicas") or 0)
    failures = [item for item in (deployment.get("status") or {}).get("conditions") or [] if item.get("type") == "ReplicaFailure"]
    return serving_status.status(
        serving_status.Observed(
            name=key.name,
            namespace=key.namespace,
            generation=view.obj["metadata"].get("generation", 0),
            port=ports[0]["port"],
            wanted=wanted,
            template_hash=rolled.applied.template_hash if rolled else template.get(names.ANNOTATION_TEMPLATE_HASH, ""),
            revision=rolled.applied.number if rolled else None,
            pods=view.pods,
            agents=view.agents,
            selection=view.selection,
            weakened=podsecurity.told((spec.get("template") or {}).get("spec") or {}),
            limits=observe.live_limits(ctx, key.namespace, key.name),
            problem=made.problem,
            adapters_problem=view.adapters_problem,
            refused_pods=next((item.get("message") or "" for item in failures if item.get("status") == "True"), ""),
            settling=view.resource is None or observe.settling(view.pods, view.agents) is not None,
            before=before,
            now=observe.now(ctx),
            resolution=made.resolution,
            caching=made.weights,
            record=rolled.decision.record if rolled else None,
            rollout_problem=rolled.decision.problem if rolled else None,
            access=access,
        )
    )
