"""The images, what each is made of, and the tag that follows from it.

A tag is the first 16 hex digits of the sha256 over everything that goes into the image, its parent's tag included. Equal inputs are an equal tag,
so a tag that exists is never built again, and a reference in a manifest names one content.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.cluster.progress import ClusterError

REFERENCE_PREFIX = "localhost/graftwork"
INSTALLER = ("images/base/install.sh", "images/base/uv.txt")
GO_MODULES = "tests/cluster/tools"
SKIPPED_FOLDERS = frozenset({"__pycache__", "tests", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True)
class Image:
    """One image: its Dockerfile, the paths it copies, its parent.

    `archived` is False where only other images need it; an `optional` one is built when it is named.
    """

    name: str
    parent: str | None
    inputs: tuple[str, ...]
    prepare: str | None = None
    build_args: tuple[tuple[str, str], ...] = ()
    archived: bool = True
    optional: bool = False

    @property
    def dockerfile(self) -> str:
        """Path of the Dockerfile in the repository."""
        return f"images/{self.name}/Dockerfile"

    @property
    def sources(self) -> tuple[str, ...]:
        """Every path that goes into the image: the Dockerfile and what it copies."""
        return (self.dockerfile, *self.inputs)


IMAGES: tuple[Image, ...] = (
    Image("base", None, ("tests/cluster/imagebuild/rootfs.py",), prepare="debootstrap"),
    Image("torch", "base", (*INSTALLER, "images/torch/install-torch.sh", "images/torch/requirements.txt"), archived=False),
    Image("engine-cpu", "torch", (*INSTALLER, *(f"images/engine-cpu/{name}" for name in ("requirements.txt", "vllm.txt", "model_classes.py")))),
    Image("trainer", "torch", (*INSTALLER, "images/trainer/requirements.txt", "images/common/graftwork_store", "images/trainer/graftwork_trainer")),
    Image(
        "agent",
        "base",
        (
            *INSTALLER,
            "images/agent/requirements.txt",
            "images/common/graftwork_store",
            "images/agent/graftwork_agent",
            "images/agent/graftwork_guard",
            "images/agent/entrypoint.py",
            "images/agent/entrypoint_cause.py",
        ),
    ),
    Image("operator", "base", (*INSTALLER, "requirements/operator.txt", "operator/graftwork")),
    Image("versitygw", None, (f"{GO_MODULES}/versitygw/go.mod", f"{GO_MODULES}/versitygw/go.sum"), prepare="versitygw"),
    Image("prometheus", None, (f"{GO_MODULES}/prometheus/go.mod", f"{GO_MODULES}/prometheus/go.sum"), prepare="prometheus", optional=True),
)


class UnknownImageError(ClusterError):
    """A name that is no image."""


@dataclass
class Graph:
    """The images of one checkout with their tags."""

    repository: Path
    build_args: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def images(self) -> dict[str, Image]:
        """All images by name, parents before children."""
        return {image.name: image for image in IMAGES}

    def arguments(self, name: str) -> dict[str, str]:
        """Build arguments of an image: its own, then what this machine adds (where torch comes from)."""
        return {**dict(self.images[name].build_args), **self.build_args.get(name, {})}

    def select(self, names: list[str]) -> list[str]:
        """The images to build for `names` (if empty, all that are archived and not optional), in the order of the graph; parents are added later."""
        unknown = sorted(set(names) - set(self.images))
        if unknown:
            raise UnknownImageError(f"image {', '.join(map(repr, unknown))}: not one of {', '.join(self.images)}")
        return [name for name, image in self.images.items() if (name in names if names else image.archived and not image.optional)]

    def tag(self, name: str) -> str:
        """Content address of an image: first 16 hex digits of the sha256 over its inputs, its arguments and its parent's tag."""
        image = self.images[name]
        digest = hashlib.sha256()
        digest.update(f"{image.name}\0{self.tag(image.parent) if image.parent else ''}\0{image.prepare or ''}\n".encode())
        for key, value in sorted(self.arguments(name).items()):
            digest.update(f"arg\0{key}\0{value}\n".encode())
        for path in image.sources:
            for line in _content_lines(self.repository, path):
                digest.update(line.encode())
        return digest.hexdigest()[:16]

    def reference(self, name: str) -> str:
        """The full reference under which an image is built, imported and used in pods."""
        return f"{REFERENCE_PREFIX}/{name}:{self.tag(name)}"


def input_files(repository: Path, path: str) -> list[Path]:
    """The regular files of an input, a file or a folder, in bytewise order of path; caches and tests are left out."""
    root = repository / path
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"image input {path!r}: no such file or folder in the checkout")
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        found += [Path(folder) / file for file in files if not file.endswith((".pyc", ".pyo"))]
    return sorted(found, key=lambda file: str(file.relative_to(repository)).encode())


def _content_lines(repository: Path, path: str) -> list[str]:
    lines = []
    for file in input_files(repository, path):
        mode = "x" if file.stat().st_mode & stat.S_IXUSR else "-"
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"file\0{file.relative_to(repository)}\0{mode}\0{content}\n")
    return lines


def torch_arguments(wheels: Path, sources: str = "") -> dict[str, str]:
    """Build arguments that say where torch comes from here. The wheel's name and size are in the tag, so that another source is another image."""
    found = sorted(wheels.glob("torch-*.whl")) if wheels.is_dir() else []
    arguments = {"TORCH_WHEEL": f"{found[0].name} {found[0].stat().st_size}"} if found else {}
    return {**arguments, "TORCH_SOURCES": sources} if sources else arguments
