"""Writes the trained adapter to a folder, the same bytes for the same weights, and publishes that folder to the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graftwork_store.errors import SourceNotFound, StoreUnreachable
from graftwork_store.store import Published, Store

from graftwork_trainer.config import Run

CONFIG_FILE = "adapter_config.json"


def save_adapter(model: Any, folder: Path, source: str) -> None:
    """Save the adapter of the PEFT `model` in `folder`; its config names the base by `source`, never by a path of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    # Embeddings are never trained here; with "auto" the library would look for the base on the hub to find out.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    tidy_config(folder / CONFIG_FILE, source)


def tidy_config(path: Path, source: str) -> None:
    """Rewrite adapter_config.json with its base and with keys and module names in order: sets come out in another order in each process."""
    config = json.loads(path.read_bytes()) | {"base_model_name_or_path": source}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def manifest_fields(run: Run, folder: Path, fingerprint: str, dataset_digest: str, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what the manifest says of the adapter in `folder` besides its files."""
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    targets = config["target_modules"]
    return {
        "rank": config["r"],
        "targetModules": targets if isinstance(targets, list) else [targets],
        "base": {"source": run.base_source, "fingerprint": fingerprint},
        "lineage": {
            "namespace": run.job.namespace,
            "job": run.job.name,
            "uid": run.job.uid,
            "run": run.job.run,
            "dataset": dataset_digest,
            "metrics": dict(metrics),
        },
    }


def check_store(store: Store) -> None:
    """Raise an error when the store does not answer or refuses the credentials: before hours of training, not after them."""
    with _bucket_may_come():
        store.check()


def publish(store: Store, run: Run, folder: Path, fields: Mapping[str, Any]) -> Published:
    """Publish `folder`; the manifest appears last, and the time returned is the one in the manifest."""
    with _bucket_may_come():
        return store.publish(folder, run.job.namespace, run.alias, fields)


@contextlib.contextmanager
def _bucket_may_come() -> Iterator[None]:
    """A store's bucket can be made after a run was started: that run is tried again, unlike one whose source does not exist."""
    try:
        yield
    except SourceNotFound as error:
        raise StoreUnreachable(error.message) from error
