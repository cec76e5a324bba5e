"""LoRAAdapter: say where it is loaded; when it is deleted, hold it until no engine has it any more."""

from __future__ import annotations

from datetime import timedelta

from graftwork import names
from graftwork.api import InvalidObjectError, LLMDeployment, LoRAAdapter
from graftwork.clock import parse_rfc3339
from graftwork.facts import adapters as adapter_facts
from graftwork.facts.adapters import Adapter
from graftwork.facts.problem import Problem
from graftwork.plan import adapters_file, serving
from graftwork.plan.adapters import matches
from graftwork.reasons import Reason
from graftwork.reconcile import importing, observe
from graftwork.reconcile.announce import announce
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.reconcile.objects import drop_finalizer, ensure_finalizer, is_deleting, write_status
from graftwork.status import adapters as seen_adapters
from graftwork.status import conditions, lora

UNLOAD_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 1.0


class LoRAAdapterReconciler:
    """One pass for one LoRAAdapter."""

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Write what was seen of the adapter, or let it go."""
        obj = ctx.mirror.get(key.kind, key.namespace, key.name)
        if obj is None:
            return Result(gone=True)
        problem: Problem | None = None
        resource: LoRAAdapter | None = None
        try:
            resource = LoRAAdapter.from_object(obj)
        except InvalidObjectError as error:
            problem = Problem(Reason.INVALID_SPEC, str(error))
        if is_deleting(obj):  # an import goes on until then or not: its Job goes by its owner reference
            return await _let_go(key, ctx, obj, adapter_facts.adapter(resource) if resource else None)
        obj = await ensure_finalizer(ctx, obj)
        problem = problem or await observe.store_problem(ctx, key.namespace)
        again = None
        if resource and not problem and not adapter_facts.adapter(resource).stored:
            step = await importing.follow(key, ctx, obj, resource)
            obj, problem, again = step.obj, step.problem, step.again_seconds
            resource = LoRAAdapter.from_object(obj)
        adapter = adapter_facts.adapter(resource) if resource else None
        places = _places(key, ctx, adapter) if adapter and not problem else []
        status = lora.status(
            lora.Observed(
                generation=obj["metadata"].get("generation", 0),
                adapter=adapter if adapter and adapter.stored else None,
                places=places,
                problem=problem,
                before=obj.get("status") or {},
                now=observe.now(ctx),
                unreadable=tuple(_unreadable(ctx, key.namespace)),
            )
        )
        await write_status(ctx, obj, status)
        announce(ctx, obj, status)
        if resource and resource.spec.imported and adapter and adapter.stored:
            await importing.clear(ctx, obj)
        waiting = any(place.settling for place in places)
        return Result(requeue_after_seconds=observe.SETTLE_SECONDS if waiting else again)


def _deployments(ctx: Context, namespace: str) -> list[LLMDeployment]:
    """Return the namespace's LLMDeployments that can be read and are to stay."""
    found = []
    for obj in ctx.mirror.list("LLMDeployment", namespace):
        try:
            resource = LLMDeployment.from_object(obj)
        except InvalidObjectError:
            continue
        if not resource.metadata.deleting:
            found.append(resource)
    return found


def _unreadable(ctx: Context, namespace: str) -> list[str]:
    """Return what is wrong with the namespace's LLMDeployments that cannot be read: nobody knows what those select."""
    found = []
    for obj in ctx.mirror.list("LLMDeployment", namespace):
        try:
            LLMDeployment.from_object(obj)
        except InvalidObjectError as error:
            found.append(f"LLMDeployment {obj['metadata']['name']} cannot be read: {error}")
    return found


def _places(key: Key, ctx: Context, adapter: Adapter) -> list[lora.Place]:
    """Return what each deployment whose selector takes the adapter decided of it, and what its pods have."""
    places = []
    for deployment in _deployments(ctx, key.namespace):
        if not matches(deployment.spec.adapters.selector.match_labels, adapter.labels):
            continue
        pods = observe.pods(ctx, key.namespace, serving.selector(deployment.metadata.name))
        agents = observe.agents(ctx, pods)
        selection = observe.selection(ctx, deployment, pods, agents)
        decision = selection.decisions.get(adapter.name)
        if decision is None:
            continue
        ready = [pod for pod in pods if pod.active and pod.ready]
        places.append(
            lora.Place(
                deployment=deployment.metadata.name,
                decision=decision,
                loaded=seen_adapters.loaded_pods(adapter, ready, agents),
                of=len(ready),
                trouble=seen_adapters.trouble(adapter, [pod for pod in pods if pod.active], agents) if decision.offered else None,
                silent=tuple(seen_adapters.unreachable(ready, agents)),
                settling=observe.settling(pods, agents) is not None,
                blocked=observe.stalled({"status": deployment.status}),
            )
        )
    return places


async def _let_go(key: Key, ctx: Context, obj: Object, adapter: Adapter | None) -> Result:
    """Drop the finalizer once no engine has the adapter, or when the deadline has passed: nobody waits for a pod that does not answer."""
    if names.FINALIZER not in (obj["metadata"].get("finalizers") or []):
        return Result()
    holders = _holders(key, ctx, adapter) if adapter and adapter.stored else []
    since = parse_rfc3339(obj["metadata"]["deletionTimestamp"])
    if not holders or ctx.clock.now() >= since + timedelta(seconds=UNLOAD_SECONDS):
        if holders:
            text = f"deleted although it is still loaded in {', '.join(holders)}: {UNLOAD_SECONDS:.0f} s have passed"
            ctx.events.record(obj, str(Reason.DELETING), text, warning=True)
        await drop_finalizer(ctx, obj)
        return Result()
    before = obj.get("status") or {}
    told = conditions.written(
        conditions.progressing(Reason.DELETING, f"waiting until it is unloaded in {', '.join(holders)}"),
        before.get("conditions") or [],
        obj["metadata"].get("generation", 0),
        observe.now(ctx),
    )
    await write_status(ctx, obj, {**before, "conditions": told})
    return Result(requeue_after_seconds=LOOK_AGAIN_SECONDS)


def _holders(key: Key, ctx: Context, adapter: Adapter) -> list[str]:
    """Return who still has the adapter: pods whose agents say so or have not been heard yet, and deployments whose pods are yet to be told."""
    twins = [other for other in observe.adapters(ctx, key.namespace) if other.engine_name == adapter.engine_name and not other.deleting]
    holders = []
    for deployment in _deployments(ctx, key.namespace):
        labels = deployment.spec.adapters.selector.match_labels
        if any(matches(labels, twin.labels) for twin in twins):
            continue  # the same files are served for another LoRAAdapter
        name = deployment.metadata.name
        config_map = ctx.mirror.get("ConfigMap", key.namespace, names.adapters_config_map(name))
        pods = observe.pods(ctx, key.namespace, serving.selector(name))
        agents = observe.agents(ctx, pods)
        if adapter.engine_name in adapters_file.listed(config_map) and any(pod.active for pod in pods):
            holders.append(f"LLMDeployment {name}")
        for pod in pods:
            agent = agents.get(pod.uid)
            seen = agent.adapter(adapter.engine_name) if agent else None
            if agent and seen and seen.present and agent.reachable:
                holders.append(f"pod {pod.name}")
            elif agent and pod.ready and not agent.answered and agent.silent_seconds < observe.SETTLE_SECONDS:
                holders.append(f"pod {pod.name} (its agent has not been heard yet)")  # this operator may have just started
    return holders
