"""The store of adapters: publish, read a manifest, fetch (contracts, section 8)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, NotSupportedError

from graftwork_store import manifest as manifests
from graftwork_store.clients import ObjectStore, open_url
from graftwork_store.digest import FileEntry, adapter_entries, digest_of
from graftwork_store.errors import ConfigInvalid, DigestMismatch, SourceNotFound, StoreError, StoreNotConfigured, translated
from graftwork_store.manifest import MANIFEST_FILE, MANIFEST_LIMIT_BYTES, Manifest, Source, parse_source, source_for
from graftwork_store.sweeping import Swept, sweep, unmark

_CHUNK_BYTES = 256 << 10
_PARALLEL_FILES = 4


@dataclass(frozen=True)
class Published:
    """Where an adapter lies, by which digest, how large it is, and when it was published first."""

    source: str
    digest: str
    size_bytes: int
    published_at: str


class Store:
    """One store. Its methods block and may be called from several threads; connections are kept and shared."""

    def __init__(self, client: ObjectStore) -> None:
        self._client = client

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Store:
        """Open the store that GRAFTWORK_STORE_URL names; raises StoreNotConfigured, StoreUnreachable or StoreDenied."""
        env = os.environ if env is None else env
        url = env.get("GRAFTWORK_STORE_URL", "")
        if not url:
            raise StoreNotConfigured("GRAFTWORK_STORE_URL is not set; set the store in the operator's configuration")
        with translated(url):
            return cls(open_url(url, env))

    def check(self) -> None:
        """Raise what is wrong with the store unless it answers; nothing is written. A missing bucket is a SourceNotFound."""
        with translated("GRAFTWORK_STORE_URL"):
            obstore.list_with_delimiter(self._client)

    def publish(self, folder: Path, namespace: str, alias: str, fields: Mapping[str, Any]) -> Published:
        """Publish the allow-listed files of `folder`; whatever else lies there is left out.

        The manifest appears last, by one atomic put, so an interrupted publish is invisible and the next one completes it. The same digest
        again changes nothing and returns what was published first; only a sweep's mark on it is taken away, so that it is not removed as old.

        Args:
            folder: has at least adapter_config.json and adapter_model.safetensors.
            namespace: of the job.
            alias: the adapter's public name.
            fields: `rank`, `targetModules`, `base` {source, fingerprint} and `lineage` of the manifest.
        """
        entries = adapter_entries(folder)
        source = source_for(namespace, alias, digest_of(entries))
        with contextlib.suppress(SourceNotFound):
            return self._publish(source, folder, entries, lambda: manifests.build(alias, entries, fields))
        # A sweep removed it as long unreferenced between two calls of ours.
        return self._publish(source, folder, entries, lambda: manifests.build(alias, entries, fields))

    def sweep(self, namespace: str, installation: str, keep: Callable[[], Iterable[str]], retain_seconds: int) -> Swept:
        """Remove from a namespace what no digest of `keep` refers to and was seen so for `retain_seconds`; see `sweeping.sweep`."""
        return sweep(self._client, namespace, installation, keep, retain_seconds)

    def read_manifest(self, uri: str) -> Manifest:
        """Read and check the manifest of `store://...`; SourceNotFound when nothing was published there."""
        return self._manifest(parse_source(uri))

    def touch(self) -> None:
        """Ask the store for something that need not be there, so that a connection is open; raises StoreUnreachable or StoreDenied."""
        with translated("the store"), contextlib.suppress(FileNotFoundError):
            obstore.head(self._client, f"adapters/{MANIFEST_FILE}")

    def fetch(self, uri: str, to_dir: Path, expect_digest: str = "") -> Manifest:
        """Download a published adapter to `to_dir`, verified, its manifest.json beside its files; `to_dir` appears whole or not at all.

        Every file's size and sha256 are checked while it is written to a folder beside the target. A target that already has this digest is
        left as it is.

        Raises:
            DigestMismatch: the manifest is of another digest than `expect_digest`, or the bytes are not the manifest's.
        """
        found = self.read_manifest(uri)
        if expect_digest and found.digest != expect_digest:
            raise DigestMismatch(f"{uri}: the store has digest {found.digest}, expected {expect_digest}; publish the adapter again")
        if not _has_digest(to_dir, found.digest):
            self.fetch_files(found, uri, to_dir)
        return found

    def fetch_files(self, manifest: Manifest, uri: str, to_dir: Path) -> None:
        """Do the second half of `fetch` for a manifest that was read already; what lies at `to_dir` is replaced."""
        source = parse_source(uri)
        partial = to_dir.parent / f".partial-{to_dir.name}-{uuid.uuid4().hex[:8]}"
        replaced = partial.with_name(f"{partial.name}-old")
        try:
            with translated(uri):
                partial.mkdir(parents=True)
                with ThreadPoolExecutor(min(_PARALLEL_FILES, len(manifest.files))) as pool:
                    list(pool.map(lambda entry: self._fetch_file(source, entry, partial), manifest.files))
                (partial / MANIFEST_FILE).write_text(json.dumps(manifest.raw, sort_keys=True))
                if to_dir.exists():  # moved aside, not removed: an engine that reads it again finds a folder at nearly every moment
                    to_dir.rename(replaced)
                partial.rename(to_dir)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)

    def _manifest(self, source: Source) -> Manifest:
        with translated(source.uri):
            result = obstore.get(self._client, f"{source.folder}/{MANIFEST_FILE}")
            if result.meta["size"] > MANIFEST_LIMIT_BYTES:
                raise ConfigInvalid(f"{source.uri}: {MANIFEST_FILE} has {result.meta['size']} bytes, the limit is {MANIFEST_LIMIT_BYTES}")
            data = bytes(result.bytes())
        return manifests.parse(data, source)

    def _as_published(self, source: Source, entries: list[FileEntry]) -> Published:
        found = self._manifest(source)
        digest = digest_of(entries)
        if found.digest != digest:
            raise DigestMismatch(f"{source.uri}: the store has digest {found.digest}, this adapter is {digest}; the first 12 hex digits are the same")
        return Published(source.uri, found.digest, found.size_bytes, found.created_at)

    def _publish(self, source: Source, folder: Path, entries: list[FileEntry], manifest: Callable[[], bytes]) -> Published:
        try:
            self._as_published(source, entries)
        except SourceNotFound:
            self._put_files(source, folder, entries)
            self._unmark(source)
            self._put_manifest(source, manifest())
        else:
            self._unmark(source)
        # A sweep that was just removing the folder's remains may have taken what was put a moment before.
        self._put_files(source, folder, self._missing(source, entries))
        return self._as_published(source, entries)

    def _unmark(self, source: Source) -> None:
        with translated(source.uri):
            unmark(self._client, source.folder)

    def _put_files(self, source: Source, folder: Path, entries: list[FileEntry]) -> None:
        with translated(source.uri):
            for entry in entries:
                obstore.put(self._client, f"{source.folder}/{entry.path}", folder / entry.path)

    def _missing(self, source: Source, entries: list[FileEntry]) -> list[FileEntry]:
        with translated(source.uri):
            sizes = {item["path"]: item["size"] for page in obstore.list(self._client, source.folder) for item in page}
        return [entry for entry in entries if sizes.get(f"{source.folder}/{entry.path}") != entry.size]

    def _put_manifest(self, source: Source, data: bytes) -> None:
        path = f"{source.folder}/{MANIFEST_FILE}"
        # AlreadyExists: another publisher of the same digest was faster; the caller reads what that one wrote.
        with translated(source.uri), contextlib.suppress(AlreadyExistsError):
            try:
                obstore.put(self._client, path, data, mode="create", use_multipart=False)
            except NotSupportedError:  # a store without conditional writes; both publishers would write the same files
                obstore.put(self._client, path, data, use_multipart=False)

    def _fetch_file(self, source: Source, entry: FileEntry, folder: Path) -> None:
        what = f"{source.uri}/{entry.path}"
        with translated(what):
            try:
                stream = obstore.get(self._client, f"{source.folder}/{entry.path}").stream(_CHUNK_BYTES)
            except FileNotFoundError:
                raise DigestMismatch(f"{what}: the manifest lists it and the store does not have it; publish the adapter again") from None
            size, sha256 = _write_stream(stream, folder / entry.path, entry.size)
        if size != entry.size:
            raise DigestMismatch(
                f"{what}: {'at least ' * (size > entry.size)}{size} bytes, the manifest says {entry.size}; publish the adapter again"
            )
        if sha256 != entry.sha256:
            raise DigestMismatch(f"{what}: sha256 {sha256}, the manifest says {entry.sha256}; the object was changed after it was published")


def _write_stream(stream: Iterable[Any], path: Path, limit: int) -> tuple[int, str]:
    """Write a new file, hashing on the way; stops soon after `limit` bytes, so that a lying store cannot fill the disk."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("xb", buffering=0) as file:
        for chunk in stream:
            size += len(chunk)
            if size > limit:
                break
            hasher.update(chunk)
            _write_all(file.fileno(), chunk)
    return size, hasher.hexdigest()


def _write_all(descriptor: int, chunk: Any) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _has_digest(folder: Path, digest: str) -> bool:
    try:
        return digest_of(adapter_entries(folder)) == digest
    except (OSError, StoreError):
        return False
