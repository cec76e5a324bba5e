"""What every pod of ours has in common: who it runs as, how it reaches the store, where it may be placed."""

from __future__ import annotations

from typing import Any

from graftwork import names
from graftwork.api.common import Accelerator, PodSettings
from graftwork.config import Config

USER_ID = 10001
STORE_CLAIM_PATH = "/store"
STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")

Manifest = dict[str, Any]


def pod_security() -> Manifest:
    """Return the pod's security context: one user that is not root; volumes belong to its group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container(name: str, image: str, config: Config, **fields: Any) -> Manifest:
    """Return a container with what all of ours have; `fields` that are empty are left out, and `args` are taken literally."""
    manifest = {
        "name": name,
        "image": image,
        "imagePullPolicy": config.image_pull_policy,
        **fields,
        "args": [literal(argument) for argument in fields.get("args", ())],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {key: value for key, value in manifest.items() if value not in (None, [], {})}


def env(name: str, value: str) -> Manifest:
    """Return an environment variable with a literal value."""
    return {"name": name, "value": literal(value)} if value else {"name": name}


def literal(text: str) -> str:
    """Return what Kubernetes makes the text of: in arguments and variables it replaces $(NAME) by a variable's value, such as a key, and $$ by $."""
    return text.replace("$", "$$")


def meant(text: str) -> str:
    """Return the text of which `literal` made this."""
    return text.replace("$$", "$")


def field_env(name: str, path: str) -> Manifest:
    """Return an environment variable with a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def secret_env(secret: str, *, optional: bool, endpoint: str = "") -> list[Manifest]:
    """Return the S3 settings from a Secret of the workload's namespace; `endpoint` stands in for its AWS_ENDPOINT_URL."""
    variables = []
    for key in STORE_KEYS:
        if key == "AWS_ENDPOINT_URL" and endpoint:
            variables.append(env(key, endpoint))
            continue
        reference: Manifest = {"name": secret, "key": key}
        if optional or key in ("AWS_ENDPOINT_URL", "AWS_REGION"):  # AWS itself needs neither
            reference["optional"] = True
        variables.append({"name": key, "valueFrom": {"secretKeyRef": reference}})
    return variables


def source_env(credentials_secret: str, config: Config) -> list[Manifest]:
    """Return the S3 settings of a download: the named Secret's, or the store's where none is named."""
    if credentials_secret:
        return secret_env(credentials_secret, optional=False)
    return store_credentials(config)


def store_credentials(config: Config) -> list[Manifest]:
    """Return the S3 settings of the store."""
    return secret_env(config.store.credentials_secret, optional=True, endpoint=config.store.endpoint)


def store_env(config: Config) -> list[Manifest]:
    """Return where the store is and how to read it; only agents and trainers get it."""
    if not config.store.url:
        return []
    credentials = store_credentials(config) if config.store.url.startswith("s3://") else []
    return [env("GRAFTWORK_STORE_URL", config.store.url), *credentials]


def store_volume(config: Config) -> list[Manifest]:
    """Return the volume of a store that is a claim."""
    if not config.store.claim:
        return []
    return [{"name": "store", "persistentVolumeClaim": {"claimName": config.store.claim}}]


def store_mount(config: Config, *, read_only: bool) -> list[Manifest]:
    """Return the mount of a store that is a claim."""
    if not config.store.claim:
        return []
    return [mount("store", STORE_CLAIM_PATH, read_only=read_only)]


def mount(volume: str, path: str, *, read_only: bool = False, sub_path: str = "") -> Manifest:
    """Return a volume mount."""
    manifest: Manifest = {"name": volume, "mountPath": path}
    if read_only:
        manifest["readOnly"] = True
    if sub_path:
        manifest["subPath"] = sub_path
    return manifest


def empty(name: str, *, memory: bool = False, size: str = "") -> Manifest:
    """Return an empty volume; one that holds more than `size` ends its pod, by name."""
    return {"name": name, "emptyDir": {**({"medium": "Memory"} if memory else {}), **({"sizeLimit": size} if size else {})}}


def claim(name: str, claim_name: str) -> Manifest:
    """Return the volume of a claim that is only read."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name, "readOnly": True}}


def resources(settings: PodSettings, accelerator: Accelerator, computed: Manifest | None = None) -> Manifest:
    """Return the main container's resources: the spec's, what is `computed` of those that it does not name, and the GPUs."""
    own = computed or {}
    gpus = {"nvidia.com/gpu": str(accelerator.gpus)} if accelerator.gpus else {}
    requests = {key: str(value) for key, value in settings.resources.requests.items()}
    limits = {key: str(value) for key, value in settings.resources.limits.items()}
    found = {"requests": {**own.get("requests", {}), **requests, **gpus}, "limits": {**own.get("limits", {}), **limits, **gpus}}
    return {key: value for key, value in found.items() if value}


def small(memory: str, limit: str = "") -> Manifest:
    """Return the resources of a container that does little."""
    found: Manifest = {"requests": {"cpu": "20m", "memory": memory}}
    if limit:
        found["limits"] = {"memory": limit}
    return found


def placement(settings: PodSettings) -> Manifest:
    """Return the pod fields that say where it may run, as the spec has them."""
    fields: Manifest = {
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in settings.tolerations],
        "priorityClassName": settings.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {key: value for key, value in fields.items() if value}


def pod_labels(settings: PodSettings, app: str, instance: str, label: str) -> dict[str, str]:
    """Return a pod's labels; without managed-by and the label that names its resource it would never be seen."""
    return {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": instance,
        **settings.labels,
        names.LABEL_MANAGED_BY: names.MANAGER,
        label: instance,
    }
