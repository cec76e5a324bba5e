"""What a cluster could leave on a machine: a snapshot before `up`, one after `down`, and the difference. For tests and for doubt."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import machine, processes
from tests.cluster.layout import Layout
from tests.cluster.shell import run

Snapshot = dict[str, list[str]]
# Image builds mount their own layers; they are not the cluster's and come and go beside it.
FOREIGN_MOUNTS = ("/buildah/", "/containers/storage/", "/docker/")
WATCHED_FOLDERS = (
    "/run",
    "/run/netns",
    "/run/containerd",
    "/run/containerd/s",
    "/var/lib/cni",
    "/var/lib/cni/results",
    "/var/log/containers",
    "/var/log/pods",
)


def filter_rules(saved: str) -> list[str]:
    """Return the lines of `iptables-save` that say something: no comments, counters, or empty tables that accept everything."""
    kept, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            if policy != "ACCEPT":
                kept.append(f"{table} :{name} {policy}")
        elif line.startswith("-"):
            kept.append(f"{table} {line}")
    return kept


def _mounts() -> list[str]:
    return [point for point in machine.mount_points() if not any(mark in f"{point}/" for mark in FOREIGN_MOUNTS)]


def _cgroups() -> list[str]:
    points = sorted({*machine.cgroups()[1].values(), "/sys/fs/cgroup/unified"})
    return [str(path) for point in points for path in Path(point).rglob("*graftwork*") if path.is_dir()]


def _processes(layout: Layout) -> list[str]:
    """Return our daemons (by environment), their children (by command line) and the pods' processes (by cgroup)."""
    found = []
    marks = [f"{node.run}/".encode() for node in layout.nodes] + [str(node.socket).encode() for node in layout.nodes]
    groups = [f"/{node.cgroup}" for node in layout.nodes]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or processes.start_time(int(entry.name)) is None:
            continue
        try:
            command, group = (entry / "cmdline").read_bytes(), (entry / "cgroup").read_text()
        except OSError:
            continue
        ours = processes.is_ours(int(entry.name), layout) or any(mark in command for mark in marks) or any(name in group for name in groups)
        if ours:
            found.append(command.replace(b"\0", b" ").decode(errors="replace")[:160])
    return found


def snapshot(layout: Layout | None = None) -> Snapshot:
    """Return everything a cluster touches, as sorted lines by subject."""
    where = layout or Layout.default()
    filters = [f"{family} {rule}" for family in ("iptables", "ip6tables") for rule in filter_rules(run([f"{family}-save"], check=False))]
    folders = [str(path) for folder in WATCHED_FOLDERS if Path(folder).is_dir() for path in Path(folder).iterdir()]
    taken = {
        "mounts": _mounts(),
        "interfaces": [path.name for path in Path("/sys/class/net").iterdir()],
        "routes": run(["ip", "route", "show", "table", "all"]).splitlines(),
        "packet filter": filters,
        "cgroups": _cgroups(),
        "files": folders,
        "processes": _processes(where),
        "kernel settings": [f"{name} = {value}" for name, value in machine.read_sysctls().items()],
    }
    return {subject: sorted(line.strip() for line in lines) for subject, lines in taken.items()}


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """Return one line for each thing that is there and was not, or was there and is gone."""
    lines = []
    for subject in before:
        was, now = set(before[subject]), set(after.get(subject, []))
        lines += [f"{subject}: left behind: {line}" for line in sorted(now - was)]
        lines += [f"{subject}: gone or changed: {line}" for line in sorted(was - now)]
    return lines


def leftovers(before: Snapshot, layout: Layout | None = None) -> list[str]:
    """Return what is different on this machine from an earlier snapshot."""
    return compare(before, snapshot(layout))


def save(path: Path, layout: Layout | None = None) -> None:
    """Write a snapshot to a file."""
    path.write_text(json.dumps(snapshot(layout), indent=1))


def load(path: Path) -> Snapshot:
    """Read a snapshot from a file."""
    taken: Snapshot = json.loads(path.read_text())
    return taken
