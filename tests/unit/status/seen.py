"""What was seen, made short: pods, containers, agents and adapters for tests of statuses."""

from __future__ import annotations

from typing import Any

from graftwork.facts.adapters import Adapter
from graftwork.facts.agents import Agent, BaseFacts, SeenAdapter
from graftwork.facts.pods import Pod, pod

NOW = "2026-11-21T13:00:00.000000Z"
BASE = "sha256:" + "1" * 64
FACTS = BaseFacts(BASE, "Qwen3ForCausalLM", 3_000_000, 6_000_000, 2048)


def container(
    name: str, *, running: bool = False, waiting: tuple[str, str] | None = None, ended: tuple[int, str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a container status; `ended` with `running` or `waiting` is its last end, else its present one."""
    status: dict[str, Any] = {"name": name, "ready": running, "restartCount": more.get("restarts", 0), "state": {}}
    end = {"exitCode": ended[0], "message": ended[1], "reason": more.get("reason", "Error"), "finishedAt": "2026-11-21T12:59:00Z"} if ended else None
    if more.get("started"):
        status["started"] = True
    if running:
        status["state"]["running"] = {"startedAt": "2026-11-21T12:00:00Z"}
    if waiting:
        status["state"]["waiting"] = {"reason": waiting[0], "message": waiting[1]}
    if end and (running or waiting):
        status["lastState"] = {"terminated": end}
    elif end:
        status["state"]["terminated"] = end
    return status


def pod_object(
    name: str, *, ready: bool = True, template: str = "t1", init: tuple[dict[str, Any], ...] = (), main: tuple[dict[str, Any], ...] = (), **more: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-11-21T12:01:00Z"}]
    if more.get("unschedulable"):
        conditions.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": more["unschedulable"]})
    if more.get("disrupted"):
        conditions.append({"type": "DisruptionTarget", "status": "True"})
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "ml",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": more.get("created", "2026-11-21T12:00:00Z"),
        "labels": {"app.kubernetes.io/managed-by": "graftwork", **more.get("labels", {})},
        "annotations": {"graftwork.dev/template-hash": template, **more.get("annotations", {})},
    }
    if more.get("owner"):
        metadata["ownerReferences"] = [{"uid": more["owner"], "controller": True}]
    if more.get("terminating"):
        metadata["deletionTimestamp"] = NOW
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": more.get("node", "a")},
        "status": {
            "phase": more.get("phase", "Running" if ready else "Pending"),
            "podIP": "10.0.0.1",
            "startTime": "2026-11-21T12:00:01Z",
            "conditions": conditions,
            "initContainerStatuses": list(init),
            "containerStatuses": list(main),
        },
    }


def seen_pod(name: str, **fields: Any) -> Pod:
    return pod(pod_object(name, **fields))


def seen_agent(*adapters: SeenAdapter, reachable: bool = True, silent: float = 0, base: BaseFacts | None = FACTS, **fields: Any) -> Agent:
    return Agent(reachable=reachable, silent_seconds=silent, answered=True, base=base, adapters=adapters, **fields)


def loaded(adapter: Adapter) -> SeenAdapter:
    return SeenAdapter(adapter.engine_name, adapter.name, "Loaded")


def refused(adapter: Adapter, reason: str, message: str, state: str = "Refused") -> SeenAdapter:
    return SeenAdapter(adapter.engine_name, adapter.name, state, reason, message)


def adapter(alias: str = "medical", version: int = 8, letter: str = "a") -> Adapter:
    source, digest = f"store://ml/{alias}/{letter * 12}", f"sha256:{letter * 64}"
    created = "2026-11-21T11:00:00Z"
    return Adapter(f"{alias}-{version}", f"uid-{alias}-{version}", created, False, {}, alias, version, "tickets", source, digest, BASE, 8)


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    found = next(item for item in status["conditions"] if item["type"] == kind)
    return found["status"], found["reason"]


def message(status: dict[str, Any], kind: str) -> str:
    return str(next(item for item in status["conditions"] if item["type"] == kind)["message"])
