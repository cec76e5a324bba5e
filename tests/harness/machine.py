"""The embedded cluster as the tests use it: its programs, its kubeconfig, its audit log, its components."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import kind, lifecycle, toolchain
from tests.cluster import machine as host
from tests.cluster.layout import Layout


def binaries() -> Path:
    """Return the folder with kubectl, helm and the others; built already, so nothing is printed."""
    return toolchain.build_tools(lambda _: None)


def provider() -> str:
    """Return what makes the cluster: `embedded`, or `kind` (GRAFTWORK_PROVIDER=kind, untested) where a Docker engine answers."""
    return os.environ.get("GRAFTWORK_PROVIDER", "embedded")


def kubeconfig() -> Path:
    """Return the administrator's kubeconfig."""
    return kind.kubeconfig(Layout.default()) if provider() == "kind" else Layout.default().kubeconfig


def audit_log() -> Path:
    """Return the API server's audit log."""
    return Layout.default().audit_log


RUN_BEGAN = "GRAFTWORK_AUDIT_OFFSET"
"""Environment variable: where in the audit log the run of the tests began."""


def mark_run() -> dict[str, str]:
    """Return the environment that tells the tests where their run begins: a cluster that was up has the calls of earlier runs in its log."""
    log = audit_log()
    return {RUN_BEGAN: str(log.stat().st_size if log.exists() else 0)}


def run_began() -> int:
    """Return the offset in the audit log at which this run began; 0 where nobody marked it, and for a log that is younger than the mark."""
    offset, log = int(os.environ.get(RUN_BEGAN) or 0), audit_log()
    return offset if log.exists() and offset <= log.stat().st_size else 0


def stop(component: str) -> None:
    """Stop a component of the control plane or of a node."""
    lifecycle.stop_component(component)


def start(component: str) -> None:
    """Start a stopped component, and return when it works."""
    lifecycle.start_component(component)


@contextmanager
def lost(node: str) -> Iterator[None]:
    """End a node's kubelet, its runtime and every process of its pods at once, as when its power fails; afterwards it is started again.

    Its network stays: who asks for a pod there is refused, where a dead machine would not answer at all.
    """
    letter = node[-1]
    stop(f"kubelet-{letter}")  # first, or it would start again what is ended here
    stop(f"containerd-{letter}")
    host.kill_pods(Layout.default().node(letter))
    try:
        yield
    finally:
        start(f"containerd-{letter}")
        start(f"kubelet-{letter}")
