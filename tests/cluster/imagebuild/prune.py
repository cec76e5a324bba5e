"""Removes what is old: of each image the newest archives stay, of buildah's storage what they still build upon."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cluster.cache import exclusive
from tests.cluster.imagebuild.archive import layer_digests
from tests.cluster.imagebuild.buildah import Buildah
from tests.cluster.imagebuild.graph import REFERENCE_PREFIX, Graph
from tests.cluster.imagebuild.layers import Blob
from tests.cluster.imagebuild.places import Places
from tests.cluster.imagebuild.processes import Processes
from tests.cluster.progress import Progress

KEPT_PER_NAME = 2
ARCHIVE_NAME = re.compile(r"^(?P<name>[a-z0-9-]+)-(?P<tag>[0-9a-f]{16})\.(?:oci\.tar|log)$")


def outdated(files: list[tuple[str, float]], current: set[str], kept: int = KEPT_PER_NAME) -> list[str]:
    """Of (file name, time of change), those to remove: per image all but the newest `kept`; what is `current` (`<name>-<tag>`) always stays."""
    by_name: dict[str, list[tuple[bool, float, str]]] = {}
    for file, changed in files:
        match = ARCHIVE_NAME.match(file)
        if match:
            present = f"{match['name']}-{match['tag']}" in current
            by_name.setdefault(match["name"], []).append((present, changed, file))
    return sorted(file for rows in by_name.values() for _, _, file in sorted(rows, reverse=True)[kept:])


def prune(graph: Graph, places: Places, progress: Progress) -> None:
    """Remove old archives and logs, then the stored images that neither this checkout nor a kept archive names."""
    with exclusive(places.archives / ".lock"):
        current = {f"{name}-{graph.tag(name)}" for name in graph.images}
        for folder in (places.archives, places.logs):
            files = [(entry.name, entry.stat().st_mtime) for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
            for name in outdated(files, current):
                progress(f"prune: {name}")
                (folder / name).unlink()
        _prune_layers(places, progress)
        _prune_storage(places, current, progress)


def _prune_layers(places: Places, progress: Progress) -> None:
    needed = {digest for archive in places.archives.glob("*.oci.tar") for digest in layer_digests(archive)}
    old = [Blob(path) for path in sorted(places.layers.iterdir())] if places.layers.is_dir() else []
    for blob in old:
        if blob.digest not in needed:
            progress(f"prune: layer {blob.digest[:12]}")
            blob.path.unlink()


def _prune_storage(places: Places, current: set[str], progress: Progress) -> None:
    if not places.storage.is_dir():
        return
    kept = current | {_stem(entry) for entry in places.archives.glob("*.oci.tar")}
    buildah = Buildah(places.storage, places.cache, Processes())
    buildah.clean_up()
    old = [
        ref
        for ref in buildah.references()
        if ref.startswith(f"{REFERENCE_PREFIX}/") and ref.removeprefix(f"{REFERENCE_PREFIX}/").replace(":", "-") not in kept
    ]
    for reference in old:
        progress(f"prune: {reference} from buildah's storage")
    buildah.remove(old)


def _stem(archive: Path) -> str:
    return archive.name.removesuffix(".oci.tar")
