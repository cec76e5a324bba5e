"""What has to exist before a Dockerfile can: Debian's files for `base`, the S3 server's binary for `versitygw`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cluster.imagebuild.host import apt_sources, debian_mirror
from tests.cluster.imagebuild.processes import Processes
from tests.cluster.progress import ClusterError
from tests.cluster.toolchain import Say, build_tools

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
# Package lists are old tomorrow; documentation nobody reads in a container. Licences (copyright files) stay.
DROPPED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/locale", "usr/share/info")


def debootstrap(context: Path, processes: Processes, log: Path, say: Say) -> None:
    """Write `rootfs.tar` into the context: Debian with Python and pip, from the mirror that this machine's apt uses."""
    if os.geteuid() != 0:
        raise ClusterError("base: debootstrap needs root (it makes device files and changes root); run as root")
    program = shutil.which("debootstrap") or "/usr/sbin/debootstrap"
    if not Path(program).is_file():
        raise ClusterError("base: no `debootstrap` in PATH; apt-get install debootstrap")
    root = context.parent / f"{context.name}-rootfs"
    shutil.rmtree(root, ignore_errors=True)
    mirror = debian_mirror(SUITE, apt_sources())
    say(f"debootstrap {SUITE} (about a minute)")
    # In a mount namespace of its own, what debootstrap mounts goes with it, however it ends, and is not there to be removed as files below.
    command = ["unshare", "--mount", program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), *([mirror] if mirror else [])]
    try:
        processes.run("base", command, log, lambda _: None)
        for path in DROPPED:
            _empty(root / path)
        for path in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
            (root / path).mkdir(parents=True, exist_ok=True)
        processes.run(
            "base",
            ["tar", "--create", "--file", str(context / "rootfs.tar"), "--directory", str(root), "--exclude=./dev/*", "."],
            log,
            lambda _: None,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def versitygw(context: Path, say: Say) -> None:
    """Put the static binary and the two folders that a scratch image lacks into the context."""
    binary = build_tools(say, ["versitygw"]) / "versitygw"
    shutil.copy2(binary, context / "versitygw")
    (context / "versitygw").chmod(0o755)
    for name, mode in (("data", 0o755), ("tmp", 0o1777)):
        (context / name).mkdir()
        (context / name).chmod(mode)
