"""The LoRAAdapter of a run that published: it has no owner, because it outlives its job."""

from __future__ import annotations

from collections.abc import Iterable

from graftwork import names
from graftwork.api import FineTuneJob
from graftwork.facts.adapters import Adapter
from graftwork.facts.result import Result
from graftwork.plan.pods import Manifest


def lineage_of(job: FineTuneJob) -> str:
    """Return the lineage that the run publishes for."""
    return job.spec.publish.owner or job.metadata.name


def next_version(alias: str, existing: Iterable[Adapter]) -> int:
    """Return the version after the highest of the alias, deleted ones that are still going included."""
    return max((adapter.version for adapter in existing if adapter.alias == alias), default=0) + 1


def lora_adapter(job: FineTuneJob, result: Result, base_source: str, run: int, version: int) -> Manifest:
    """Return the LoRAAdapter of a result that has an adapter and a base."""
    assert result.adapter is not None
    assert result.base is not None
    metadata, publish = job.metadata, job.spec.publish
    metrics = {}
    if result.evaluation:
        numbers = result.evaluation
        metrics = {"baseLoss": numbers.base_loss, "adapterLoss": numbers.adapter_loss, "improvement": numbers.improvement}
    lineage = {"job": metadata.name, "run": run, "dataset": result.dataset.digest if result.dataset else "", "metrics": metrics}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LoRAAdapter",
        "metadata": {
            "name": names.adapter(publish.alias, version),
            "namespace": metadata.namespace,
            "labels": {**publish.labels, names.LABEL_PUBLISHED_BY: metadata.uid},
        },
        "spec": {
            "alias": publish.alias,
            "version": version,
            "owner": lineage_of(job),
            "source": result.adapter.source,
            "digest": result.adapter.digest,
            "baseModel": {"source": base_source, "fingerprint": result.base.fingerprint},
            "rank": result.adapter.rank,
            "lineage": {key: value for key, value in lineage.items() if value},
        },
    }
