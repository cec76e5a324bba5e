"""How many adapters an engine is started for, and of which rank."""

from __future__ import annotations

from collections.abc import Iterable

from graftwork.api import LLMDeployment
from graftwork.api.llmdeployment import RANKS

PLACES = 128
"""Adapters that a deployment may list, whatever its slots; an explicit adapters.maxLoaded above it counts instead."""
LEAST_RANK = 16
"""vLLM's own default, and what adapters are mostly trained with."""


def places(max_loaded: int) -> int:
    """Return how many adapters a deployment with so many slots may list."""
    return max(PLACES, max_loaded)


def kept_in_host_memory(max_loaded: int) -> int:
    """Return --max-cpu-loras.

    vLLM sets nothing aside for it: its cache is a dictionary of what was loaded, so a high bound costs what the adapters in it weigh (8 billion
    parameters, rank 16, all linear layers: about 80 MiB each). Too low a bound costs more: what falls out is read from its files again inside
    the forward step, which stops the engine for everybody. Twice the places, because a version and the one that replaces it are loaded at the
    same time, and because vLLM forgets only the name of what is unloaded: its weights stay until newer ones push them out.
    """
    return 2 * places(max_loaded)


def fitting_rank(ranks: Iterable[int], current: int | None) -> int:
    """Return what `maxRank: auto` means: what the highest of the ranks needs, never less than what the engines run with now.

    It does not shrink by itself: to take an adapter away must not restart pods. A rank that vLLM does not take at all is refused elsewhere.
    """
    wanted = max((rank for rank in ranks if rank <= RANKS[-1]), default=0)
    needed = next(rank for rank in RANKS if rank >= wanted)
    return max(needed, LEAST_RANK, current or 0)


def resolved(deployment: LLMDeployment, max_rank: int) -> LLMDeployment:
    """Return the deployment with a number for `maxRank`: what its pod template is rendered from, and hashed by."""
    adapters = deployment.spec.adapters.model_copy(update={"max_rank": max_rank})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"adapters": adapters})})
