"""From a pydantic model to the structural OpenAPI v3 schema that a CRD takes: no $ref, no title, no null types, OpenAPI's exclusive bounds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from graftwork.api.base import RESTARTS, UNIT, VALIDATIONS

_DROPPED = frozenset({"title", "$defs", "additionalProperties", "propertyNames", RESTARTS, UNIT})
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of a model."""
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}))


def flattened(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's JSON schema with every $ref replaced by what it names, and nothing else changed (the reference is made from it)."""
    schema = model.model_json_schema(by_alias=True)
    flat: dict[str, Any] = _inline(schema, schema.get("$defs", {}))
    return flat


def _inline(node: Any, defs: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    node = _resolve(node, defs)
    return {key: _inline(value, defs) for key, value in node.items() if key != "$defs"}


def _resolve(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Replace a $ref by its definition, and "X or null" by X: a null is pruned by the API server, so null and absence are the same."""
    if "$ref" in node:
        target = _resolve(defs[str(node["$ref"]).rsplit("/", 1)[1]], defs)
        node = _merge(target, {key: value for key, value in node.items() if key != "$ref"})
    options = [option for option in node.get("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        rest = {key: value for key, value in node.items() if key != "anyOf" and not (key == "default" and value is None)}
        return _merge(_resolve(options[0], defs), rest)
    return node


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with what the field says over it; CEL rules of both stay."""
    merged = {**base, **over}
    rules = [*base.get(VALIDATIONS, []), *over.get(VALIDATIONS, [])]
    return {**merged, VALIDATIONS: rules} if rules else merged


def _convert(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    optional = {"type": "null"} in node.get("anyOf", [])
    node = _resolve(node, defs)
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in _EXCLUSIVE:
            out[_EXCLUSIVE[key]] = value
            out[key] = True
        elif key == "const":
            out["enum"] = [value]
        elif key == "properties":
            out[key] = {name: _convert(child, defs) for name, child in value.items()}
        elif key == "items":
            out[key] = _convert(value, defs)
        elif key == "default" and value in ("", [], {}):
            continue  # absence means the same; stored objects stay short
        elif key not in _DROPPED:
            out[key] = value
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(node["additionalProperties"], defs)
    if _has_defaults(out) and not optional:  # "X or null" stays absent: that it is absent says something
        out["default"] = {}
    return out


def _has_defaults(schema: dict[str, Any]) -> bool:
    """Whether an absent object should be made, so that the defaults of its fields appear: none is required and at least one has a default."""
    properties = schema.get("properties", {})
    return not schema.get("required") and any("default" in child for child in properties.values())
