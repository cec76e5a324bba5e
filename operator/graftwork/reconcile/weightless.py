"""Pods that would find no weights: none is made of a template whose revision of the model does not lie in the claim that it mounts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.facts.cached import Held
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import cache
from graftwork.reasons import Reason
from graftwork.reconcile.rollout import Rollout


def capped(rolled: Rollout, resource: LLMDeployment, pods: Sequence[Pod], held: Collection[Held]) -> tuple[Rollout, Problem | None]:
    """Return the rollout with as many pods as there are and no more where what the Deployment gets is not in the claim, and a word of it.

    A kubelet makes the folder that a pod mounts and does not find, so that the pod would start on an empty one. Pods that are there go on.
    """
    claim = names.cache_claim(resource.metadata.name)
    key = cache.mounted(rolled.applied.template.get("spec") or {}, claim)
    if not key or key in {item.key for item in held}:
        return rolled, None
    active = sum(1 for pod in pods if pod.active)
    text = (
        f"revision {rolled.applied.number} needs models/{key} of claim {claim}, which is not there: {active} pods stay, and no more are made. Let "
        "spec.model ask for that revision of the model, and it is filled again"
    )
    problem = Problem(Reason.CACHE_FAILED, text) if active < resource.spec.replicas else None
    return replace(rolled, replicas=min(resource.spec.replicas, active)), problem
