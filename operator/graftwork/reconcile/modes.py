"""Which mode a deployment's engines are started in: by the model's facts, or where nobody looked before the pods, by what their agents read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.facts import inspected
from graftwork.facts.agents import Agent
from graftwork.facts.inspected import Resolved
from graftwork.facts.pods import Pod
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
    read = _read(deployment, known, pods, agents)
    if known:
        found = modes.of_facts(deployment, known.facts)
        return replace(found, without_lora="") if read == ADAPTERS_ON else found
    return read or _stored(ctx, deployment)


def _read(deployment: LLMDeployment, known: Resolved | None, pods: Sequence[Pod], agents: Mapping[str, Agent]) -> Mode | None:
    """Return the mode by what the newest agent read in the model that the spec names; None if none has read it.

    A pod that is ready with adapters proves more than the table of architectures does.
    """
    source = f"{known.source}@{known.revision}" if known else deployment.spec.model.source.rstrip("/")
    same = [pod for pod in pods if pod.active and pod.model == source]
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
