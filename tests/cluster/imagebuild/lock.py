"""Refreshes the requirement locks of the images: exact versions with hashes, no index address, torch and Triton outside.

torch has three possible sources (images/torch), so no lock names it and nothing of its CUDA libraries gets in. Triton is a compiler for GPUs
that xgrammar asks for and no CPU image uses. The engine's lock is made first and constrains the others: what two images share is one version.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.imagebuild.places import Places

EXCLUDED = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
PYTHON_VERSION = "3.11"


@dataclass(frozen=True)
class Lock:
    """One lock file, the inputs it is made from, and the lock whose versions it keeps to."""

    output: str
    inputs: tuple[str, ...]
    constraint: str | None = None
    dependencies: bool = True


ENGINE_LOCK = "images/engine-cpu/requirements.txt"
LOCKS: tuple[Lock, ...] = (
    Lock("images/base/uv.txt", ("images/base/uv.in",)),
    Lock(ENGINE_LOCK, ("images/engine-cpu/requirements.in", "images/torch/requirements.in")),
    Lock("images/engine-cpu/vllm.txt", ("images/engine-cpu/vllm.in",), dependencies=False),
    Lock("images/torch/requirements.txt", ("images/torch/requirements.in",), ENGINE_LOCK),
    Lock("images/trainer/requirements.txt", ("images/trainer/requirements.in", "images/torch/requirements.in"), ENGINE_LOCK),
    Lock("images/agent/requirements.txt", ("images/agent/requirements.in",), ENGINE_LOCK),
)


def lock_command(uv: str, lock: Lock, excludes: Path, upgrade: bool) -> list[str]:
    """The uv call that makes one lock, run in the repository's root."""
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--no-header"]
    command += ["--python-version", PYTHON_VERSION, "--excludes", str(excludes)]
    command += ["--constraint", lock.constraint] if lock.constraint else []
    command += [] if lock.dependencies else ["--no-deps"]
    command += ["--upgrade"] if upgrade else []
    return [*command, *lock.inputs, "--output-file", lock.output]


def refresh(places: Places, upgrade: bool) -> None:
    """Write all lock files again. Versions that still satisfy the inputs stay, unless `upgrade`."""
    with tempfile.TemporaryDirectory() as folder, _uv(places, Path(folder)) as uv:
        excludes = Path(folder) / "excludes.txt"
        excludes.write_text("\n".join(EXCLUDED) + "\n")
        for lock in LOCKS:
            print(f"lock: {lock.output}", flush=True)
            subprocess.run(lock_command(uv, lock, excludes, upgrade), cwd=places.repository, check=True)


@contextmanager
def _uv(places: Places, folder: Path) -> Iterator[str]:
    """The machine's uv, or the locked one in a venv that is thrown away."""
    present = shutil.which("uv")
    if present:
        yield present
        return
    subprocess.run(["python3", "-m", "venv", str(folder / "venv")], check=True)
    requirements = places.repository / "images/base/uv.txt"
    install = [str(folder / "venv/bin/pip"), "install", "--quiet", "--require-hashes", "--requirement", str(requirements)]
    subprocess.run(install, check=True)
    yield str(folder / "venv/bin/uv")
