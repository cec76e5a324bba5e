"""The status of an LLMDeployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.facts.adapters import Selection
from graftwork.facts.agents import Agent
from graftwork.facts.cached import Caching
from graftwork.facts.inspected import Resolution
from graftwork.facts.limits import Limits
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.facts.rollout import Record, record
from graftwork.names import LABEL_DEPLOYMENT
from graftwork.reasons import Reason
from graftwork.status import adapters as adapter_rows
from graftwork.status import caching, conditions, resolving
from graftwork.status import rollout as rollouts
from graftwork.status.cold_start import cold_start
from graftwork.status.conditions import FALSE, SERVING, TRUE, Condition
from graftwork.status.failures import first_problem
from graftwork.status.keys import keys_problem


@dataclass(frozen=True)
class Observed:
    """Everything that the status of an LLMDeployment is computed from. `agents` has the agent of each pod, by pod uid."""

    name: str
    namespace: str
    generation: int
    port: int
    wanted: int
    template_hash: str
    """Of the revision that is applied: after a rollback not the one that the spec asks for."""
    revision: int | None
    pods: Sequence[Pod]
    agents: Mapping[str, Agent]
    selection: Selection
    problem: Problem | None
    """What is wrong with the spec, or with making the children."""
    adapters_problem: Problem | None
    """What keeps all adapters from being served, such as no store."""
    refused_pods: str
    """What the API server says when it refuses to make pods (quota, admission)."""
    settling: bool
    """Whether agents that were not heard yet still have time to answer: what they said before stays."""
    before: Mapping[str, Any]
    now: str
    access: Condition | None = None
    """Whether what spec.access asks for is there; None: it asks for nothing."""
    limits: Limits | None = None
    """What the engines of the present template are started with; None: not known."""
    resolution: Resolution | None = None
    """How the model's source stands; None: not asked in this pass."""
    caching: Caching | None = None
    """How the weights come to pods; None: not asked in this pass."""
    record: Record | None = None
    """What is remembered of revisions; None: nothing was decided in this pass, so what the status says stays."""
    rollout_problem: Problem | None = None
    """What hinders the rollout, though nothing was rolled back."""
    weakened: str = ""
    """What of the present template is weaker than the restricted Pod Security Standard."""


def status(seen: Observed) -> dict[str, Any]:
    """Return the whole status."""
    active = [pod for pod in seen.pods if pod.active]
    ready = [pod for pod in active if pod.ready]
    rows, loaded = adapter_rows.rows_and_condition(
        seen.selection,
        ready,
        seen.agents,
        seen.wanted,
        seen.adapters_problem,
        slots=seen.limits.slots if seen.limits else 0,
        restart=_restarting(seen, active),
    )
    written_rows = [row.to_object() for row in rows]
    before = seen.before.get("conditions") or []
    remembered = seen.record or record(seen.before.get("rollout"))
    kstatus = _kstatus(seen, remembered, active, ready)
    placed = rollouts.placed(active, seen.wanted, seen.refused_pods)
    weakened = [Condition(conditions.POD_SECURITY, FALSE, Reason.SECURITY_WEAKENED, seen.weakened)] if seen.weakened else []
    asked = [
        *resolving.condition(seen.resolution, before),
        *caching.condition(seen.caching, before),
        *([seen.access] if seen.access else []),
        *weakened,
    ]
    all_conditions = [*kstatus, _serving(seen, ready), placed, rollouts.rolled_back(remembered), *asked, loaded]
    written = conditions.written(all_conditions, before, seen.generation, seen.now)
    if seen.settling and conditions.find(before, conditions.ADAPTERS_LOADED):
        written[-1] = {**conditions.find(before, conditions.ADAPTERS_LOADED), "observedGeneration": seen.generation}
        written_rows = adapter_rows.settled(seen.before.get("adapters") or [], written_rows)
    good = sum(1 for row in written_rows if row["of"] and row["loaded"] == row["of"])
    number = f", revision {seen.revision}" if seen.revision is not None else ""
    return {
        "observedGeneration": seen.generation,
        "conditions": written,
        "summary": f"{len(ready)}/{seen.wanted} ready, {_count(good, len(written_rows))}{number}",
        "replicas": len(active),
        "readyReplicas": len(ready),
        "replicasText": f"{len(ready)}/{seen.wanted}",
        "adaptersText": f"{good}/{len(written_rows)}",
        "selector": f"{LABEL_DEPLOYMENT}={seen.name}",
        "endpoint": f"http://{seen.name}.{seen.namespace}.svc:{seen.port}/v1",
        "model": resolving.model(_model(seen, ready), seen.before.get("model"), seen.resolution),
        "cache": caching.cache(seen.caching, seen.before.get("cache")),
        "adapters": written_rows,
        "rollout": rollouts.rollout(seen.before.get("rollout"), seen.revision, seen.template_hash, ready, seen.record),
        "coldStart": cold_start(seen.before.get("coldStart"), ready, seen.agents, seen.template_hash),
    }


def _restarting(seen: Observed, active: Sequence[Pod]) -> str:
    """Return which engines are being replaced for the sake of adapters.maxLoaded or adapters.maxRank; nothing if all were started alike."""
    old = [pod.limits for pod in active if seen.limits and pod.limits and pod.limits != seen.limits]
    if not old or not seen.limits:
        return ""
    return (
        f"adapters.maxLoaded or adapters.maxRank changed: {len(old)} of {len(active)} pods have engines that were started with {old[0].flags}; they "
        f"are replaced one after another by engines with {seen.limits.flags}, and what is served goes on"
    )


