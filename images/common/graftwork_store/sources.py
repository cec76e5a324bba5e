"""Sources of models and data sets: `s3://<bucket>/<prefix>` for a model, `s3://<bucket>/<key>` for one object (contracts, section 8)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import obstore

from graftwork_store.clients import ObjectStore, s3_client
from graftwork_store.errors import DiskFull, ModelInvalid, SourceInvalid, SourceNotFound, translated

PART_BYTES = 64 << 20
_CHUNK_BYTES = 2 << 20
_PARALLEL_PARTS = 8
_SUFFIX = ".graftwork-part"

Progress = Callable[[int, int], None]
"""Is told bytes that are there and bytes in all; never by two threads at once."""


@dataclass(frozen=True)
class SourceFile:
    """One object of a source and where it goes below the target folder."""

    key: str
    name: str
    size: int
    e_tag: str | None
    modified: datetime


@dataclass(frozen=True)
class Downloaded:
    """What `download` did: names below the target folder, bytes in all, and bytes that were already there from before a restart."""

    files: tuple[str, ...]
    size_bytes: int
    kept_bytes: int


def parse_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key (or prefix) of an s3:// URI; raises SourceInvalid."""
    parts = urlsplit(uri)
    key = uri.removeprefix(f"s3://{parts.netloc}").strip("/")
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise SourceInvalid(
            f"source {uri!r}: must be s3://<bucket>/<key or prefix>; pvc:// and configMap:// sources are mounted and need no download"
        )
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise SourceInvalid(f"source {uri!r}: the key must have no empty, '.' or '..' parts")
    return parts.netloc, key


def download(uri: str, to: Path, *, env: Mapping[str, str] | None = None, progress: Progress | None = None) -> Downloaded:
    """Download what lies at `uri` to the folder `to`: every object below a prefix, or the one object.

    Files that a killed run had finished are kept; others appear under their name only when they are whole.

    Raises:
        StoreError: SourceInvalid, SourceNotFound, SourceDenied, SourceUnreachable, ModelInvalid (a prefix without config.json) or DiskFull.
    """
    bucket, key = parse_s3(uri)
    with translated(uri, source=True):
        client = s3_client(bucket, "", env, read_timeout="60s", attempts=6)
    return download_from(client, uri, key, to, progress=progress)


def download_from(client: ObjectStore, uri: str, key: str, to: Path, *, progress: Progress | None = None) -> Downloaded:
    """Do `download` with a client that is open already."""
    with translated(uri, source=True):
        files = under_prefix(client, uri, key) or [_one_object(client, uri, key)]
    return download_files(client, uri, files, to, progress=progress)


def download_files(
    client: ObjectStore, uri: str, files: list[SourceFile], to: Path, *, progress: Progress | None = None, whole: Callable[[str], None] | None = None
) -> Downloaded:
    """Do the second half of `download` for objects that were listed already; `whole` is told the name of each file that has come, and may move it."""
    with translated(uri, source=True):
        to.mkdir(parents=True, exist_ok=True)
        for left in to.rglob(f"*{_SUFFIX}"):
            left.unlink()
        wanted = [file for file in files if not _is_there(to, file)]
        _check_room(uri, to, wanted)
        total = sum(file.size for file in files)
        counter = _Counter(total, total - sum(file.size for file in wanted), progress)
        _Run(client, to, counter, whole).all(wanted)
    return Downloaded(tuple(sorted(file.name for file in files)), total, total - sum(file.size for file in wanted))


def under_prefix(client: ObjectStore, uri: str, prefix: str) -> list[SourceFile]:
    """Return the objects of a model below a prefix; raises ModelInvalid when there are some and no config.json."""
    found = [source_file(uri, item, item["path"].removeprefix(f"{prefix}/")) for page in obstore.list(client, prefix) for item in page]
    folders = {str(parent) for file in found for parent in PurePosixPath(file.name).parents}
    files = [file for file in found if not (file.size == 0 and file.name in folders)]  # some stores keep empty objects as folders
    if files and not any(file.name == "config.json" for file in files):
        raise ModelInvalid(f"{uri}: {len(files)} objects and no config.json; a model is a folder in Hugging Face layout, a data set is one object")
    return files


