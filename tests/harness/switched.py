"""One engine that answers with and without the guard, made from one of our serving pods, so that nothing else differs.

Two processes of the same image, flags and node were seen to differ by more than the guard costs.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness import plain, processes
from tests.harness.kept import Kept
from tests.harness.kube import Kube, Object

FOLDER = "/bench"
MODULE = Path(__file__).with_name("guard_switch.py")
CONFIG_MAP = "guard-switch"
OWN_VOLUMES = ("bin", "run")
HEADER = {"x-bench": "plain"}  # as in that file, which only an engine can import
ROUTING = "graftwork.dev/routing/v1"


def objects(pod: Object, engine_name: str, source: str) -> list[Object]:
    """Return ConfigMap, Deployment and Service of the engine with one adapter of that name."""
    deployment, service = plain.objects(pod, {engine_name: source})
    spec, theirs = deployment["spec"]["template"]["spec"], pod["spec"]
    install = next(each for each in theirs["initContainers"] if each["name"] == "install")
    mounts = [mount for mount in install["volumeMounts"] if mount["name"] in OWN_VOLUMES]
    spec["initContainers"].insert(
        0, {**{key: install[key] for key in ("name", "image", "command", "args", "securityContext")}, "env": [], "volumeMounts": mounts}
    )
    spec["volumes"] += [volume for volume in theirs["volumes"] if volume["name"] in OWN_VOLUMES]
    spec["volumes"].append({"name": "switch", "configMap": {"name": CONFIG_MAP}})
    (engine,) = spec["containers"]
    original = next(each for each in theirs["containers"] if each["name"] == "vllm")
    engine["command"].append(f"--middleware={MODULE.stem}.Switch")
    engine["env"] = [
        {**each, "value": f"{each['value']}:{FOLDER}"} if each["name"] == "PYTHONPATH" else each
        for each in original["env"]
        if each["name"] != "GRAFTWORK_KEYS"
    ]
    engine["volumeMounts"] += [mount for mount in original["volumeMounts"] if mount["name"] in OWN_VOLUMES]
    engine["volumeMounts"].append({"name": "switch", "mountPath": FOLDER, "readOnly": True})
    meta = {"name": CONFIG_MAP, "labels": plain.LABELS}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {MODULE.name: MODULE.read_text()}}, deployment, service]


def start(kube: Kube, pod: Object, base: str, alias: str, engine_name: str, source: str) -> str:
    """Start it, route the alias as an agent would, and return the pod's address."""
    kube.apply(*objects(pod, engine_name, source))
    plain.finished(kube)
    (made,) = kube.list("pods", f"app={plain.NAME}")
    host = plain.address(kube)
    agent = Kept(host, plain.PORT, {"X-Graftwork-Token": _token(made["metadata"]["uid"])})
    routing = {"apiVersion": ROUTING, "base": base, "aliases": {alias: engine_name}, "unavailable": {}, "ready": True}
    status, raw = agent.send("PUT", "/graftwork/routing", json.dumps(routing).encode())
    agent.close()
    if status != 200:
        raise AssertionError(f"the guard answered its routing with {status}: {raw[:200]!r}")
    return host


def _token(uid: str) -> str:
    """Return the pod's secret, which the host's root can read."""
    (engine, *_) = processes.of_pod(uid, "vllm serve")
    return Path(f"/proc/{engine}/root/graftwork/run/token").read_text().strip()
