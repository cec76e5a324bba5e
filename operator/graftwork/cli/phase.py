"""Where a serving pod is on its way from Pending to Ready, in words, and which of its containers stands in the way."""

from __future__ import annotations

from graftwork import names
from graftwork.clock import parse_rfc3339
from graftwork.facts.pods import Container, Pod
from graftwork.status.failures import pod_problem

_DOING = {names.CONTAINER_INSTALL: "prepares", names.CONTAINER_DOWNLOAD: "downloads the model"}
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})


def phase(pod: Pod) -> str:
    """Return one phrase; where something is wrong it has the words of the LLMDeployment's status."""
    if pod.terminating:
        return "ends when its answers are written"
    if not pod.active:
        return f"has ended: {pod.reason or pod.phase}{f': {pod.message}' if pod.message else ''}"
    if pod.ready:
        return "ready"
    problem = pod_problem(pod)
    if problem:
        return f"{problem.reason}: {problem.message}"
    return _on_the_way(pod)


def failing(pod: Pod) -> Container | None:
    """Return the container that keeps the pod from becoming ready, because it ended or cannot start; None if none is known to."""
    if pod.ready or not pod.active:
        return None
    return next((each for each in pod.containers if _is_broken(each)), None)


def cold_start_seconds(pod: Pod) -> float | None:
    """Return how long the pod took from its creation to Ready; None unless it is ready and its engine started once."""
    engine = pod.container(names.CONTAINER_ENGINE)
    if not (pod.ready and engine and not engine.restarts and pod.created and pod.ready_since):
        return None
    return (parse_rfc3339(pod.ready_since) - parse_rfc3339(pod.created)).total_seconds()


def _is_broken(container: Container) -> bool:
    if container.ready:
        return False
    ended = container.ended is not None and (not container.init or container.ended.exit_code != 0)
    return ended or container.waiting_reason not in _STARTING


def _on_the_way(pod: Pod) -> str:
    if not pod.node:
        return "waits for the scheduler"
    for container in pod.containers:
        if container.init and container.name in _DOING and not container.has_ended:
            return _DOING[container.name] if container.running else f"starts {container.name} (image, volumes)"
    engine = pod.container(names.CONTAINER_ENGINE)
    return "loads the model, or its adapters" if engine and engine.running else "starts the engine's container (image, volumes)"
