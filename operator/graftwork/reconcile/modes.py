"""Which mode a deployment's engines are started in: by the model's facts, or where nobody looked before the pods, by what their agents read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.facts import inspected
from graftwork.facts.agents import Agent
from graftwork.facts.inspected import Resolved
from graftwork.facts.limits import limits
from graftwork.facts.pods import Pod
from graftwork.facts.rollout import record
from graftwork.plan import inspecting, revisions
from graftwork.plan import mode as modes
from graftwork.plan.mode import ADAPTERS_OFF, ADAPTERS_ON, Mode
from graftwork.reconcile.context import Context


def mode(ctx: Context, deployment: LLMDeployment, pods: Sequence[Pod], agents: Mapping[str, Agent], resolved: Resolved | None = None) -> Mode:
    """Return the mode. `resolved` is what the source is frozen to, as this pass found it; else the status remembers it.

    Pods of a source that nobody looked into are made with adapters. When an agent has read an architecture that takes none, they are made anew
    without; the stored template tells so when no pod is there to say it.
    """
    known = resolved or inspected.remembered(deployment.status, inspecting.key(deployment))
    if known is None:
        return _read(deployment, pods, agents) or _stored(ctx, deployment)
    found = modes.of_facts(deployment, known.facts)
    if found.without_lora:
        return replace(found, without_lora="") if _proven(ctx, deployment, known, pods) else found
    bare = replace(found, without_lora=known.facts.architecture)
    return bare if _serves(ctx, deployment, known, bare) else found


def _serves(ctx: Context, deployment: LLMDeployment, known: Resolved, mode: Mode) -> bool:
    """Whether the pods of this very spec have that mode: a newer Graftwork, which knows vLLM better, changes it with the next edit only."""
    live = ctx.mirror.get("Deployment", deployment.metadata.namespace, deployment.metadata.name) or {}
    applied = revisions.stored_hash((live.get("spec") or {}).get("template") or {"metadata": {}})
    pin, rolling = known.revision, deployment.spec.rollout.upgrade_policy == "Rolling"
    return not rolling and applied == revisions.template_hash(deployment, pin, mode)


def _proven(ctx: Context, deployment: LLMDeployment, known: Resolved, pods: Sequence[Pod]) -> bool:
    """Whether engines with adapters have served this model: a pod that is ready, or was good, proves more than the table of architectures does."""
    metadata = deployment.metadata
    stored = ctx.mirror.list("ControllerRevision", metadata.namespace, {names.LABEL_OWNER_UID: metadata.uid})
    of_model = {
        revisions.stored_hash(item)
        for item in stored
        if ((item.get("data") or {}).get("model") or {}).get("revision") == known.revision and limits(item["data"]["template"].get("spec"))
    }
    good = record(deployment.status.get("rollout")).last_good
    return good in of_model or any(pod.ready and pod.template_hash in of_model for pod in pods)


def _read(deployment: LLMDeployment, pods: Sequence[Pod], agents: Mapping[str, Agent]) -> Mode | None:
    """Return the mode by what the newest agent read in a model that nobody looked into before; None if none has read it."""
    source = deployment.spec.model.source.rstrip("/")
    same = [pod for pod in pods if pod.active and pod.model.rstrip("/") == source]
    if any(pod.ready and pod.limits for pod in same):
        return ADAPTERS_ON
    for pod in sorted(same, key=lambda item: (item.created, item.name), reverse=True):
        agent = agents.get(pod.uid)
        if agent and agent.base and agent.base.architecture:
            return modes.of_architecture(deployment, agent.base.architecture)
    return None


def _stored(ctx: Context, deployment: LLMDeployment) -> Mode:
    """Return the mode of the template that was made of this spec before: one without adapters is made only when an agent has said so."""
    metadata = deployment.metadata
    stored = ctx.mirror.list("ControllerRevision", metadata.namespace, {names.LABEL_OWNER_UID: metadata.uid})
    bare = revisions.template_hash(deployment, mode=ADAPTERS_OFF)
    if any(revisions.stored_hash(item) == bare for item in stored):
        said = str((deployment.status.get("model") or {}).get("architecture") or "")
        return Mode(without_lora=said or ADAPTERS_OFF.without_lora)
    return ADAPTERS_ON
