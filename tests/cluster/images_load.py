"""Brings OCI archives into the nodes' image stores. An image that a node already has by its reference is skipped: tags are hashes of the content."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.layout import Layout, Node
from tests.cluster.progress import ClusterError
from tests.cluster.shell import run


def ctr(node: Node, *arguments: str, check: bool = True) -> str:
    """Run containerd's own client against one node, in the namespace that the kubelet uses."""
    return run(["ctr", "-a", str(node.socket), "-n", "k8s.io", *arguments], check=check)


def references_in(archive: Path) -> list[str]:
    """Return the image names that an OCI archive carries; none for an archive without names. Raises ClusterError for what is no archive."""
    try:
        with tarfile.open(archive) as content:
            for member in content:
                handle = content.extractfile(member) if member.name.removeprefix("./") == "index.json" else None
                if handle:
                    notes = [manifest.get("annotations", {}) for manifest in json.load(handle)["manifests"]]
                    names = [n.get("io.containerd.image.name") or n.get("org.opencontainers.image.ref.name") for n in notes]
                    return [name for name in names if name]
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        why = str(error).partition("\n")[0].rstrip(":")
        raise ClusterError(f"{archive}: not a readable image archive: {why}; write one with: buildah push IMAGE oci-archive:FILE:NAME:TAG") from error
    return []


def has_image(node: Node, reference: str) -> bool:
    """Tell whether a node has an image of this name."""
    return reference in ctr(node, "images", "ls", "-q", f"name=={reference}").split()


def _load_one(node: Node, archive: Path, reference: str) -> str:
    if has_image(node, reference):
        return f"{node.name}: {reference} is there"
    ctr(node, "images", "import", "--digests=false", str(archive))
    if not has_image(node, reference):
        names = ", ".join(references_in(archive)) or "no name"
        raise ClusterError(f"{archive}: imported into {node.name}, but there is no {reference}: the archive carries {names}; build it with that name")
    return f"{node.name}: {reference} imported"


def load_image(archive: Path, reference: str, nodes: Sequence[str] = ("a", "b"), layout: Layout | None = None) -> list[str]:
    """Import one archive into these nodes at once, and return one line for each saying what was done.

    `reference` is the full image name inside the archive, e.g. `localhost/graftwork/agent:3f2a9c41d0e7`.
    """
    if not archive.is_file():
        raise ClusterError(f"{archive}: no such image archive")
    chosen = [(layout or Layout.default()).node(letter) for letter in nodes]
    down = [node.name for node in chosen if not node.socket.exists()]
    if down:
        raise ClusterError(f"{', '.join(down)}: containerd does not run; type: python3 -m tests.cluster up")
    with ThreadPoolExecutor(len(chosen)) as pool:
        return list(pool.map(lambda node: _load_one(node, archive, reference), chosen))
