"""Which LoRAAdapters have to look again after a pass of an LLMDeployment: those of which it, its pods or their agents say something new.

With all of them woken by everything, one more adapter among fifty cost hundreds of passes, in the very moments in which the engines load it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from graftwork.facts.adapters import Adapter, Selection
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Pod
from graftwork.reconcile.context import Key

Shown = Mapping[str, object]


class News:
    """What was shown of every LoRAAdapter after the last pass of each LLMDeployment; nothing of it has to survive a restart."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[object, Shown]] = {}

    def forget(self, key: Key) -> None:
        """Let go of a deployment that is gone."""
        self._last.pop(key, None)

    def concerned(self, key: Key, general: object, shown: Shown) -> list[str]:
        """Return the adapters of which something is shown that was not before; all of them, if it concerns them all or is the first news."""
        before = self._last.get(key)
        self._last[key] = (general, shown)
        if before is None or before[0] != general:
            return list(shown)
        return [name for name, now in shown.items() if name not in before[1] or before[1][name] != now]


def general(pods: Sequence[Pod], agents: Mapping[str, Agent], *, settling: bool, stalled: str) -> object:
    """Return what every adapter's status shows of a deployment: which pods count, whose agents are silent, and why nothing changes."""
    silent = frozenset(uid for uid, agent in agents.items() if not agent.reachable)
    return frozenset(pod.uid for pod in pods if pod.active), frozenset(pod.uid for pod in pods if pod.ready), silent, settling, stalled


def shown(adapters: Iterable[Adapter], selection: Selection, agents: Mapping[str, Agent], listed: Container[str]) -> dict[str, object]:
    """Return, by the name of each adapter, what was decided of it, whether pods are told of it, and what their agents say of it."""
    rows: dict[str, list[object]] = {}
    for uid, agent in sorted(agents.items()):
        for row in agent.adapters:
            rows.setdefault(row.engine_name, []).append((uid, row))
    return {each.name: (selection.decisions.get(each.name), each.engine_name in listed, tuple(rows.get(each.engine_name, ()))) for each in adapters}
