"""What agents say of the API keys, as a problem of their LLMDeployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftwork.facts.agents import Agent
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.facts.text import clip
from graftwork.reasons import Reason

_REMEDY = "Correct the Secret of spec.service.apiKeysSecret; it is read again within two minutes, without a restart"


def keys_problem(pods: Sequence[Pod], agents: Mapping[str, Agent], template_hash: str) -> Problem | None:
    """Return what is wrong with the API keys, by the first pod of the present template whose agent says so.

    Pods of an older template may name another Secret. Where a pod serves, it goes on with the last keys that were good, so this harms nobody; a pod
    that never had any is not ready.
    """
    for pod in sorted(pods, key=lambda item: item.name):
        agent = agents.get(pod.uid)
        if pod.template_hash == template_hash and agent and agent.reachable and agent.keys_error:
            kept = "keys without fault are in force" if pod.ready else "it is not ready before it has keys"
            return Problem(Reason.API_KEYS_INVALID, f"API keys in pod {pod.name}: {clip(agent.keys_error)}; {kept}. {_REMEDY}")
    return None
