"""What is wrong with a pod, in one sentence, from what the kubelet and the scheduler say of it."""

from __future__ import annotations

from collections.abc import Iterable

from graftwork import names
from graftwork.facts import ended
from graftwork.facts.pods import Container, Pod
from graftwork.facts.problem import Problem
from graftwork.facts.text import clip
from graftwork.reasons import Reason

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError"})
_CREATE = frozenset({"CreateContainerError", "RunContainerError"})
_MANY_RESTARTS = 2
_DOWNLOADS = (names.CONTAINER_DOWNLOAD, names.CONTAINER_DOWNLOAD_BASE, names.CONTAINER_DOWNLOAD_DATASET)


def first_problem(pods: Iterable[Pod]) -> Problem | None:
    """Return what keeps pods from being ready: of the problems that somebody must mend if there are any, the first by pod name."""
    problems = [problem for pod in sorted(pods, key=lambda item: item.name) if (problem := pod_problem(pod))]
    return next((problem for problem in problems if problem.needs_user), problems[0] if problems else None)


def pod_problem(pod: Pod) -> Problem | None:
    """Return what keeps the pod from being ready; None if nothing is known to be wrong (it may just be starting)."""
    if pod.ready or not pod.active:
        return None
    if pod.unschedulable:
        return Problem(Reason.UNSCHEDULABLE, f"no node for pod {pod.name}: {clip(pod.unschedulable)}", needs_user=False)
    for container in pod.containers:
        problem = _container_problem(pod, container)
        if problem:
            return problem
    return None


def _container_problem(pod: Pod, container: Container) -> Problem | None:
    where = f"container {container.name} of pod {pod.name}"
    if container.waiting_reason in _IMAGE:
        text = f"the image of {where} cannot be had: {container.waiting_reason}: {clip(container.waiting_message)}"
        return Problem(Reason.IMAGE_PULL_FAILED, text, needs_user=container.waiting_reason in ("InvalidImageName", "ErrImageNeverPull"))
    if container.waiting_reason in _CONFIG:
        return Problem(Reason.INVALID_SPEC, f"{where} cannot be made: {clip(container.waiting_message)}; create what is missing, or correct the name")
    if container.waiting_reason in _CREATE:
        return Problem(Reason.ENGINE_CRASHED, f"{where} cannot be started: {clip(container.waiting_message)}", needs_user=False)
    if container.ended is None or (container.init and container.ended.exit_code == 0):
        return None
    if container.running and (container.started or container.name == names.CONTAINER_AGENT):
        return None  # how it once ended is not why its pod is not ready now
    return _ended_problem(pod, container)


def _ended_problem(pod: Pod, container: Container) -> Problem:
    default = Reason.SOURCE_UNREACHABLE if container.name in _DOWNLOADS else Reason.ENGINE_CRASHED
    reason, text = ended.told(pod, container, default)
    definitive = ended.is_definitive(container)
    if container.name not in _DOWNLOADS:
        definitive = definitive or container.restarts >= _MANY_RESTARTS
    return Problem(reason, text, needs_user=definitive)