def _one_object(client: ObjectStore, uri: str, key: str) -> SourceFile:
    try:
        return source_file(uri, obstore.head(client, key), PurePosixPath(key).name)
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise
        raise SourceNotFound(f"{uri}: neither an object nor a prefix with objects; upload it or correct the name") from None


def source_file(uri: str, meta: Any, name: str) -> SourceFile:
    """Make a SourceFile of a listed object; raises SourceInvalid when its name leads out of the target."""
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or any(part in ("", ".", "..") or part.endswith(_SUFFIX) for part in parts):
        raise SourceInvalid(f"{uri}: object {meta['path']!r} cannot be a file name below the target; remove or rename it")
    return SourceFile(meta["path"], name, meta["size"], meta["e_tag"], meta["last_modified"])


def _is_there(to: Path, file: SourceFile) -> bool:
    """Whether a run before a restart has finished this file; like rsync, size and time of change tell."""
    try:
        stat = (to / file.name).stat()
    except OSError:
        return False
    return stat.st_size == file.size and int(stat.st_mtime) == int(file.modified.timestamp())


def _check_room(uri: str, to: Path, wanted: list[SourceFile]) -> None:
    need, free = sum(file.size for file in wanted), shutil.disk_usage(to).free
    if need > free:
        raise DiskFull(f"{uri}: {need} bytes to download, {free} bytes free in {to}; give the volume at least {need - free} bytes more")


class _Counter:
    """Counts bytes from several threads and reports them."""

    def __init__(self, total: int, done: int, progress: Progress | None) -> None:
        self._total = total
        self._done = done
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total)


class _Run:
    """One download: every file in parts, several parts at once, memory bounded by chunks."""

    def __init__(self, client: ObjectStore, to: Path, counter: _Counter, whole: Callable[[str], None] | None = None) -> None:
        self._client = client
        self._to = to
        self._counter = counter
        self._whole = whole
        self._stop = threading.Event()

    def all(self, files: list[SourceFile]) -> None:
        """Download the files; each gets its name as soon as it is whole, in the order of the list."""
        opened = [(file, self._create(file)) for file in files]
        try:
            with ThreadPoolExecutor(_PARALLEL_PARTS) as pool:
                try:
                    running = [(file, [pool.submit(self._part, file, fd, start) for start in range(0, file.size, PART_BYTES)]) for file, fd in opened]
                    for file, parts in running:
                        for part in parts:
                            part.result()
                        self._finish(file)
                except BaseException:
                    self._stop.set()
                    raise
        finally:
            for _, fd in opened:
                os.close(fd)

    def _create(self, file: SourceFile) -> int:
        path = self._to / f"{file.name}{_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
        os.ftruncate(descriptor, file.size)
        return descriptor

    def _part(self, file: SourceFile, descriptor: int, start: int) -> None:
        end = min(start + PART_BYTES, file.size)
        options: Any = {"range": (start, end)}
        if file.e_tag:
            options["if_match"] = file.e_tag
        for chunk in obstore.get(self._client, file.key, options=options).stream(_CHUNK_BYTES):
            if self._stop.is_set():
                return
            view = memoryview(chunk)
            while view:
                written = os.pwrite(descriptor, view, start)
                start, view = start + written, view[written:]
            self._counter.add(len(chunk))
        if start != end:
            raise OSError(f"{file.key}: the answer ended after {start} of {end} bytes")

    def _finish(self, file: SourceFile) -> None:
        part = self._to / f"{file.name}{_SUFFIX}"
        modified = file.modified.timestamp()
        os.utime(part, (modified, modified))
        part.rename(self._to / file.name)
        if self._whole:
            self._whole(file.name)
