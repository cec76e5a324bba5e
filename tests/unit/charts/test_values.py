"""Each value of a chart is in its schema and in its README, and the rights have no wildcards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHARTS = Path(__file__).parents[3] / "charts"
NAMES = ("graftwork", "graftwork-crds")
FREE = ("resources", "annotations", "affinity", "labels", "podAnnotations", "podLabels", "nodeSelector")


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path; maps that a user fills are values of their own."""
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in FREE:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def load(chart: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CHARTS / chart / "values.yaml").read_text()))


@pytest.mark.parametrize("chart", NAMES)
def test_readme_lists_every_value_with_its_default(chart: str) -> None:
    readme = (CHARTS / chart / "README.md").read_text()
    wanted = [f"| `{path}` | `{json.dumps(value)}` |" for path, value in leaves(load(chart))]
    assert [row for row in wanted if row not in readme] == []


@pytest.mark.parametrize("chart", NAMES)
def test_readme_lists_no_value_that_is_gone(chart: str) -> None:
    readme = (CHARTS / chart / "README.md").read_text()
    listed = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
    assert listed == {path for path, _ in leaves(load(chart))}


@pytest.mark.parametrize("chart", NAMES)
def test_schema_has_every_value_and_no_other(chart: str) -> None:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    def paths(node: dict[str, Any], prefix: str = "") -> set[str]:
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        properties = node.get("properties", {})
        found: set[str] = set()
        for name, child in properties.items():
            inner = set() if name in FREE else paths(child, f"{prefix}{name}.")
            found |= inner or {f"{prefix}{name}"}
        return found

    assert paths(schema) - {"global"} == {path for path, _ in leaves(load(chart))}


def test_rights_have_no_wildcard_no_secret_and_no_exec() -> None:
    text = (CHARTS / "graftwork" / "templates" / "rbac" / "roles.yaml").read_text()
    rules = "\n".join(line for line in text.split("*/ -}}")[1].splitlines() if not line.strip().startswith("#"))
    for word in ("*", "secrets", "exec", "nodes", "impersonate", "escalate", "bind"):
        assert word not in rules, word
