"""Every name that Graftwork gives to something, in one place (docs/design/contracts.md, section 1)."""

from __future__ import annotations

import hashlib
import re

GROUP = "graftwork.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "graftwork"  # the value of LABEL_MANAGED_BY
FIELD_MANAGER = "graftwork"
FINALIZER = f"{GROUP}/finalizer"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_OWNER_UID = f"{GROUP}/owner-uid"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_JOB = f"{GROUP}/job"
LABEL_ADAPTER = f"{GROUP}/adapter"
LABEL_INSPECTS = f"{GROUP}/inspects"
LABEL_FILLS = f"{GROUP}/fills"
LABEL_SWEEP = f"{GROUP}/sweep"
LABEL_PUBLISHED_BY = f"{GROUP}/published-by"
ANNOTATION_ADAPTERS_HASH = f"{GROUP}/adapters-hash"
ANNOTATION_TEMPLATE_HASH = f"{GROUP}/template-hash"
ANNOTATION_SPEC_HASH = f"{GROUP}/spec-hash"
ANNOTATION_CLAIM_UID = f"{GROUP}/claim-uid"
ANNOTATION_REFRESH = f"{GROUP}/refresh"

CONTAINER_ENGINE = "vllm"
CONTAINER_AGENT = "agent"
CONTAINER_INSTALL = "install"
CONTAINER_DOWNLOAD = "download"
CONTAINER_IMPORT = "import"
CONTAINER_INSPECT = "inspect"
CONTAINER_FILL = "fill"
CONTAINER_SWEEP = "sweep"
CONTAINER_TRAINER = "trainer"
CONTAINER_DOWNLOAD_BASE = "download-base"
CONTAINER_DOWNLOAD_DATASET = "download-dataset"

PORT_ENGINE = 8000
PORT_AGENT = 9901
PORT_TRAINER = 9902
PORT_FILL = 9902

ADAPTERS_KEY = "adapters.json"
SWEEP_KEY = "sweep.json"
STORE_SCHEME = "store://"

ALIAS_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ALIAS_MAX_LENGTH = 40
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"


def adapters_config_map(deployment: str) -> str:
    """Return the name of the ConfigMap that tells a deployment's agents what to load."""
    return f"{deployment}-adapters"


def revision(deployment: str, template_hash: str) -> str:
    """Return the name of the ControllerRevision that keeps one rendered pod template."""
    return f"{deployment}-{template_hash}"


def run_job(job: str, run: int) -> str:
    """Return the name of the Kubernetes Job of one training run; runs count from 1."""
    return f"{job}-run-{run}"


def import_job(adapter: str) -> str:
    """Return the name of the Kubernetes Job that brings an adapter into the store."""
    return f"{adapter}-import"


def inspect_job(deployment: str, key: str) -> str:
    """Return the name of the Kubernetes Job that looks up what a model's source is; `key` is of everything whose change needs another look.

    A label of the Job's pods is its name, of at most 63 characters, so that of a long name only the beginning fits.
    """
    return f"{deployment[:46]}-inspect-{hashlib.sha256(f'{deployment} {key}'.encode()).hexdigest()[:8]}"


def cache_claim(deployment: str) -> str:
    """Return the name of the claim with a deployment's shared cache."""
    return f"{deployment}-cache"


def fill_job(deployment: str, key: str) -> str:
    """Return the name of the Kubernetes Job that brings one revision of a model into that claim; short enough for a label, as `inspect_job`."""
    part = key if len(deployment) <= 45 else hashlib.sha256(f"{deployment} {key}".encode()).hexdigest()[:12]
    return f"{deployment[:45]}-fill-{part}"


def sweep_job(number: int) -> str:
    """Return the name of one sweep's Job and ConfigMap."""
    return f"graftwork-sweep-{number}"


def adapter(alias: str, version: int) -> str:
    """Return the name of the LoRAAdapter of one published version."""
    return f"{alias}-{version}"


def engine_adapter(alias: str, digest: str) -> str:
    """Return the name under which vLLM knows an adapter; it contains the digest, so it is never reused for other bytes."""
    if not re.match(DIGEST_PATTERN, digest):
        raise ValueError(f"digest {digest!r} is not sha256:<64 hex>")
    return f"{alias}--{digest.removeprefix('sha256:')[:12]}"
