"""One screen about a running cluster."""

from __future__ import annotations

import os
from http.client import HTTPException
from pathlib import Path

from tests.cluster import lifecycle, processes
from tests.cluster.api import Api, JsonObject
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError


def pod_trouble(pod: JsonObject) -> str:
    """Return why a pod is not fine: its phase and the first waiting reason of its containers; empty for a healthy one."""
    state = pod.get("status", {})
    containers = [*state.get("initContainerStatuses", []), *state.get("containerStatuses", [])]
    reasons = [r for c in containers if (r := c.get("state", {}).get("waiting", {}).get("reason"))]
    ready = {c["type"]: c["status"] for c in state.get("conditions", [])}.get("Ready") == "True"
    if state.get("phase") == "Succeeded" or (state.get("phase") == "Running" and ready):
        return ""
    return " ".join([state.get("phase", "?"), *reasons[:1]] + (["not ready"] if state.get("phase") == "Running" else []))


def size_of(folder: Path) -> int:
    """Return the bytes on disk below a folder, without following mounts."""
    total = 0
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(base, name).is_mount()]
        for name in files:
            try:
                total += Path(base, name).lstat().st_blocks * 512
            except OSError:
                continue
    return total


def _component_lines(layout: Layout) -> list[str]:
    rows = []
    for name in processes.known(layout):
        pid = processes.pid_of(layout, name)
        rows.append(f"  {name:<20}{f'pid {pid}' if pid else f'DOWN   (log: {layout.logs / name}.log)'}")
    return rows


def _node_line(node: JsonObject) -> str:
    conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
    ready = "Ready" if conditions.get("Ready") == "True" else "NOT READY"
    cordoned = ", cordoned" if node["spec"].get("unschedulable") else ""
    address = next((a["address"] for a in node["status"].get("addresses", []) if a["type"] == "InternalIP"), "?")
    return f"  {node['metadata']['name']:<20}{ready}{cordoned}, {address}"


def _cluster_lines(layout: Layout) -> list[str]:
    api = Api(layout)
    try:
        nodes, pods = api.get("/api/v1/nodes")["items"], api.get("/api/v1/pods")["items"]
    except (OSError, HTTPException, ClusterError) as error:
        return [f"API server: does not answer ({error})"]
    lines = ["nodes", *map(_node_line, nodes)]
    troubled = [(pod, trouble) for pod in pods if (trouble := pod_trouble(pod))]
    lines.append(f"pods: {len(pods)}, of which not fine: {len(troubled)}")
    lines += [f"  {pod['metadata']['namespace']}/{pod['metadata']['name']}: {trouble}" for pod, trouble in troubled[:10]]
    return lines


def report(layout: Layout) -> str:
    """Return the state of the cluster as text."""
    phase = lifecycle.phase(layout)
    lines = [f"cluster: {phase}   ({layout.root})"]
    if phase != "down":
        lines += ["components", *_component_lines(layout)]
    if phase == "up":
        lines += _cluster_lines(layout)
    folders = {node.name: size_of(node.folder) for node in layout.nodes if node.folder.exists()}
    used = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in folders.items()) or "nothing"
    lines.append(f"disk: {used}, logs {size_of(layout.logs) / 2**20:.0f} MiB")
    if phase == "up":
        lines.append(f"export KUBECONFIG={layout.kubeconfig}")
    return "\n".join(lines)
