"""The Debian packages whose programs the cluster and the image builds use."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.progress import ClusterError

# Package -> a file of it: a program looked up in PATH, or one of several paths. Looked for by file, so that another distribution passes too.
NEEDED: dict[str, tuple[str, ...]] = {
    "buildah": ("buildah",),
    "busybox-static": ("/bin/busybox", "/usr/bin/busybox"),
    "ca-certificates": ("/etc/ssl/certs/ca-certificates.crt",),
    "conntrack": ("conntrack",),
    "containerd": ("containerd",),
    "containernetworking-plugins": ("/usr/lib/cni/ptp", "/opt/cni/bin/ptp"),
    "debootstrap": ("debootstrap",),
    "etcd-server": ("etcd",),
    "gcc": ("gcc",),
    "iproute2": ("ip",),
    "iptables": ("iptables",),
    "libc6-dev": ("/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a"),
    "mount": ("mount",),
    "openssl": ("openssl",),
    "procps": ("sysctl",),
    "runc": ("runc",),
    "util-linux": ("nsenter",),
    "zstd": ("zstd",),
}
POLICY = Path("/usr/sbin/policy-rc.d")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(exists: Callable[[str], bool] | None = None) -> list[str]:
    """Return the packages of which no file is found."""

    def found(name: str) -> bool:
        return Path(name).exists() if name.startswith("/") else shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}") is not None

    test = exists or found
    without_venv = ["python3-venv"] if importlib.util.find_spec("ensurepip") is None else []  # Debian's python3 comes without it
    return without_venv + [package for package, files in NEEDED.items() if not any(test(name) for name in files)]


def command(names: list[str]) -> str:
    """Return what a person types to install packages."""
    return "apt-get install -y --no-install-recommends " + " ".join(names)


def ensure(say: Callable[[str], None]) -> None:
    """Install what is missing. Services of the packages (containerd, etcd) are not started: ours have sockets and ports of their own."""
    names = missing()
    if not names:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"no apt-get here; install what holds: {', '.join(NEEDED.get(name, (name,))[0] for name in names)}")
    if os.geteuid() != 0:
        raise ClusterError(f"packages are missing: {', '.join(names)}; as root type: {command(names)}")
    say(f"installing Debian packages: {' '.join(names)}")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        _install(names)
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _install(names: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]
    # The package lists may be absent or old: fetched before the second attempt only, because that takes time.
    for attempt in (install, ["apt-get", "update", "-q"], install):
        done = subprocess.run(attempt, env=environment, capture_output=True, text=True, check=False)
        if attempt == install and done.returncode == 0:
            return
    raise ClusterError(f"`{command(names)}` ended with {done.returncode}:\n{(done.stderr or done.stdout).strip()[-800:]}")
