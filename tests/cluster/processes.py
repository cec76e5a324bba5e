"""Starts and ends the cluster's processes, and proves before it ends one that it is ours.

Each component's environment carries OWNER=<state folder>. A process is ours if it has that variable; its pid file is only the short way to it. So an
`up` that was killed between starting a process and writing down its number leaves nothing that `down` cannot find.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import write_atomically
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError

OWNER = "GRAFTWORK_CLUSTER_OWNER"
COMPONENT = "GRAFTWORK_CLUSTER_COMPONENT"


@dataclass(frozen=True)
class Component:
    """How one component is started; kept on disk, so that a later command can start it again."""

    name: str
    command: list[str]
    environment: Mapping[str, str]


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty if it is gone, not to be read, or a thread of the kernel.

    A process that is just becoming another program (`nsenter kubelet`) has none for a moment: it is asked again.
    """
    try:
        for _ in range(20):
            if raw := Path(f"/proc/{pid}/environ").read_bytes():
                return dict(item.split("=", 1) for item in raw.decode(errors="replace").split("\0") if "=" in item)
            Path(f"/proc/{pid}/exe").readlink()  # a thread of the kernel and a process that has ended have none
            time.sleep(0.001)
    except OSError:
        pass
    return {}


def start_time(pid: int) -> str | None:
    """Return the kernel's start time of a process (clock ticks since boot), or None if there is no such living process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]


def is_ours(pid: int, layout: Layout) -> bool:
    """Tell whether a process was started by this cluster."""
    return environment_of(pid).get(OWNER) == str(layout.root)


def all_ours(layout: Layout) -> dict[int, str]:
    """Return the pid and component name of each living process of this cluster, children such as containerd's shims included."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            environment = environment_of(int(entry.name))
            if environment.get(OWNER) == str(layout.root) and start_time(int(entry.name)) is not None:
                found[int(entry.name)] = environment.get(COMPONENT, "?")
    return found


def _file(layout: Layout, name: str) -> Path:
    return layout.components / f"{name}.json"


def known(layout: Layout) -> list[str]:
    """Return the names of all components that were started since the last `down`."""
    return sorted(path.stem for path in layout.components.glob("*.json"))


def pid_of(layout: Layout, name: str) -> int | None:
    """Return the process of a component, or None if it does not run."""
    try:
        record = json.loads(_file(layout, name).read_text())
    except (OSError, ValueError):
        return None
    pid = record.get("pid")
    if isinstance(pid, int) and start_time(pid) == record.get("started") and is_ours(pid, layout):
        return pid
    return None


def start(layout: Layout, component: Component) -> int:
    """Start a component in a session of its own (Ctrl-C does not reach it), logging to log/<name>.log; return its pid."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **component.environment, OWNER: str(layout.root), COMPONENT: component.name}
    with (layout.logs / f"{component.name}.log").open("ab") as log:
        try:
            process = subprocess.Popen(
                component.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=layout.root, start_new_session=True
            )
        except OSError as error:
            raise ClusterError(f"{component.name}: {component.command[0]} cannot be started: {error.strerror}") from error
    record = {
        "command": component.command,
        "environment": dict(component.environment),
        "pid": process.pid,
        "started": start_time(process.pid),
    }
    write_atomically(_file(layout, component.name), json.dumps(record, indent=1))
    return process.pid


def start_again(layout: Layout, name: str) -> int:
    """Start a component that was stopped, with the command it had; a running one is left alone. Return its pid."""
    if pid := pid_of(layout, name):
        return pid
    try:
        record = json.loads(_file(layout, name).read_text())
    except (OSError, ValueError) as error:
        raise ClusterError(f"component {name!r} is not known; known are: {', '.join(known(layout)) or 'none (the cluster is down)'}") from error
    return start(layout, Component(name, record["command"], record["environment"]))


def ended(log: Path, lines: int = 8) -> str:
    """Return the last lines of a component's log, indented, for an error message."""
    try:
        text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    except OSError:
        return "    (no log)"
    return "\n".join(f"    {line[:300]}" for line in text) or "    (the log is empty)"


def wait_end(pids: Iterable[int], seconds: float) -> set[int]:
    """Wait until the processes have ended, at most `seconds`; return those that have not. Waits on process handles, not on a clock."""
    poller = select.poll()
    handles: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                handles[handle] = pid
                poller.register(handle, select.POLLIN)
        deadline = time.monotonic() + seconds
        waiting = dict(handles)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for handle, _ in poller.poll(left * 1000):
                poller.unregister(handle)
                _reap(waiting.pop(handle))
        return set(waiting.values())
    finally:
        for handle in handles:
            os.close(handle)


def _reap(pid: int) -> None:
    """Collect the exit status if the process is our child, so that no zombie keeps its number."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_pids(layout: Layout, pids: Iterable[int], seconds: float = 10) -> None:
    """End processes that are ours: SIGTERM, then SIGKILL for what still lives after `seconds`."""
    ours = [pid for pid in pids if is_ours(pid, layout)]
    signal_all(ours, signal.SIGTERM)
    rest = [pid for pid in wait_end(ours, seconds) if is_ours(pid, layout)]
    signal_all(rest, signal.SIGKILL)
    wait_end(rest, 5)


def stop(layout: Layout, *names: str, seconds: float = 10) -> None:
    """Stop components by name (all at once); one that does not run is fine. Their commands stay known."""
    stop_pids(layout, [pid for name in names if (pid := pid_of(layout, name))], seconds)


def forget(layout: Layout) -> None:
    """Forget all components, after `down`."""
    for path in layout.components.glob("*.json"):
        path.unlink()