def _count(good: int, of: int) -> str:
    if not of:
        return "no adapters"
    return f"{good}/{of} adapter{'s' if of != 1 else ''}"


def _kstatus(seen: Observed, remembered: Record, active: Sequence[Pod], ready: Sequence[Pod]) -> tuple[Condition, ...]:
    """Return Ready, Reconciling and Stalled. Ready is "as asked": enough pods of the present template, and none of an older one."""
    if seen.problem:
        kept = f" (what was served before goes on: {len(ready)} ready)" if ready and seen.problem.needs_user else ""
        return conditions.of_problem(Problem(seen.problem.reason, seen.problem.message + kept, seen.problem.needs_user))
    current = [pod for pod in ready if pod.template_hash == seen.template_hash]
    old = [pod for pod in active if pod.template_hash != seen.template_hash]
    if seen.wanted == 0:
        return _stopped(active)
    if remembered.failed:
        return rollouts.stalled(remembered, len(ready))
    if len(current) >= seen.wanted and not old:
        keys = keys_problem(active, seen.agents, seen.template_hash)
        if keys:
            return conditions.of_problem(keys)
        return conditions.ready(Reason.RECONCILED, f"{len(current)} of {seen.wanted} pods are ready")
    return _on_the_way(seen, active, ready)


def _stopped(active: Sequence[Pod]) -> tuple[Condition, ...]:
    if active:
        return conditions.progressing(Reason.PROGRESSING, f"spec.replicas is 0; {len(active)} pods are still ending")
    return conditions.ready(Reason.STOPPED, "spec.replicas is 0")


def _on_the_way(seen: Observed, active: Sequence[Pod], ready: Sequence[Pod]) -> tuple[Condition, ...]:
    """Return the three while pods are missing: what is known to be wrong with one, or how far they are."""
    problem = seen.rollout_problem or first_problem(pod for pod in active if pod.template_hash == seen.template_hash)
    if problem:
        kept = f"; {len(ready)} ready pods go on serving" if ready else ""
        problem = resolving.with_remedy(problem, seen.name)
        return conditions.of_problem(Problem(problem.reason, problem.message + kept, problem.needs_user))
    if seen.refused_pods:
        return conditions.progressing(Reason.PODS_REFUSED, f"the API server refuses to make pods: {seen.refused_pods}")
    base_error = _base_error(active, seen.agents)
    if base_error and not ready:
        return conditions.stalled(Reason.MODEL_INVALID, base_error)
    keys = keys_problem(active, seen.agents, seen.template_hash)
    if keys:
        return conditions.of_problem(keys)
    reason = Reason.PROGRESSING if ready else Reason.PODS_STARTING
    current = sum(1 for pod in ready if pod.template_hash == seen.template_hash)
    old = sum(1 for pod in active if pod.template_hash != seen.template_hash)
    rest = f"; {old} of an older revision remain" if old else ""
    return conditions.progressing(reason, f"{current} of {seen.wanted} pods of the present revision are ready{rest}{_said(seen, active)}")


def _said(seen: Observed, active: Sequence[Pod]) -> str:
    """Return what the first engine that starts says of why it does not serve yet."""
    for pod in sorted(active, key=lambda item: item.name):
        agent = seen.agents.get(pod.uid)
        if not pod.ready and pod.template_hash == seen.template_hash and agent and agent.said:
            return f"; vLLM of pod {pod.name} last said: {agent.said}"
    return ""


def _base_error(active: Sequence[Pod], agents: Mapping[str, Agent]) -> str:
    for pod in active:
        agent = agents.get(pod.uid)
        if agent and agent.reachable and agent.base_error:
            return f"the agent of pod {pod.name} cannot read the base model: {agent.base_error}"
    return ""


def _serving(seen: Observed, ready: Sequence[Pod]) -> Condition:
    if ready:
        return Condition(SERVING, TRUE, Reason.SERVING, f"{len(ready)} pods answer")
    if seen.wanted == 0:
        return Condition(SERVING, FALSE, Reason.STOPPED, "spec.replicas is 0")
    return Condition(SERVING, FALSE, Reason.NOT_SERVING, "no pod is ready")


def _model(seen: Observed, ready: Sequence[Pod]) -> Mapping[str, Any] | None:
    """Return the facts of the base model as the newest pod's agent read them; without any, what was known before."""
    active = [pod for pod in seen.pods if pod.active]
    present = [pod for pod in active if pod.template_hash == seen.template_hash]
    for pod in sorted(present or list(ready), key=lambda item: (item.ready, item.created, item.name), reverse=True):
        agent = seen.agents.get(pod.uid)
        if agent and agent.base:
            base = agent.base
            return {
                "fingerprint": base.fingerprint,
                "architecture": base.architecture,
                "parameters": base.parameters,
                "weightsBytes": base.weights_bytes,
                "maxModelLen": base.max_model_len,
                **({"facts": base.model.model_dump(mode="json", by_alias=True, exclude_none=True)} if base.model else {}),
            }
    return seen.before.get("model")
