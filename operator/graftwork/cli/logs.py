"""`kubectl graft logs`: which container of which pod has the answer to "what is wrong", or else to "what is it doing"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftwork import names
from graftwork.cli.phase import failing, phase
from graftwork.cli.snapshot import Snapshot
from graftwork.facts.pods import Container, Pod

_NEVER_RAN = frozenset({"ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})


class NoLogsError(Exception):
    """There is nothing to read yet; the text says why."""


@dataclass(frozen=True)
class Choice:
    """One container's log. `previous` is that of its run before the present one."""

    pod: str
    container: str
    previous: bool
    why: str

    def arguments(self, *, follow: bool, tail: int | None) -> list[str]:
        """Return kubectl's arguments."""
        more = ["--previous"] if self.previous else []
        more += ["--follow"] if follow and not self.previous else []
        return ["logs", self.pod, f"--container={self.container}", *more, *([f"--tail={tail}"] if tail is not None else [])]


def choose(snapshot: Snapshot, container: str = "", previous: bool | None = None) -> Choice:
    """Return the log to show: of a new pod that fails, else of one that starts, else of the newest that serves. NoLogsError if there is none.

    `container` and `previous` win over what would be chosen; `previous` None leaves it to the state of the container.
    """
    pod = _pod(snapshot)
    found = pod.container(container) if container else (failing(pod) or _busy(pod))
    if container and found is None:
        there = ", ".join(sorted(each.name for each in pod.containers))
        raise NoLogsError(f"pod {pod.name} has no container {container!r} yet; it has: {there or 'none, because it ' + phase(pod)}")
    if found is None or (found.waiting_reason in _NEVER_RAN and found.ended is None):
        raise NoLogsError(f"pod {pod.name} has no log yet: {phase(pod)}")
    earlier = _ran_before(found) if previous is None else previous
    run = ", the run before its last restart" if earlier else ""
    return Choice(pod.name, found.name, earlier, f"pod {pod.name}, container {found.name}{run} ({phase(pod)})")


def _pod(snapshot: Snapshot) -> Pod:
    active = [pod for pod in snapshot.pods if pod.active]
    pods: Sequence[Pod] = active or snapshot.pods
    if not pods:
        refused = snapshot.unread.get("pods")
        raise NoLogsError(refused or f"{snapshot.name} has no pods; `kubectl graft status {snapshot.name}` says why")
    return max(pods, key=lambda pod: _interest(pod, snapshot.template_hash))


def _interest(pod: Pod, template_hash: str) -> tuple[bool, bool, bool, str, str]:
    """Return what is compared: a pod that fails first, of those the ones of the present revision, then one that starts, then the newest."""
    return failing(pod) is not None, not pod.ready, pod.template_hash == template_hash, pod.created, pod.name


def _busy(pod: Pod) -> Container | None:
    """Return the container that is at work: an init container while it runs, else the engine."""
    running = [each for each in pod.containers if each.init and each.running and each.name != names.CONTAINER_AGENT]
    return running[0] if running else pod.container(names.CONTAINER_ENGINE)


def _ran_before(container: Container) -> bool:
    """Return whether the end is that of an earlier run: a container that waits or has ended shows its last run anyway."""
    return container.running and not container.ready and container.ended is not None
