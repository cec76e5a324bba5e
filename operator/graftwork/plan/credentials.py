"""What a container that reads a source gets of its Secret: the keys of that kind of source, a certificate authority, and nothing else."""

from __future__ import annotations

from graftwork.config import Config
from graftwork.plan import pods
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source

PATH = "/graftwork/source"
CA_KEY = "ca.crt"
CA_FILE = f"{PATH}/{CA_KEY}"
VOLUME = "credentials"
_KEYS = {"s3": pods.STORE_KEYS, "hf": ("HF_TOKEN",), "https": ("AUTHORIZATION",)}


def source_env(kind: str, secret: str, config: Config) -> list[Manifest]:
    """Return the variables for a source of a kind; every key of the Secret is optional, since some sources need none."""
    variables = [pods.env("HF_ENDPOINT", config.hub.endpoint)] if kind == "hf" and config.hub.endpoint else []
    if not secret:
        return variables
    variables += [{"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}} for key in _KEYS[kind]]
    return [*variables, pods.env("SOURCE_CA_FILE", CA_FILE)]


def volumes(secret: str) -> list[Manifest]:
    """Return the volume with the Secret's certificate authority, and with nothing else of it; without that key it is empty."""
    if not secret:
        return []
    return [{"name": VOLUME, "secret": {"secretName": secret, "items": [{"key": CA_KEY, "path": CA_KEY}], "optional": True}}]


def mounts(secret: str) -> list[Manifest]:
    """Return the mount of that volume."""
    return [pods.mount(VOLUME, PATH, read_only=True)] if secret else []


def model_env(source: Source, secret: str, config: Config) -> list[Manifest]:
    """Return the variables of a container that reads a model or a data set; without a Secret, a bucket is read with the store's keys."""
    if source.kind != "hf":
        return pods.source_env(secret, config)
    return [pods.env("HOME", "/tmp"), *source_env("hf", secret, config)]


def model_volumes(source: Source, secret: str) -> list[Manifest]:
    """Return the volumes for `model_mounts`."""
    return volumes(secret) if source.kind == "hf" else []


def model_mounts(source: Source, secret: str) -> list[Manifest]:
    """Return the mounts of that container beside the one that it fills."""
    return mounts(secret) if source.kind == "hf" else []
