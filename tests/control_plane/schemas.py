"""JSON Schemas for kubeconform from what the API server itself publishes under /openapi/v3: no download, and the server's own versions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
_KINDS = "x-kubernetes-group-version-kind"


def write_schemas(client: httpx.Client, folder: Path) -> str:
    """Write one file per kind into `folder` and return kubeconform's -schema-location for them."""
    for entry in client.get("/openapi/v3").raise_for_status().json()["paths"].values():
        answer = client.get(entry["serverRelativeURL"], follow_redirects=True)
        if answer.status_code == httpx.codes.NOT_FOUND:  # a group whose last CRD was deleted a moment ago is still on the list
            continue
        schemas = answer.raise_for_status().json().get("components", {}).get("schemas", {})
        closed = {name: _close(schema) for name, schema in schemas.items()}
        for name, schema in schemas.items():
            for kind in schema.get(_KINDS, []):
                suffix = "-".join(filter(None, (kind["group"].split(".")[0], kind["version"])))  # kubeconform's KindSuffix
                (folder / f"{kind['kind'].lower()}-{suffix}.json").write_text(_document(name, closed))
    return str(folder / LOCATION)


def _document(name: str, schemas: dict[str, Any]) -> str:
    """Return one kind's schema with those that it refers to, and no others: kubeconform compiles the whole file for each object."""
    needed: dict[str, Any] = {}
    waiting = {name}
    while waiting:
        needed.update({each: schemas[each] for each in waiting})
        waiting = {found for each in waiting for found in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schemas[each]))} - needed.keys()
    return json.dumps({"$ref": f"#/components/schemas/{name}", "components": {"schemas": needed}})


def _close(node: Any) -> Any:
    """Return the schema with unknown fields refused, as a strict API server refuses them."""
    if isinstance(node, list):
        return [_close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _close(value) for key, value in node.items()}
    if "properties" in node and "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed
