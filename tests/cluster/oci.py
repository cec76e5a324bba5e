"""Writes small OCI image archives without any image tool, and makes the two images that the cluster itself needs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.cache import digest_of
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError
from tests.cluster.shell import run

PAUSE_SOURCE = Path(__file__).parent / "pause.c"
BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class OwnImage:
    """An image of the cluster: where its archive lies and what it is called. The tag is the hash of the content."""

    archive: Path
    reference: str


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def layer_of(files: Mapping[str, bytes], links: Mapping[str, str], folders: tuple[str, ...] = ()) -> bytes:
    """Return an uncompressed layer with these executable files, symbolic links and world-writable folders; equal input gives equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(entry)
        for name in sorted(files):
            _add(archive, name, files[name], 0o755)
        for name in sorted(links):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, links[name], 0o777
            archive.addfile(entry)
    return buffer.getvalue()


def archive_of(reference: str, layer: bytes, config: Mapping[str, Any]) -> bytes:
    """Return an OCI image archive of one layer."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    layer_blob = blob("application/vnd.oci.image.layer.v1.tar", layer)
    image = {"architecture": "amd64", "os": "linux", "config": dict(config), "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]}}
    config_blob = blob("application/vnd.oci.image.config.v1+json", json.dumps(image, sort_keys=True).encode())
    manifest = blob(
        MANIFEST, json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": [layer_blob]}, sort_keys=True).encode()
    )
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    index = {"schemaVersion": 2, "manifests": [{**manifest, "annotations": names}]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        for name in sorted(blobs):
            _add(archive, name, blobs[name])
        _add(archive, "index.json", json.dumps(index, sort_keys=True).encode())
    return buffer.getvalue()


def _write(layout: Layout, name: str, layer: bytes, config: Mapping[str, Any]) -> OwnImage:
    reference = f"localhost/graftwork/{name}:{digest_of([layer, json.dumps(config, sort_keys=True)])}"
    path = layout.images / f"{reference.rpartition('/')[2].replace(':', '-')}.tar"
    if not path.exists():
        layout.images.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".half")
        beside.write_bytes(archive_of(reference, layer, config))
        beside.replace(path)
    return OwnImage(path, reference)


def pause_image(layout: Layout) -> OwnImage:
    """Make the image of the container that holds a pod's namespaces: one static program."""
    program = layout.images / f"pause-{digest_of([PAUSE_SOURCE.read_bytes()])}"
    if not program.exists():
        layout.images.mkdir(parents=True, exist_ok=True)
        beside = program.with_suffix(".half")
        run(["gcc", "-Os", "-static", "-s", "-Wl,--build-id=none", "-o", str(beside), str(PAUSE_SOURCE)])
        beside.replace(program)
    return _write(layout, "pause", layer_of({"pause": program.read_bytes()}, {}), {"Entrypoint": ["/pause"]})


def helper_image(layout: Layout) -> OwnImage:
    """Make an image with a shell and the usual small programs, from Debian's static busybox: for volumes and for tests of the cluster itself."""
    found = next((Path(path) for path in BUSYBOX if Path(path).exists()), None)
    if found is None:
        raise ClusterError("busybox: not found; type: apt-get install busybox-static")
    names = [name for name in run([str(found), "--list"]).split() if name != "busybox"]
    layer = layer_of({"bin/busybox": found.read_bytes()}, {f"bin/{name}": "busybox" for name in names}, ("tmp",))
    return _write(layout, "helper", layer, {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]})
