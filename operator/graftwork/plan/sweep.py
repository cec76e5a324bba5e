"""When the store of a namespace is swept, and the Job that does it (contracts.md, section 7b)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from graftwork import names
from graftwork.api.common import PodSettings
from graftwork.config import Config, LeaseConfig
from graftwork.plan import jobs, pods
from graftwork.plan.pods import Manifest

API_VERSION = "graftwork.dev/sweep/v1"
FOLDER = "/graftwork/sweep"
PERIOD = timedelta(days=1)
SOONEST, LATEST = timedelta(seconds=30), timedelta(hours=1)
"""The bounds of `soon`."""
AFTER_FAILURE = timedelta(hours=1)
KEPT_SECONDS = 2 * 86_400
"""How long a finished Job tells the next pass what it found; longer than the period, and gone by itself when the operator is."""
DEADLINE_SECONDS = 3600
RETRIES = 3


@dataclass(frozen=True)
class Last:
    """The newest sweep. `at`: when it ended, or began; `keep`: what it was told to keep.

    `waiting`: folders that nobody refers to and that were not old enough; None: it did not say.
    """

    number: int
    over: bool
    failed: bool
    at: datetime
    keep: frozenset[str]
    waiting: int | None = None


def due(now: datetime, keep: frozenset[str], last: Last | None, *, oldest: datetime | None, lost: bool, retain_seconds: int) -> timedelta | None:
    """Return after how long the next sweep is due (at once: zero or less); None while one runs, or when there is nothing to look after.

    `keep` are the digests that are referred to now, `oldest` when the first LoRAAdapter of the namespace was created, and `lost` whether this
    process saw a reference go since the newest sweep began: one that came later than that sweep is in nobody's list.
    """
    if last is None:
        if lost:
            return timedelta()
        return oldest + PERIOD - now if oldest else None
    pause = _pause(keep, last, retain_seconds, lost=lost) if last.over else None
    return None if pause is None else last.at + pause - now


def soon(retain_seconds: int) -> timedelta:
    """Return the time between two sweeps, however much is deleted: what is retained for a week can wait an hour until its week begins."""
    return max(SOONEST, min(LATEST, timedelta(seconds=retain_seconds / 100)))


def _pause(keep: frozenset[str], last: Last, retain_seconds: int, *, lost: bool) -> timedelta | None:
    if last.failed:
        return AFTER_FAILURE
    if lost or last.keep - keep:
        return soon(retain_seconds)
    if last.waiting:
        return min(PERIOD, max(timedelta(seconds=retain_seconds), SOONEST))
    return PERIOD if keep or last.waiting is None else None


def installation(lease: LeaseConfig, namespace_uid: str) -> str:
    """Return who we are to others that use the same store: the same after a new installation in this namespace, another in any other cluster."""
    return f"{lease.namespace}.{lease.name}.{namespace_uid}"


def instructions(namespace: str, owner: str, keep: Iterable[str], retain_seconds: int) -> dict[str, Any]:
    """Return what the sweep reads; `owner` is our `installation`."""
    return {"apiVersion": API_VERSION, "namespace": namespace, "installation": owner, "keep": sorted(keep), "retainSeconds": retain_seconds}


def kept(config_map: Manifest | None) -> frozenset[str]:
    """Return what a sweep was told to keep; nothing if its ConfigMap is gone or spoiled."""
    try:
        return frozenset(json.loads(((config_map or {}).get("data") or {}).get(names.SWEEP_KEY) or "{}").get("keep") or ())
    except (ValueError, TypeError, AttributeError):
        return frozenset()


def sweep_job(namespace: str, number: int, config: Config) -> Manifest:
    """Return the Job. It belongs to the namespace and to no resource, so it removes itself."""
    instructions = {"name": "instructions", "configMap": {"name": names.sweep_job(number), "optional": False}}
    return jobs.job(
        {"name": names.sweep_job(number), "namespace": namespace, "labels": _labels()},
        template={"labels": pods.pod_labels(PodSettings(), "sweep", "true", names.LABEL_SWEEP)},
        containers=[_sweep(config)],
        pod={"volumes": [instructions, *pods.store_volume(config)]},
        backoffLimit=RETRIES,
        activeDeadlineSeconds=DEADLINE_SECONDS,
        ttlSecondsAfterFinished=KEPT_SECONDS,
    )


def sweep_config_map(job: Manifest, document: dict[str, Any]) -> Manifest:
    """Return the ConfigMap that the Job's pod waits for; it goes with the Job."""
    metadata = job["metadata"]
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "labels": _labels(), "ownerReferences": [owner]},
        "data": {names.SWEEP_KEY: json.dumps(document, sort_keys=True, separators=(",", ":"))},
    }


def _labels() -> dict[str, str]:
    return {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_SWEEP: "true"}


def _sweep(config: Config) -> Manifest:
    return pods.container(
        names.CONTAINER_SWEEP,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["sweep", "--instructions", f"{FOLDER}/{names.SWEEP_KEY}"],
        env=pods.store_env(config),
        resources=pods.small("64Mi"),
        volumeMounts=[pods.mount("instructions", FOLDER, read_only=True), *pods.store_mount(config, read_only=False)],
    )
