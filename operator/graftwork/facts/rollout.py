"""How far the pods of one revision are, and what status.rollout remembers of revisions (contracts.md, section 10a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.facts import ended
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Container, Pod
from graftwork.reasons import Reason, known

COMPLETED, ROLLED_BACK = "Completed", "RolledBack"
HISTORY_LENGTH = 10
_NOBODYS_FAULT = frozenset({"Unknown", "ContainerStatusUnknown"})
"""Ends that the kubelet could not watch: its node was restarted."""


_OURS = (names.CONTAINER_INSTALL, names.CONTAINER_AGENT)
"""What must run before the engine does, and needs nothing from elsewhere: where it keeps ending, the agent's image of the revision is bad."""


@dataclass(frozen=True)
class Coming:
    """A pod of the revision that is not ready. Its clock runs only while its engine does: from then on it has node, image and weights."""

    name: str
    ends: int = 0
    """How often its engine has ended, or what of ours its engine waits for."""
    definitive: bool = False
    """Whether another start would end the same way."""
    reason: Reason = Reason.ENGINE_CRASHED
    message: str = ""
    """The latest end in one sentence; empty if there was none, or if it tells nothing of the revision."""
    clock_from: str = ""
    """Since when it starts with all that it needs; empty while it waits for a node, an image, the weights, or for API keys."""
    answers: bool = False
    """Whether its engine answers already, so that it waits for its adapters only."""
    startup_seconds: int | None = None
    weights_bytes: int = 0
    said: str = ""
    """What its engine last said of importance, in this start."""
    silent_seconds: float = 0.0
    """For how long its agent, beside the engine, has not answered; 0 while it does."""


@dataclass(frozen=True)
class Progress:
    """The pods of one revision, and those of others."""

    ready: int = 0
    others: int = 0
    """Pods of other revisions that have not been asked to end."""
    others_ready: tuple[str, ...] = ()
    """The template hashes of those of them that are ready."""
    coming: tuple[Coming, ...] = ()
    unschedulable: str = ""
    """What the scheduler says of the pod of the revision that has waited longest for a node."""
    unschedulable_since: str = ""


def progress(pods: Sequence[Pod], agents: Mapping[str, Agent], template_hash: str) -> Progress:
    """Return how far the revision of this hash is."""
    active = sorted((pod for pod in pods if pod.active), key=lambda pod: pod.name)
    mine = [pod for pod in active if pod.template_hash == template_hash]
    others = [pod for pod in active if pod.template_hash != template_hash]
    homeless = sorted((pod for pod in mine if pod.unschedulable), key=lambda pod: pod.unschedulable_since)
    return Progress(
        ready=sum(1 for pod in mine if pod.ready),
        others=len(others),
        others_ready=tuple(sorted({pod.template_hash for pod in others if pod.ready and pod.template_hash})),
        coming=tuple(_coming(pod, agents.get(pod.uid)) for pod in mine if not pod.ready),
        unschedulable=homeless[0].unschedulable if homeless else "",
        unschedulable_since=homeless[0].unschedulable_since if homeless else "",
    )


def _coming(pod: Pod, agent: Agent | None) -> Coming:
    engine = pod.container(names.CONTAINER_ENGINE)
    if engine is None or pod.disrupted:
        return Coming(pod.name)
    failing = engine if engine.ended or engine.running else _failing_before(pod) or engine
    reason, message = Reason.ENGINE_CRASHED, ""
    attributable = failing.ended is not None and failing.ended.reason not in _NOBODYS_FAULT
    if attributable:
        reason, message = ended.told(pod, failing, Reason.ENGINE_CRASHED)
    return Coming(
        name=pod.name,
        ends=failing.ends if attributable else 0,
        definitive=attributable and failing is engine and ended.is_definitive(engine),
        reason=reason,
        message=message,
        clock_from=_clock_from(pod, engine, agent),
        answers=engine.started,
        startup_seconds=pod.startup_seconds,
        weights_bytes=agent.base.weights_bytes if agent and agent.base else 0,
        said=agent.said if agent and engine.running else "",
        silent_seconds=agent.silent_seconds if agent and not agent.reachable else 0.0,
    )


def _failing_before(pod: Pod) -> Container | None:
    """Return which of ours has failed before the engine could begin; what downloads is not ours, since weights may come later."""
    found = (pod.container(name) for name in _OURS)
    return next((item for item in found if item and item.ended and not item.ready and item.ended.exit_code != 0), None)


def _clock_from(pod: Pod, engine: Container, agent: Agent | None) -> str:
    """Return since when nothing but the engine itself is waited for: its process runs, and the pod has not been ready since."""
    if not engine.running or not engine.running_since or (agent and agent.keys_error):
        return ""
    return max(engine.running_since, pod.unready_since)


@dataclass(frozen=True)
class Failed:
    """A revision whose pods failed. It is not tried again while the spec asks for the same."""

    revision: int
    template_hash: str
    reason: Reason
    message: str
    at: str


@dataclass(frozen=True)
class Outcome:
    """How the rollout of one revision ended."""

    revision: int
    template_hash: str
    result: str
    at: str
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """What the status remembers of revisions. `last_good` is the template hash of the newest one of which all pods were ready."""

    last_good: str = ""
    last_good_revision: int | None = None
    failed: Failed | None = None
    history: tuple[Outcome, ...] = ()
    """The newest first."""

    def to_status(self) -> dict[str, Any]:
        """Return the fields of status.rollout; None is what is not known."""
        failed = self.failed
        return {
            "lastGood": self.last_good_revision if self.last_good else None,
            "lastGoodHash": self.last_good or None,
            "failed": {
                "revision": failed.revision,
                "templateHash": failed.template_hash,
                "reason": str(failed.reason),
                "message": failed.message,
                "at": failed.at,
            }
            if failed
            else None,
            "history": [
                {"revision": item.revision, "templateHash": item.template_hash, "result": item.result, "at": item.at, "reason": item.reason or None}
                for item in self.history
            ]
            or None,
        }


def record(rollout: Mapping[str, Any] | None) -> Record:
    """Return what a status.rollout remembers; what somebody else wrote into it is ignored where it makes no sense."""
    rollout = rollout or {}
    failed = rollout.get("failed") or {}
    return Record(
        last_good=rollout.get("lastGoodHash") or "",
        last_good_revision=rollout.get("lastGood"),
        failed=Failed(
            failed.get("revision") or 0,
            failed["templateHash"],
            known(failed.get("reason")) or Reason.ENGINE_CRASHED,
            failed.get("message") or "",
            failed.get("at") or "",
        )
        if failed.get("templateHash")
        else None,
        history=tuple(
            Outcome(
                item.get("revision") or 0, item.get("templateHash") or "", item.get("result") or "", item.get("at") or "", item.get("reason") or ""
            )
            for item in rollout.get("history") or []
        ),
    )
