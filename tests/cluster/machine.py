"""What the cluster changes in the machine's own settings: kernel parameters and cgroups. Recorded before, restored after."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from pathlib import Path

from tests.cluster import processes
from tests.cluster.cache import write_atomically
from tests.cluster.layout import Layout, Node
from tests.cluster.shell import run
from tests.cluster.waiting import until

# Set by us (ip_forward), the kubelet (vm, kernel) and kube-proxy (the rest).
SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
V1_CONTROLLERS = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "perf_event"}
CONTAINER_LOGS = Path("/var/log/containers")
CNI_RESULTS = Path("/var/lib/cni/results")
NETNS_FOLDER = Path("/run/netns")


def mount_points() -> list[str]:
    """Return every mount point, in the order of mounting. Path.is_mount() misses a folder that is mounted on itself."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), point) for point in points]


def read_sysctls() -> dict[str, str]:
    """Return the current value of each kernel parameter that exists here."""
    found = {}
    for name in SYSCTLS:
        with contextlib.suppress(OSError):
            found[name] = (Path("/proc/sys") / name).read_text().strip()
    return found


def remember(layout: Layout) -> None:
    """Write down the settings, unless an earlier `up` did and no `down` has restored them since."""
    if not layout.before.exists():
        record = {"sysctls": read_sysctls(), "folders": {str(path): path.exists() for path in _shared_folders()}}
        write_atomically(layout.before, json.dumps(record, indent=1))


def _shared_folders() -> tuple[Path, ...]:
    """Return folders that the kubelet, CNI and containerd make on the machine and that no option moves elsewhere; children first."""
    return (CONTAINER_LOGS, CNI_RESULTS, Path("/var/lib/cni"), Path("/run/containerd/s"), Path("/run/containerd"), NETNS_FOLDER)


def restore(layout: Layout) -> None:
    """Put the settings back, and take away links and folders that were made beside the state folder."""
    _clear_shared_folders(layout)
    if not layout.before.exists():
        return
    record = json.loads(layout.before.read_text())
    for name, value in record["sysctls"].items():
        path = Path("/proc/sys") / name
        with contextlib.suppress(OSError):
            if path.read_text().strip() != value:
                path.write_text(value)
    for folder, existed in record["folders"].items():
        if not existed:
            if Path(folder) == NETNS_FOLDER and str(NETNS_FOLDER) in mount_points() and not any(NETNS_FOLDER.iterdir()):
                run(["umount", folder], check=False)  # `ip netns add` mounts it on itself
            with contextlib.suppress(OSError):
                Path(folder).rmdir()  # only if empty: what is not ours stays
    layout.before.unlink()


def _clear_shared_folders(layout: Layout) -> None:
    for link in CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.root}/"):
            link.unlink(missing_ok=True)
    ours = [f"{node.run}/".encode() for node in layout.nodes]
    for result in CNI_RESULTS.glob("*"):
        # Each result names the network namespace of its pod, and those lie in the nodes' own run folders.
        if result.is_file() and any(mark in result.read_bytes() for mark in ours):
            result.unlink(missing_ok=True)


def cgroup_mounts(mountinfo: str) -> tuple[int, dict[str, str]]:
    """Return the cgroup version that containers get here (1 or 2) and the mount point of each hierarchy, from the text of mountinfo."""
    found: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = before.split()[4]
        if kind == "cgroup2":
            unified = point
        elif kind == "cgroup":
            names = set(options.split(","))
            for name in names & V1_CONTROLLERS:
                found[name] = point
            if "name=systemd" in names:
                found["name=systemd"] = point
    if "memory" in found:
        return 1, found
    return 2, {"unified": unified} if unified else {}


def cgroups() -> tuple[int, dict[str, str]]:
    """Return `cgroup_mounts` of this machine."""
    return cgroup_mounts(Path("/proc/self/mountinfo").read_text())


def make_cgroup(node: Node) -> None:
    """Make the node's cgroup in every hierarchy: the kubelet refuses a root that does not exist."""
    version, mounts = cgroups()
    for controller, point in mounts.items():
        folder = Path(point) / node.cgroup
        folder.mkdir(exist_ok=True)
        if controller == "cpuset":
            # An empty cpuset takes no process; it is not inherited from the parent in version 1.
            for name in ("cpuset.cpus", "cpuset.mems"):
                (folder / name).write_text((Path(point) / name).read_text())
        if version == 2:
            wanted = (Path(point) / "cgroup.controllers").read_text().split()
            for level in (Path(point), folder):
                for name in wanted:
                    with contextlib.suppress(OSError):
                        (level / "cgroup.subtree_control").write_text(f"+{name}")


def _own_folders(node: Node) -> list[Path]:
    points = {*cgroups()[1].values(), "/sys/fs/cgroup/unified"}
    return [folder for point in sorted(points) if (folder := Path(point) / node.cgroup).is_dir()]


def cgroup_pids(node: Node) -> set[int]:
    """Return the processes of all pods of the node: whatever is in its cgroup is a container's."""
    found: set[int] = set()
    for root in _own_folders(node):
        for path in root.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in path.read_text().split() if line != "0")
    return found


def kill_pods(node: Node) -> None:
    """End every container process of the node at once."""
    pids = cgroup_pids(node)
    processes.signal_all(pids, signal.SIGKILL)
    processes.wait_end(pids, 10)


def remove_cgroup(node: Node) -> None:
    """Remove the node's cgroups. A cgroup stays busy for a moment after its last process has ended."""

    def gone() -> bool:
        for root in _own_folders(node):
            for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                root.rmdir()
        return not _own_folders(node)

    until(gone, 5)
