"""Compressed layers, each made once and kept: images share most of theirs, and a change of code must not cost the compression of PyTorch.

Buildah can only write whole images. So a layer's tar is put together from what containers/storage keeps of it: the tar's headers in a tar-split file,
the files in the layer's folder. Its sha256 must be the layer's diff id, which the image's configuration names: a wrong layer cannot get out of here.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.progress import ClusterError

CHUNK = 1 << 20
MEDIA_TYPES = {"zst": "application/vnd.oci.image.layer.v1.tar+zstd", "gz": "application/vnd.oci.image.layer.v1.tar+gzip"}
SEGMENT, FILE = 2, 1


@dataclass(frozen=True)
class Blob:
    """A compressed layer in the cache; the file's name is `<diff id>.<sha256 of the file>.<zst or gz>`."""

    path: Path

    @property
    def digest(self) -> str:
        """Digest of the compressed bytes."""
        return self.path.name.split(".")[1]

    @property
    def media_type(self) -> str:
        """OCI media type."""
        return MEDIA_TYPES[self.path.name.rsplit(".", 1)[1]]


class Storage:
    """What is needed of a containers/storage folder (overlay or vfs), read-only."""

    def __init__(self, root: Path, driver: str) -> None:
        self._root = root
        self._driver = driver

    def layer_ids(self, image_id: str) -> list[str]:
        """The storage's ids of an image's layers, lowest first."""
        images = json.loads((self._root / f"{self._driver}-images/images.json").read_text())
        layers = {row["id"]: row for row in json.loads((self._root / f"{self._driver}-layers/layers.json").read_text())}
        found: list[str] = []
        current = next((row["layer"] for row in images if row["id"] == image_id), "")
        while current:
            found.insert(0, current)
            current = layers[current].get("parent", "")
        return found

    def chunks(self, layer_id: str) -> Iterator[bytes]:
        """The uncompressed tar of a layer."""
        folder = self._root / ("overlay" if self._driver == "overlay" else "vfs/dir") / layer_id
        folder = folder / "diff" if self._driver == "overlay" else folder
        with gzip.open(self._root / f"{self._driver}-layers/{layer_id}.tar-split.gz", "rt", encoding="utf-8") as entries:
            for line in entries:
                entry = json.loads(line) if line.strip() else {}
                if entry.get("type") == SEGMENT:
                    yield base64.b64decode(entry["payload"] or "")
                elif entry.get("type") == FILE and entry.get("size"):
                    name = base64.b64decode(entry["name_raw"]).decode(errors="surrogateescape") if entry.get("name_raw") else entry["name"]
                    with (folder / name).open("rb") as file:
                        while chunk := file.read(CHUNK):
                            yield chunk


class Layers:
    """The cache of compressed layers. Safe to use from several threads; two that want the same layer make it once."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        self._scratch = scratch
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, diff_id: str, storage: Storage, layer_id: str) -> Blob:
        """The compressed layer of this diff id (64 hex digits), made from the storage's layer if it is not there yet."""
        with self._lock:
            making = self._making.setdefault(diff_id, threading.Lock())
        with making:
            present = sorted(self._folder.glob(f"{diff_id}.*"))
            return Blob(present[0]) if present else self._make(diff_id, storage.chunks(layer_id))

    def _make(self, diff_id: str, chunks: Iterator[bytes]) -> Blob:
        # zstd unpacks several times as fast as gzip, on each node and at each import; gzip is on every machine.
        suffix, command = ("zst", ["zstd", "-q", "-3", "-T2", "-c"]) if shutil.which("zstd") else ("gz", ["gzip", "-n", "-1", "-c"])
        half = self._scratch / f"{diff_id}.{suffix}"
        plain = hashlib.sha256()
        with half.open("wb") as out, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out) as process:
            assert process.stdin is not None
            for chunk in chunks:
                plain.update(chunk)
                process.stdin.write(chunk)
            process.stdin.close()
        if process.returncode != 0:
            raise ClusterError(f"layer {diff_id[:12]}: {command[0]} ended with {process.returncode}; is the disk full?")
        if plain.hexdigest() != diff_id:
            other = plain.hexdigest()[:12]
            raise ClusterError(
                f"layer {diff_id[:12]}: buildah's storage holds {other} in its place; remove that storage (buildah in the cache) and build again"
            )
        with half.open("rb") as file:
            digest = sha256_of(file)
        return Blob(half.rename(self._folder / f"{diff_id}.{digest}.{suffix}"))


def sha256_of(file: IO[bytes]) -> str:
    """Sha256 of what is left in a file, as hex digits."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
