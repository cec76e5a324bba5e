"""The requirement locks: exact versions, hashes, no index address, nothing of CUDA, one version of what images share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.imagebuild.lock import ENGINE_LOCK, EXCLUDED, LOCKS, lock_command
from tests.cluster.imagebuild.places import REPOSITORY

OUTPUTS = [lock.output for lock in LOCKS]


def requirements(path: str) -> dict[str, str]:
    """Name -> the rest of the requirement, with its hashes."""
    joined = (REPOSITORY / path).read_text().replace("\\\n", " ")
    rows = [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]
    return {row.split("==")[0]: row.partition("==")[2] for row in rows}


@pytest.mark.parametrize("path", [*OUTPUTS, "requirements/operator.txt"])
def test_every_requirement_has_one_version_and_hashes(path: str) -> None:
    found = requirements(path)
    assert found
    bad = {name: rest[:40] for name, rest in found.items() if not re.fullmatch(r"[\w.+!]+( ;[^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", rest)}
    assert not bad


@pytest.mark.parametrize("path", OUTPUTS)
def test_no_lock_names_an_address_or_a_local_path(path: str) -> None:
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|file:|@ ", (REPOSITORY / path).read_text())


@pytest.mark.parametrize("path", OUTPUTS)
def test_torch_and_the_libraries_of_cuda_are_in_no_lock(path: str) -> None:
    assert not [name for name in requirements(path) if name in EXCLUDED or name.startswith(("nvidia-", "cuda-"))]


def test_what_two_images_share_is_one_version() -> None:
    engine = requirements(ENGINE_LOCK)
    for path in ("images/torch/requirements.txt", "images/trainer/requirements.txt", "images/agent/requirements.txt"):
        other = requirements(path)
        different = {name: (rest.split()[0], engine[name].split()[0]) for name, rest in other.items() if name in engine and rest != engine[name]}
        assert not different, path


def test_the_shared_layer_holds_nothing_that_an_image_above_it_would_replace() -> None:
    torch = requirements("images/torch/requirements.txt")
    assert set(torch) <= set(requirements(ENGINE_LOCK))
    assert set(torch) <= set(requirements("images/trainer/requirements.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=OUTPUTS)
def test_a_lock_is_made_with_hashes_and_without_addresses(lock) -> None:  # type: ignore[no-untyped-def]
    command = lock_command("uv", lock, Path("excludes.txt"), upgrade=False)
    assert {"--generate-hashes", "--no-emit-index-url", "--excludes"} <= set(command)
    assert all((REPOSITORY / path).is_file() for path in lock.inputs)
    assert ("--upgrade" in lock_command("uv", lock, Path("excludes.txt"), upgrade=True)) is True
