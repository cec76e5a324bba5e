"""LLMDeployment: observe, plan, apply, tell the pods, write the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftwork import names
from graftwork.api import InvalidObjectError, LLMDeployment
from graftwork.errors import Forbidden, Invalid, NameTaken
from graftwork.facts.adapters import NOTHING, Selection
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import adapters_file, capacity, children, engine, engine_combinations, podsecurity, revisions, serving, sources
from graftwork.plan.adapters import Rules
from graftwork.plan.revisions import Revision
from graftwork.plan.sources import Source
from graftwork.reasons import Reason
from graftwork.reconcile import canaries, observe
from graftwork.reconcile.announce import announce
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.reconcile.objects import is_deleting, write_status
from graftwork.reconcile.tell import Teller
from graftwork.status import serving as serving_status

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


class LLMDeploymentReconciler:
    """One pass for one LLMDeployment. It keeps nothing that must survive: only patience with slow pods, and what it told others."""

    def __init__(self) -> None:
        self._tellers: dict[Key, Teller] = {}
        self._told: dict[Key, object] = {}

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Make the children be as the spec says; with a spec that cannot be served, leave them as they are and say why."""
        obj = ctx.mirror.get(key.kind, key.namespace, key.name)
        if obj is None or is_deleting(obj):  # the children go by their owner references
            ctx.agents.watch(key, [])
            if ctx.prometheus:
                ctx.prometheus.forget(key)
            self._tellers.pop(key, None)
            self._told.pop(key, None)
            return Result(gone=obj is None)
        view = await _gather(key, ctx, obj)
        problem, revision = view.problem, None
        live = await _remember(key, ctx, view)
        if view.resource and view.source and view.rules and not problem:
            try:
                revision = await _apply(ctx, view, capacity.resolved(view.resource, view.rules.max_rank), view.source, view.rules)
            except NameTaken as error:
                problem = observe.name_taken(key, error)
            except Invalid as error:
                problem = Problem(Reason.INVALID_SPEC, f"the API server refuses what the spec asks for: {error}")
            except Forbidden as error:
                problem = observe.refused(error)
        again = None
        try:
            again = await self._tell(key, ctx, view)
        except (Forbidden, Invalid) as error:
            problem = problem or observe.refused(error)
        status = _status(key, ctx, view, problem, revision)
        await write_status(ctx, live, status)
        announce(ctx, obj, status)
        self._wake_adapters(key, ctx, view)
        waits = [again, observe.settling(view.pods, view.agents)]
        waits += [_retry(problem), canaries.look_again(view.selection)]
        return Result(requeue_after_seconds=min((wait for wait in waits if wait is not None), default=None))

    async def _tell(self, key: Key, ctx: Context, view: _View) -> float | None:
        """Tell pods of the ConfigMap as it was written, whoever wrote it in whichever pass."""
        config_map = ctx.mirror.get("ConfigMap", key.namespace, names.adapters_config_map(key.name))
        text = ((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY)
        if text is None:
            return None
        teller = self._tellers.setdefault(key, Teller())
        return await teller.tell(ctx, key.namespace, view.pods, view.agents, adapters_file.content_hash(text))

    def _wake_adapters(self, key: Key, ctx: Context, view: _View) -> None:
        """Wake the namespace's LoRAAdapters when agents say something new of adapters: their statuses show it too."""
        said = frozenset((uid, agent.reachable, agent.adapters) for uid, agent in view.agents.items())
        ready = frozenset(pod.uid for pod in view.pods if pod.ready)
        if self._told.get(key) != (said, ready):
            self._told[key] = (said, ready)
            for adapter in ctx.mirror.list("LoRAAdapter", key.namespace):
                ctx.wake(Key("LoRAAdapter", key.namespace, adapter["metadata"]["name"]), 0)


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
    problems = _problems(resource, source)
    if store and store.reason is Reason.STORE_NOT_SHARED:
        problems.append(store)
    adapters, rules, seen = observe.inputs(ctx, resource, pods, agents, nothing_new=store is not None)
    selection = canaries.decide(key, ctx, adapters, rules, seen, advance=not problems)
    unserved = store if store and observe.adapters(ctx, key.namespace) else None
    parsed = source if isinstance(source, Source) else None
    return _View(obj, resource, parsed, pods, agents, selection, rules, problems[0] if problems else None, unserved)


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
    rows = _status(key, ctx, view, view.problem, None)["adapters"]
    live = await write_status(ctx, view.obj, {**(view.obj.get("status") or {}), "adapters": rows})
    canaries.tell(ctx, view.obj, view.selection)
    return live


async def _apply(ctx: Context, view: _View, resource: LLMDeployment, source: Source, rules: Rules) -> Revision:
    """Apply the children: the ConfigMap first, the Deployment last, so that a taken name is found before a pod is made."""
    metadata = view.obj["metadata"]
    stored = ctx.mirror.list("ControllerRevision", metadata["namespace"], {names.LABEL_OWNER_UID: metadata["uid"]})
    images = {"engine": resource.spec.engine.image or ctx.config.images.engine, "agent": ctx.config.images.agent}
    revision = revisions.revision(resource, stored, lambda wanted: serving.pod_template(resource, source, ctx.config, wanted), images)
    ready = sum(1 for pod in view.pods if pod.active and pod.ready)
    desired = [
        children.adapters_config_map(metadata["name"], adapters_file.content(view.selection, rules, ready)),
        children.service(resource),
        children.disruption_budget(resource),
        revision.manifest,
        children.deployment(resource, revision.template),
    ]
    await apply_children(ctx, view.obj, desired)
    for name in revision.outdated:
        await ctx.cluster.delete("ControllerRevision", metadata["namespace"], name)
    return revision


def _status(key: Key, ctx: Context, view: _View, problem: Problem | None, revision: Revision | None) -> dict[str, object]:
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
            template_hash=revision.template_hash if revision else template.get(names.ANNOTATION_TEMPLATE_HASH, ""),
            revision=revision.number if revision else None,
            pods=view.pods,
            agents=view.agents,
            selection=view.selection,
            weakened=podsecurity.told((spec.get("template") or {}).get("spec") or {}),
            limits=observe.live_limits(ctx, key.namespace, key.name),
            problem=problem,
            adapters_problem=view.adapters_problem,
            refused_pods=next((item.get("message") or "" for item in failures if item.get("status") == "True"), ""),
            settling=view.resource is None or observe.settling(view.pods, view.agents) is not None,
            before=before,
            now=observe.now(ctx),
        )
    )
