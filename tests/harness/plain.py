"""The engine as people run it by hand, made from one of our serving pods: same image, model, flags, environment and node; no guard, no agent.

Adapters are named by `--lora-modules`, so that adding one changes the command line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.harness.kube import Kube, Object

NAME = "plain"
LABELS = {"app": NAME}
PORT = 8000
READY_SECONDS = 420
OLD_POD_SECONDS = 120
OWN_FLAGS = ("--middleware", "--shutdown-timeout")
"""What only Graftwork sets. Without the second, vLLM ends at once when it is told to: nobody who runs it by hand is told of that flag."""
KEPT_MOUNTS = ("model", "home", "shm")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
FOLDER = "/adapters"


def objects(pod: Object, adapters: Mapping[str, str]) -> tuple[Object, Object]:
    """Return Deployment and Service of one replica on the pod's node; `adapters` is name -> `store://` source."""
    meta = {"name": NAME, "labels": LABELS}
    template = {"metadata": {"labels": LABELS}, "spec": _pod(pod, adapters)}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
    }
    ports = [{"port": PORT, "targetPort": "http"}]
    return deployment, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": LABELS, "ports": ports}}


def _pod(pod: Object, adapters: Mapping[str, str]) -> Object:
    spec = pod["spec"]
    inits = {each["name"]: each for each in spec["initContainers"]}
    volumes = [volume for volume in spec["volumes"] if volume["name"] in KEPT_MOUNTS]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/hostname": spec["nodeName"]},
        "securityContext": spec["securityContext"],
        "initContainers": [
            _without_runtime(inits["download"], inits["download"]["args"]),
            *(_adapter_download(inits["agent"], name, source) for name, source in adapters.items()),
        ],
        "containers": [_engine(next(each for each in spec["containers"] if each["name"] == "vllm"), adapters)],
        "volumes": [*volumes, {"name": "lora", "emptyDir": {}}],
    }


def _engine(container: Object, adapters: Mapping[str, str]) -> Object:
    modules = ["--lora-modules", *(f"{name}={FOLDER}/{name}" for name in adapters)] if adapters else []
    return {
        "name": "vllm",
        "image": container["image"],
        "command": [*(each for each in container["args"] if each.partition("=")[0] not in OWN_FLAGS), *modules],
        "env": [each for each in container["env"] if not each["name"].startswith("GRAFTWORK_") and each["name"] != "PYTHONPATH"],
        "ports": container["ports"],
        "startupProbe": container["startupProbe"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3},
        "volumeMounts": [*_mounts(container), {"name": "lora", "mountPath": FOLDER, "readOnly": True}],
        "securityContext": container["securityContext"],
        **({"resources": container["resources"]} if container.get("resources") else {}),
    }


def _without_runtime(container: Object, args: Sequence[str]) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "command": container["command"],
        "args": list(args),
        "env": container.get("env", []),
        "volumeMounts": _mounts(container),
        "securityContext": container["securityContext"],
    }


def _adapter_download(agent: Object, name: str, source: str) -> Object:
    """Return an init container that fetches one adapter file by file, with what the agent knows of the store."""
    address = store_address(next(each["value"] for each in agent["env"] if each["name"] == "GRAFTWORK_STORE_URL"), source)
    steps = (f"graftwork-agent download --source {address}/{file} --to {FOLDER}/{name}" for file in ADAPTER_FILES)
    return {
        "name": f"adapter-{name}",
        "image": agent["image"],
        "command": ["sh", "-c", " && ".join(steps)],
        "env": [each for each in agent["env"] if each["name"].startswith("AWS_")],
        "volumeMounts": [{"name": "lora", "mountPath": FOLDER}],
        "securityContext": agent["securityContext"],
    }


def _mounts(container: Object) -> list[dict[str, Any]]:
    return [mount for mount in container["volumeMounts"] if mount["name"] in KEPT_MOUNTS]


def store_address(url: str, source: str) -> str:
    """Return where a `store://<namespace>/<alias>/<digest>` lies, by the store's `s3://` address (contracts.md, section 8)."""
    if not url.startswith("s3://"):
        raise ValueError(f"the store is {url!r}; the plain Deployment can only download from s3://")
    return f"{url.rstrip('/')}/adapters/{source.removeprefix('store://')}"


def start(kube: Kube, pod: Object, adapters: Mapping[str, str]) -> str:
    """Apply both and wait until the new pod is ready and no old one is left; return the Service's address."""
    kube.apply(*objects(pod, adapters))
    return finished(kube)


def finished(kube: Kube) -> str:
    """Wait for the end of a rollout, the old pod's too; return the Service's address."""
    kube.run("rollout", "status", f"deploy/{NAME}", f"--timeout={READY_SECONDS}s", timeout=READY_SECONDS + 10)
    for _ in kube.watch("pods", selector=f"app={NAME}", deadline=time.monotonic() + OLD_POD_SECONDS):
        if len(kube.list("pods", f"app={NAME}")) == 1:
            break
    else:
        raise AssertionError(f"the old pod of the plain Deployment is still there after {OLD_POD_SECONDS} s")
    service = kube.get("service", NAME)
    assert service
    return str(service["spec"]["clusterIP"])


def address(kube: Kube) -> str:
    """Return the pod's own address."""
    (pod,) = kube.list("pods", f"app={NAME}")
    return str(pod["status"]["podIP"])


def remove(kube: Kube) -> None:
    """Delete both and wait until the pod is gone."""
    kube.run("delete", "deploy,service,configmap", "-l", f"app={NAME}")
    kube.wait_gone("pods", f"app={NAME}")
