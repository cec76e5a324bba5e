"""The same engine and model as people run them by hand, for comparison."""

from __future__ import annotations

from collections.abc import Mapping

from tests.harness.kube import Object


def objects(images: Mapping[str, str]) -> tuple[Object, Object]:
    """Return a Deployment `plain` (two replicas, a readiness probe, nothing else) and its Service; `images` are references by name."""
    labels = {"app": "plain"}
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    serve = ["vllm", "serve", "/models/base", "--served-model-name", "plain", "--max-model-len", "512", "--enforce-eager", "--dtype", "float32"]
    mounts = [{"name": "model", "mountPath": "/models/base"}, {"name": "shm", "mountPath": "/dev/shm"}]
    download = {
        "name": "download",
        "image": images["agent"],
        "command": ["graftwork-agent", "download", "--source", "s3://models/tiny", "--to", "/models/base"],
        "env": [{"name": key, "valueFrom": {"secretKeyRef": {"name": "graftwork-store", "key": key}}} for key in keys],
        "volumeMounts": mounts,
        "securityContext": security,
    }
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "HOME": "/tmp", "USER": "plain"}
    engine = {
        "name": "vllm",
        "image": images["engine-cpu"],
        "command": serve,
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": mounts,
        "securityContext": security,
    }
    pod = {
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [download],
        "containers": [engine],
        "volumes": [{"name": "model", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels}}
        ],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    meta = {"name": "plain", "labels": labels}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": [{"port": 8000}]}},
    )
