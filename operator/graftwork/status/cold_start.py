"""How long the newest pod took from nothing to its first answer, and on what: measured from what the kubelet and the engine say, never estimated.

The kubelet's times have whole seconds, so a phase may be wrong by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork import names
from graftwork.clock import parse_rfc3339
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Container, Pod

PHASES = {"scheduledSeconds": "scheduled", "pulledSeconds": "pulled", "cachedSeconds": "cached", "loadedSeconds": "loaded", "readySeconds": "ready"}
"""The fields of status.coldStart, and what the operator's histogram calls them."""


def cold_start(before: Mapping[str, Any] | None, ready: Sequence[Pod], agents: Mapping[str, Agent], template_hash: str) -> Mapping[str, Any] | None:
    """Return status.coldStart: of the newest ready pod of this template whose engine never restarted; without one, what it was.

    What was measured of a pod stays: its agent may be silent later, and a pod that loses its readiness for a moment and comes back has not started
    again. So an older pod never follows a newer one either.
    """
    newest = max((pod for pod in ready if pod.template_hash == template_hash), key=lambda pod: (pod.created, pod.name), default=None)
    engine = newest.container(names.CONTAINER_ENGINE) if newest else None
    if newest is None or engine is None or engine.restarts or not (newest.created and newest.ready_since):
        return before
    if before and (newest.created, newest.name) < (before.get("createdAt") or "", before.get("pod") or ""):
        return before
    known = before if before and before.get("pod") == newest.name else {}
    measured = {key: value for key, value in _measure(newest, engine, agents.get(newest.uid)).items() if value is not None}
    return {"pod": newest.name, "createdAt": newest.created, **measured, **{key: value for key, value in known.items() if key in PHASES}}


def fresh(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the phases that were measured since, by the histogram's names; nothing of a start that an older operator measured."""
    if not after or (before and not before.get("pod")):
        return {}
    same = (before or {}).get("pod") == after.get("pod")
    return {phase: after[key] for key, phase in PHASES.items() if key in after and not (same and key in (before or {}))}


def _measure(pod: Pod, engine: Container, agent: Agent | None) -> dict[str, float | None]:
    install = pod.container(names.CONTAINER_INSTALL)
    download = pod.container(names.CONTAINER_DOWNLOAD)
    began = install.ended.started_at if install and install.ended else ""
    first, second = _between(pod.scheduled_at, began), _between(pod.initialized_at, engine.running_since)
    return {
        "scheduledSeconds": _between(pod.created, pod.scheduled_at),
        "pulledSeconds": None if first is None or second is None else first + second,
        "cachedSeconds": _between(download.ended.started_at, download.ended.finished_at) if download and download.ended else 0.0,
        "loadedSeconds": _between(engine.running_since, agent.engine_started_at if agent else ""),
        "readySeconds": _between(pod.created, pod.ready_since),
    }


def _between(earlier: str, later: str) -> float | None:
    """Return the seconds between two moments, at least 0: two clocks may be apart; None unless both are known."""
    if not earlier or not later:
        return None
    return round(max(0.0, (parse_rfc3339(later) - parse_rfc3339(earlier)).total_seconds()), 1)
