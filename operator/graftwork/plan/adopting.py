"""Deployments of buckets from before buckets were looked up: they go on unpinned, so that no pod rolls because the operator became another one."""

from __future__ import annotations

from typing import Any

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.plan import credentials, pods, revisions
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source


def adopted(deployment: LLMDeployment, source: Source, stored: Manifest, config: Config) -> bool:
    """Whether a stored revision was made without a look at the bucket, and its source and credentials are still those that are asked for.

    `graftwork.dev/refresh`, a ServiceAccount or a shared cache asks for the look. A revision of the very same spec is adopted whatever it has: what
    differs then is the operator's own.
    """
    spec = deployment.spec
    asked = deployment.metadata.annotations.get(names.ANNOTATION_REFRESH) or spec.service_account_name or spec.cache.mode == "Shared"
    if source.versioned or asked or (stored.get("data") or {}).get("model"):
        return False
    if revisions.stored_hash(stored) == revisions.template_hash(deployment):
        return True
    template = ((stored.get("data") or {}).get("template") or {}).get("spec") or {}
    downloads = [item for item in template.get("initContainers") or [] if item.get("name") == names.CONTAINER_DOWNLOAD]
    wanted = _secrets(credentials.model_env(source, deployment.spec.model.credentials_secret, config))
    return any(_source(item) == source.text and _secrets(item.get("env") or []) == wanted for item in downloads)


def _source(container: Manifest) -> str:
    arguments: list[str] = list(container.get("args") or [])
    return pods.meant(arguments[arguments.index("--source") + 1]) if "--source" in arguments[:-1] else ""


def _secrets(env: list[Any]) -> set[str]:
    found = [((item.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") for item in env]
    return {str(name) for name in found if name}
