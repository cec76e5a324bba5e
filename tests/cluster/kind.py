"""UNTESTED: the same cluster by `kind`, for machines with a Docker engine. Thin on purpose; nobody has run it yet.

What differs from the embedded cluster: images go in by `kind load`, volumes and DNS are kind's own, there is no audit log, and components cannot be
stopped one by one. Chosen by `--provider kind`, or by `--provider auto` where `docker info` answers.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.cache import write_atomically
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError
from tests.cluster.shell import run
from tests.cluster.toolchain import Say

NAME = "graftwork"
CONFIG = {
    "kind": "Cluster",
    "apiVersion": "kind.x-k8s.io/v1alpha4",
    "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}],
}


def engine_answers(seconds: float = 5) -> bool:
    """Tell whether a Docker engine answers. `docker info` prints its client part and an error where none does."""
    try:
        done = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def require_engine() -> None:
    """Refuse to go on, before anything is built, where no Docker engine answers."""
    if not engine_answers():
        raise ClusterError("provider kind: no Docker engine answers `docker info`; start it, or use --provider embedded")


def _kind(binaries: Path, *arguments: str) -> str:
    return run([str(binaries / "kind"), *arguments, "--name", NAME])


def kubeconfig(layout: Layout) -> Path:
    """Return where the kubeconfig of the kind cluster is written; not the embedded cluster's, so that both can be there."""
    return layout.root / "kind.kubeconfig"


def exists(binaries: Path) -> bool:
    """Tell whether our kind cluster is there."""
    return (binaries / "kind").exists() and NAME in run([str(binaries / "kind"), "get", "clusters"], check=False).split()


def up(layout: Layout, binaries: Path, say: Say) -> bool:
    """Create the cluster; return False if it was there already."""
    if exists(binaries):
        say("the kind cluster is up already; nothing to do")
        return False
    config = layout.root / "kind.json"
    write_atomically(config, json.dumps(CONFIG))
    say("kind: creating a cluster with two workers (untested path)")
    _kind(binaries, "create", "cluster", "--config", str(config), "--kubeconfig", str(kubeconfig(layout)), "--wait", "120s")
    return True


def down(layout: Layout, binaries: Path, say: Say) -> None:
    """Delete the cluster."""
    _kind(binaries, "delete", "cluster", "--kubeconfig", str(kubeconfig(layout)))
    kubeconfig(layout).unlink(missing_ok=True)
    say("kind: deleted")


def load(binaries: Path, archives: Sequence[Path]) -> list[str]:
    """Load image archives into all nodes."""
    for archive in archives:
        _kind(binaries, "load", "image-archive", os.fspath(archive))
    return [f"kind: {archive.name} loaded" for archive in archives]
