"""What is committed is what the models say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from graftwork.api.crds import KINDS, Kind, crd, render
from graftwork.api.reference import pages, reason_reference
from graftwork.reasons import Reason

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["crds", "charts/graftwork-crds/files"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_committed_crd_is_the_generated_one(kind: Kind, folder: str) -> None:
    assert (ROOT / folder / f"{kind.plural}.yaml").read_text() == render(kind), "run `make generate`"


@pytest.mark.parametrize("folder", ["crds", "charts/graftwork-crds/files"])
def test_no_crd_of_a_kind_that_is_gone(folder: str) -> None:
    assert {path.stem for path in (ROOT / folder).iterdir()} == {kind.plural for kind in KINDS}


def test_committed_reference_is_the_generated_one() -> None:
    folder = ROOT / "docs" / "reference"
    assert {path.name: path.read_text() for path in folder.glob("*.md")} == pages(), "run `make generate`"


def test_reference_has_every_reason_with_a_meaning() -> None:
    text = reason_reference()
    assert [reason.value for reason in Reason if f"| `{reason.value}` | " not in text] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_reference_has_every_field_of_the_crd(kind: Kind) -> None:
    page = pages()[f"{kind.name.lower()}.md"]
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for path, _ in (*walk(schema["spec"]), *walk(schema["status"])):
        assert f"| `{path}` |" in page


def walk(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return every field with its path."""
    found = []
    for name, child in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found.append((path, child))
        found += walk(child, f"{path}.") + walk(child.get("items", {}), f"{path}[].")
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_has_a_description_and_a_bound(kind: Kind) -> None:
    """An unbounded string, list or map of a spec makes any rule over it too expensive for the API server."""
    spec = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path, field in walk(spec):
        assert field.get("description"), path
        for node in (field, field.get("items", {}), field.get("additionalProperties", {})):
            bound = {"string": "maxLength", "array": "maxItems"}.get(node.get("type", ""))
            assert bound is None or bound in node or "enum" in node, path
        if "additionalProperties" in field:
            assert "maxProperties" in field, path


def test_every_field_of_an_llmdeployment_says_whether_it_restarts_pods() -> None:
    rows = [line for line in pages()["llmdeployment.md"].split("## Rules")[0].splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if not row.endswith(("| yes |", "| no |"))] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_crd_has_nothing_that_a_structural_schema_may_not_have(kind: Kind) -> None:
    def check(node: Any, path: str) -> None:
        if isinstance(node, list):
            for item in node:
                check(item, path)
        elif isinstance(node, dict):
            assert not {"$ref", "$defs", "title", "const", "propertyNames", "x-restarts", "x-unit"} & (node.keys() - names), path
            assert node.get("anyOf") is None or node.get("x-kubernetes-int-or-string") or "anyOf" in names, path
            for key, child in node.items():
                check(child, f"{path}.{key}")

    schema = crd(kind)["spec"]["versions"][0]["schema"]
    names = {path.rpartition(".")[2] for path, _ in walk(schema["openAPIV3Schema"])}
    check(schema, kind.name)


def test_rendered_text_is_the_object() -> None:
    for kind in KINDS:
        assert yaml.safe_load(render(kind)) == crd(kind)
