"""Tags follow content: whatever goes into an image changes its tag and its children's, and nothing else does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cluster.imagebuild.build import Task, copy_inputs, plan
from tests.cluster.imagebuild.graph import IMAGES, Graph, Image, UnknownImageError, input_files, torch_arguments
from tests.cluster.imagebuild.places import REPOSITORY

ALL_INPUTS = sorted({(image.name, path) for image in IMAGES for path in image.sources})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy_inputs(REPOSITORY, tmp_path, [path for image in IMAGES for path in image.sources])
    return tmp_path


def children(name: str) -> set[str]:
    found = {image.name for image in IMAGES if image.parent == name}
    return found.union(*(children(child) for child in found)) if found else found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def tags(checkout: Path, arguments: dict[str, dict[str, str]] | None = None) -> dict[str, str]:
    graph = Graph(checkout, arguments or {})
    return {name: graph.tag(name) for name in graph.images}


def test_a_tag_is_sixteen_hex_digits_and_the_same_in_every_checkout(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(checkout, other, dirs_exist_ok=True)
    assert tags(checkout) == tags(other)
    assert all(re.fullmatch(r"[0-9a-f]{16}", tag) for tag in tags(checkout).values())


@pytest.mark.parametrize(("name", "path"), ALL_INPUTS)
def test_each_input_changes_the_tags_of_the_images_that_have_it_and_of_their_children(checkout: Path, name: str, path: str) -> None:
    before = tags(checkout)
    file = input_files(checkout, path)[0]
    file.write_bytes(file.read_bytes() + b"\n# changed")
    users = {image.name for image in IMAGES if path in image.sources}
    assert name in users
    assert changed(before, tags(checkout)) == users.union(*(children(user) for user in users))


def test_a_new_file_a_renamed_file_and_an_executable_bit_change_a_tag(checkout: Path) -> None:
    folder = checkout / "operator/graftwork"
    seen = [tags(checkout)["operator"]]
    (folder / "added.py").write_text("")
    seen.append(tags(checkout)["operator"])
    (folder / "added.py").rename(folder / "renamed.py")
    seen.append(tags(checkout)["operator"])
    (folder / "renamed.py").chmod(0o755)
    seen.append(tags(checkout)["operator"])
    assert len(set(seen)) == len(seen)


def test_caches_and_tests_are_no_inputs(checkout: Path) -> None:
    before = tags(checkout)
    for path in ("__pycache__/names.cpython-311.pyc", "tests/test_names.py", "names.pyc"):
        file = checkout / "operator/graftwork" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    assert tags(checkout) == before


def test_a_code_change_of_the_operator_leaves_all_other_images_alone(checkout: Path) -> None:
    before = tags(checkout)
    (checkout / "operator/graftwork/names.py").write_text("CHANGED = True\n")
    assert changed(before, tags(checkout)) == {"operator"}


def test_another_torch_wheel_is_another_torch_and_another_engine_and_trainer(checkout: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    assert torch_arguments(wheels) == {}
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311.whl").write_bytes(b"wheel")
    with_wheel = torch_arguments(wheels)
    assert changed(tags(checkout), tags(checkout, {"torch": with_wheel})) == {"torch", "engine-cpu", "trainer"}
    assert torch_arguments(wheels, "pypi") == {**with_wheel, "TORCH_SOURCES": "pypi"}


def test_a_missing_input_is_named(checkout: Path) -> None:
    (checkout / "images/agent/entrypoint.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"images/agent/entrypoint\.py"):
        Graph(checkout).tag("agent")


def test_an_unknown_image_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownImageError, match=r"'engine': not one of base, .*engine-cpu"):
        Graph(REPOSITORY).select(["engine"])


def test_references_name_image_and_tag(checkout: Path) -> None:
    graph = Graph(checkout)
    assert graph.reference("agent") == f"localhost/graftwork/agent:{graph.tag('agent')}"


PLANS = [
    ("everything from nothing", ["trainer", "agent"], set(), set(), ["base+", "torch+", "trainer+a", "agent+a"]),
    ("a parent in the storage", ["trainer"], set(), {"base", "torch"}, ["trainer+a"]),
    ("a parent that has only its archive is taken from it", ["agent"], {"base"}, set(), ["base+", "agent+a"]),
    ("an archive that exists costs nothing", ["agent", "trainer"], {"agent", "trainer"}, set(), []),
    ("built, but its archive is gone", ["agent"], set(), {"agent"}, ["agenta"]),
    ("an image without archive is only stored", ["torch"], set(), {"base"}, ["torch+"]),
]


@pytest.mark.parametrize(("case", "names", "archives", "stored", "expected"), PLANS, ids=[row[0] for row in PLANS])
def test_only_what_is_missing_is_built_and_parents_come_first(
    case: str, names: list[str], archives: set[str], stored: set[str], expected: list[str]
) -> None:
    tasks: list[Task] = plan(Graph(REPOSITORY), names, archives.__contains__, stored.__contains__)
    assert [f"{task.name}{'+' if task.stored else ''}{'a' if task.archived else ''}" for task in tasks] == expected


@pytest.mark.parametrize("image", [image for image in IMAGES if image.prepare is None], ids=lambda image: image.name)
def test_a_dockerfile_copies_its_inputs_and_nothing_else(image: Image) -> None:
    text = (REPOSITORY / image.dockerfile).read_text()
    copied = {source for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for source in line.split()[:-1]}
    assert copied == set(image.inputs)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_a_dockerfile_declares_each_build_argument_because_undeclared_ones_are_not_seen_by_the_layer_cache(image: Image, tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0.whl").write_bytes(b"wheel")
    arguments = set(torch_arguments(tmp_path, "pypi")) if image.name == "torch" else set()
    arguments |= {"BASE_IMAGE"} if image.parent else set()
    declared = set(re.findall(r"^ARG (\w+)", (REPOSITORY / image.dockerfile).read_text(), re.MULTILINE))
    assert arguments <= declared
