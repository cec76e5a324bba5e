"""The Kubernetes Job that brings an adapter from elsewhere into the store (contracts.md, section 7a). It is created once."""

from __future__ import annotations

import json
from typing import Any

from graftwork import names
from graftwork.api import LoRAAdapter
from graftwork.api.common import PodSettings
from graftwork.config import Config
from graftwork.facts.imported import DEADLINE_SECONDS, RETRIES
from graftwork.plan import credentials, jobs, pods
from graftwork.plan.pods import Manifest

API_VERSION = "graftwork.dev/import/v1"
SCRATCH = "/scratch"
FILES, FACTS = f"{SCRATCH}/adapter", f"{SCRATCH}/source.json"


def import_document(adapter: LoRAAdapter) -> dict[str, Any]:
    """Return what the import container gets as GRAFTWORK_IMPORT."""
    metadata, spec = adapter.metadata, adapter.spec
    return {
        "apiVersion": API_VERSION,
        "adapter": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid, "alias": spec.alias},
        "source": spec.source,
        "digest": spec.digest,
    }


def import_job(adapter: LoRAAdapter, config: Config) -> Manifest:
    """Return the Job. What is wrong with the source or its files fails it at once; a source or store that does not answer is tried again.

    No container has an API token, with a serviceAccountName neither: IRSA and EKS Pod Identity bring a projected token of their own, and
    Workload Identity asks the node's metadata server. What a cloud gives the account, it gives both containers, so such an account should be
    allowed to read the source and nothing else; the store's keys come before it, being environment variables.
    """
    name, spec = adapter.metadata.name, adapter.spec
    account = {"serviceAccountName": spec.service_account_name} if spec.service_account_name else {}
    return jobs.job(
        {"name": names.import_job(name), "labels": {names.LABEL_ADAPTER: name}},
        template={"labels": pods.pod_labels(PodSettings(), "import", name, names.LABEL_ADAPTER)},
        init=[_download(adapter, config)],
        containers=[_import(adapter, config)],
        pod={**account, "volumes": [pods.empty("scratch"), *credentials.volumes(spec.credentials_secret), *pods.store_volume(config)]},
        backoffLimit=RETRIES,
        activeDeadlineSeconds=DEADLINE_SECONDS,
    )


def _download(adapter: LoRAAdapter, config: Config) -> Manifest:
    spec = adapter.spec
    return pods.container(
        names.CONTAINER_DOWNLOAD,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["download", "--kind", "adapter", "--source", spec.source, "--to", FILES, "--facts", FACTS],
        env=[pods.env("HOME", SCRATCH), *_source_env(adapter, config)],
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount("scratch", SCRATCH), *credentials.mounts(spec.credentials_secret)],
    )


def _source_env(adapter: LoRAAdapter, config: Config) -> list[Manifest]:
    """Return the credentials of the source, never the store's; only an s3 source without any of its own is read with those."""
    spec = adapter.spec
    kind, secret = spec.source.partition("://")[0], spec.credentials_secret
    if kind == "s3" and not secret:
        return [] if spec.service_account_name else pods.store_credentials(config)
    return credentials.source_env(kind, secret, config)


def _import(adapter: LoRAAdapter, config: Config) -> Manifest:
    document = json.dumps(import_document(adapter), sort_keys=True, separators=(",", ":"))
    return pods.container(
        names.CONTAINER_IMPORT,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["import"],
        env=[
            pods.env("HOME", SCRATCH),
            pods.env("GRAFTWORK_IMPORT", document),
            *pods.store_env(config),
        ],
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount("scratch", SCRATCH), *pods.store_mount(config, read_only=False)],
    )


def account_problem(adapter: LoRAAdapter, config: Config) -> str:
    """Return what is wrong with the ServiceAccount that an import asks for; nothing if it may have it."""
    name, allowed = adapter.spec.service_account_name, config.allowed_service_accounts
    if name in ("", "default", *allowed):
        return ""
    listed = ", ".join(allowed) or "empty"
    return (
        f"spec.serviceAccountName is {name!r}, and the operator's configuration does not allow it (allowedServiceAccounts: {listed}); an "
        "administrator can add it there, or apply this adapter again without it, as the namespace's default account"
    )
