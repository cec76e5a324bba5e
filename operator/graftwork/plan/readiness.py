"""Which version of an alias a starting pod waits for before it is ready: one that is known to load, so that a bad adapter holds up no pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Proof:
    """What is known of whether adapters load at all, by engine name."""

    heard: bool = False
    """Whether there are ready pods and the agents of all of them answer."""
    loaded: frozenset[str] = frozenset()
    """What an engine of a ready pod lists."""
    doubtful: frozenset[str] = frozenset()
    """What an agent of a ready pod failed to fetch or to load, and did not refuse: of a refused one each pod knows by itself."""
    served: bool = False
    """Whether a pod of the deployment was ever ready."""
    told: Mapping[str, bool] = field(default_factory=dict)
    """What the ConfigMap lists, and whether pods wait for it."""


def required(prefer: Sequence[str], proof: Proof) -> str:
    """Return the engine name that starting pods wait for: the wanted version, else the best one that is known to load, else none.

    It changes as seldom as it can, because each change is one of the file that every pod reads: a new version is waited for until somebody failed to
    load it, and then not before somebody did; what was waited for last is waited for while nobody can be asked.
    """
    wanted = prefer[0]
    if _is_awaited(wanted, proof):
        return wanted
    return next((name for name in prefer[1:] if name in proof.loaded or proof.told.get(name)), "")


def _is_awaited(name: str, proof: Proof) -> bool:
    if name in proof.loaded:
        return True
    told = proof.told.get(name)
    if not proof.heard:  # of what nobody tried yet only a deployment that never served waits: its first pod begins with its adapters
        return not proof.served if told is None else told
    return told is not False and name not in proof.doubtful
