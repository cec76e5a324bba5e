"""Parts of Graftwork that are away for a while: the store's server, the operator."""

from __future__ import annotations

from tests.harness import install
from tests.harness.kube import Kube

STORE = f"{install.RELEASE}-store"


def store_down(system: Kube) -> None:
    """End the store's server, and return when it is gone."""
    system.run("scale", f"deploy/{STORE}", "--replicas=0")
    system.wait_gone("pods", "app.kubernetes.io/component=store")


def store_back(system: Kube) -> None:
    """Start the store's server, and return when it is ready."""
    system.run("scale", f"deploy/{STORE}", "--replicas=1")
    system.run("rollout", "status", f"deploy/{STORE}", "--timeout=120s", timeout=130)


def restart_operator(system: Kube) -> None:
    """Replace the operator's pod by another one, and return when that one is ready."""
    system.run("rollout", "restart", f"deploy/{install.RELEASE}")
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=180s", timeout=190)


def configure_operator(system: Kube, *changes: str) -> None:
    """Set or (NAME-) remove environment variables of the operator, and return when it runs with them."""
    system.run("set", "env", f"deploy/{install.RELEASE}", *changes)
    system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s", timeout=130)
