"""What a Pod object says, reduced to what Graftwork looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.facts.limits import Limits, limits, model_source


@dataclass(frozen=True)
class Ended:
    """How a container's process ended."""

    exit_code: int
    reason: str
    message: str
    finished_at: str
    started_at: str = ""


@dataclass(frozen=True)
class Container:
    """One container of a pod. `ended` is its latest end: the present one, or the one before the present start."""

    name: str
    init: bool
    ready: bool
    running: bool
    restarts: int
    waiting_reason: str
    waiting_message: str
    ended: Ended | None
    has_ended: bool
    """Whether it is ended now (and not running or waiting again)."""
    running_since: str = ""
    """When its present process was started; empty unless it runs."""
    started: bool = False
    """Whether its startup probe has passed."""

    @property
    def ends(self) -> int:
        """Return how often its process has ended in the pod's life."""
        return self.restarts + (1 if self.ended and not self.running else 0)


@dataclass(frozen=True)
class Pod:
    """One pod of ours."""

    name: str
    uid: str
    ip: str
    node: str
    phase: str
    ready: bool
    terminating: bool
    created: str
    started: str
    ready_since: str
    unschedulable: str
    """The scheduler's message, if it found no node."""
    disrupted: bool
    """Whether the pod was ended by the cluster (preemption, drain, node lost), not by itself."""
    adapters_hash: str
    template_hash: str
    job: str
    controller: str
    """The uid of what made it."""
    containers: tuple[Container, ...]
    reason: str = ""
    message: str = ""
    limits: Limits | None = None
    """Of its engine, if it has one."""
    unready_since: str = ""
    """Since when it is not ready; of a pod that never was, since it began."""
    unschedulable_since: str = ""
    scheduled_at: str = ""
    """When it got its node."""
    initialized_at: str = ""
    """When its init containers were done: the model is there, and the agent listens."""
    model: str = ""
    """Where its model comes from, if it serves one."""
    ends_by: str = ""
    """When its time to end is over; empty unless it has been asked to."""
    startup_seconds: int | None = None
    """How long the kubelet gives its engine to start; None without such a probe."""

    @property
    def active(self) -> bool:
        """Whether the pod counts: neither ended nor asked to end."""
        return not self.terminating and self.phase not in ("Failed", "Succeeded")

    @property
    def begun(self) -> bool:
        """Whether one of its main containers runs or has run."""
        return any(each.running or (each.has_ended and not each.init) for each in self.containers)

    def container(self, name: str) -> Container | None:
        """Return the container of that name, if the kubelet has reported it."""
        return next((container for container in self.containers if container.name == name), None)


def pod(obj: Mapping[str, Any]) -> Pod:
    """Return the facts of a Pod object."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    is_ready = ready.get("status") == "True"
    init = [_container(item, init=True) for item in status.get("initContainerStatuses") or []]
    main = [_container(item, init=False) for item in status.get("containerStatuses") or []]
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        ready=is_ready,
        terminating=bool(metadata.get("deletionTimestamp")),
        created=metadata.get("creationTimestamp") or "",
        started=status.get("startTime") or "",
        ready_since=(ready.get("lastTransitionTime") or "") if is_ready else "",
        unschedulable=(scheduled.get("message") or "no node fits") if scheduled.get("reason") == "Unschedulable" else "",
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        adapters_hash=annotations.get(names.ANNOTATION_ADAPTERS_HASH) or "",
        template_hash=annotations.get(names.ANNOTATION_TEMPLATE_HASH) or "",
        controller=next((item.get("uid", "") for item in metadata.get("ownerReferences") or [] if item.get("controller")), ""),
        job=labels.get("batch.kubernetes.io/job-name") or labels.get("job-name") or "",
        containers=tuple(init + main),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        limits=limits(spec),
        model=model_source(spec),
        unready_since=(ready.get("lastTransitionTime") or "") if not is_ready else "",
        unschedulable_since=(scheduled.get("lastTransitionTime") or "") if scheduled.get("reason") == "Unschedulable" else "",
        scheduled_at=_since(scheduled),
        initialized_at=_since(conditions.get("Initialized", {})),
        ends_by=metadata.get("deletionTimestamp") or "",
        startup_seconds=_startup_seconds(spec),
    )


def _since(condition: Mapping[str, Any]) -> str:
    return (condition.get("lastTransitionTime") or "") if condition.get("status") == "True" else ""


def _startup_seconds(spec: Mapping[str, Any]) -> int | None:
    for container in spec.get("containers") or []:
        if container.get("name") == names.CONTAINER_ENGINE and container.get("startupProbe"):
            probe = container["startupProbe"]
            return int(probe.get("periodSeconds") or 10) * int(probe.get("failureThreshold") or 3)
    return None


def _container(status: Mapping[str, Any], *, init: bool) -> Container:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or last.get("terminated")
    return Container(
        name=status["name"],
        init=init,
        ready=bool(status.get("ready")),
        running="running" in state,
        restarts=int(status.get("restartCount") or 0),
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        ended=_ended(ended) if ended else None,
        has_ended="terminated" in state,
        running_since=(state.get("running") or {}).get("startedAt") or "",
        started=bool(status.get("started")),
    )


def _ended(state: Mapping[str, Any]) -> Ended:
    return Ended(
        exit_code=int(state.get("exitCode") or 0),
        reason=state.get("reason") or "",
        message=state.get("message") or "",
        finished_at=state.get("finishedAt") or "",
        started_at=state.get("startedAt") or "",
    )
