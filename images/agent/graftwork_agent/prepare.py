"""Bringing one adapter's files onto the pod's disk, verified. Blocking; runs in a thread of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from graftwork_store import manifest as manifests
from graftwork_store.errors import StoreError
from graftwork_store.fingerprint import BaseModel
from graftwork_store.manifest import MANIFEST_FILE, Manifest
from graftwork_store.store import Store

from graftwork_agent.desired import Adapter
from graftwork_agent.refusal import Refusal
from graftwork_agent.verify import Expected, check_base, check_rank, verify


def prepare(adapter: Adapter, folder: Path, store: Store, base: BaseModel, max_rank: int) -> None:
    """Make `folder` hold the verified adapter.

    What is here already (after a restart of the agent) is verified without asking the store. What can be told from the manifest is told before
    anything large is downloaded.

    Raises:
        Refusal: the adapter must not be loaded.
        StoreError: the store did not give it; a retry can help.
    """
    kept = _kept(adapter, folder)
    if kept is not None:
        try:
            verify(folder, _expected(adapter, kept, base, max_rank))
        except Refusal as refusal:
            if refusal.reason not in ("DigestMismatch", "FileNotAllowed"):
                raise
        else:
            return
    manifest = store.read_manifest(adapter.source)
    if manifest.digest != adapter.digest:
        raise Refusal("DigestMismatch", f"{adapter.source} has digest {manifest.digest}, expected {adapter.digest}; publish the adapter again")
    expected = _expected(adapter, manifest, base, max_rank)
    check_base(expected)
    check_rank(manifest.rank, expected, MANIFEST_FILE)
    store.fetch_files(manifest, adapter.source, folder)
    verify(folder, expected)


def _expected(adapter: Adapter, manifest: Manifest, base: BaseModel, max_rank: int) -> Expected:
    trained_on = "" if adapter.compatible else adapter.base_fingerprint or manifest.base_fingerprint
    return Expected(adapter.digest, trained_on, max_rank, base)


def remove(folder: Path) -> None:
    """Remove an adapter's files; the name is gone at once, whatever happens to the bytes."""
    gone = folder.parent / f".gone-{folder.name}-{os.getpid()}"
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def clean(adapters: Path) -> None:
    """Remove what a killed agent left half done."""
    for path in adapters.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _kept(adapter: Adapter, folder: Path) -> Manifest | None:
    try:
        kept = manifests.parse((folder / MANIFEST_FILE).read_bytes(), manifests.parse_source(adapter.source))
    except (OSError, StoreError):
        return None
    return kept if kept.digest == adapter.digest else None
