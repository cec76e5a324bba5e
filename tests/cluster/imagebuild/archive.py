"""OCI archives: a tar with an image's configuration, manifest and compressed layers, as `ctr images import` and every other tool reads it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.cluster.imagebuild.layers import Blob

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


def diff_ids(config: bytes) -> list[str]:
    """The sha256 (64 hex digits) of each uncompressed layer, lowest first, from an image's configuration."""
    return [str(value).removeprefix("sha256:") for value in json.loads(config)["rootfs"]["diff_ids"]]


def write_archive(target: Path, reference: str, config: bytes, layers: list[Blob]) -> None:
    """Write an archive that holds one image under its full reference. Equal inputs give equal bytes."""
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [{"mediaType": blob.media_type, "digest": f"sha256:{blob.digest}", "size": blob.path.stat().st_size} for blob in layers],
        }
    )
    # containerd reads the first name, buildah and skopeo the second.
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    index = _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{**_descriptor(MANIFEST_TYPE, manifest), "annotations": names}]})
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", index)
        for content in (manifest, config):
            _add(archive, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        for digest, blob in sorted({blob.digest: blob for blob in layers}.items()):
            with blob.path.open("rb") as file:
                archive.addfile(_entry(f"blobs/sha256/{digest}", blob.path.stat().st_size), file)


def layer_digests(archive: Path) -> set[str]:
    """The digests (64 hex digits) of the blobs that an archive holds."""
    with tarfile.open(archive) as opened:
        return {Path(member.name).name for member in opened if member.name.startswith("blobs/sha256/") and member.isfile()}


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_entry(name, len(content)), io.BytesIO(content))
