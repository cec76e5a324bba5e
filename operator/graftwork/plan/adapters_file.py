"""`adapters.json`: what the agents read (contracts.md, section 3)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from graftwork import names
from graftwork.facts.adapters import Adapter, AliasPlan, Selection
from graftwork.facts.routes import Route
from graftwork.plan.adapters import Rules

API_VERSION = "graftwork.dev/adapters/v1"
REQUIRED_DEADLINE_SECONDS = 120


def content(selection: Selection, rules: Rules, replicas: int = 1) -> str:
    """Return the file: canonical, so that equal content is equal bytes. `replicas` is the number of ready pods."""
    data = {
        "apiVersion": API_VERSION,
        "deployment": {"namespace": rules.namespace, "name": rules.deployment},
        "servedName": rules.served_name,
        "maxRank": rules.max_rank,
        "replicas": max(1, replicas),
        "requiredDeadlineSeconds": REQUIRED_DEADLINE_SECONDS,
        "adapters": sorted((entry for alias in selection.aliases for entry in _entries(alias)), key=_engine_name),
        "aliases": [_alias(alias) for alias in sorted(selection.aliases, key=lambda item: item.alias)],
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _entries(alias: AliasPlan) -> list[dict[str, Any]]:
    """Return what is to be loaded for one alias; at most one version holds a pod's readiness, and never a candidate."""
    entries = [_entry(adapter, required=adapter.engine_name == alias.required) for adapter in alias.prefer]
    return [*entries, _entry(alias.candidate, required=False)] if alias.candidate else entries


def _alias(alias: AliasPlan) -> dict[str, Any]:
    row: dict[str, Any] = {"alias": alias.alias, "prefer": [adapter.engine_name for adapter in alias.prefer]}
    return {**row, "candidate": alias.candidate.engine_name, "weight": alias.weight} if alias.candidate else row


def _entry(adapter: Adapter, *, required: bool) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "alias": adapter.alias,
        "version": adapter.version,
        "engineName": adapter.engine_name,
        "digest": adapter.digest,
        "source": adapter.source,
        "rank": adapter.rank,
        "baseFingerprint": adapter.fingerprint,
        "required": required,
        **({"compatible": True} if adapter.compatible else {}),
    }


def _engine_name(entry: dict[str, Any]) -> str:
    return str(entry["engineName"])


def content_hash(text: str) -> str:
    """Return the sha256 that goes into the pods' annotation."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def listed(config_map: dict[str, Any] | None) -> frozenset[str]:
    """Return the engine names in a ConfigMap that was written before; nothing if there is none or somebody spoiled it."""
    try:
        data = json.loads(((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY) or "{}")
        return frozenset(str(item["engineName"]) for item in data.get("adapters", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def required(config_map: dict[str, Any] | None) -> dict[str, bool]:
    """Return by engine name whether a ConfigMap that was written before told pods to wait for it; nothing if there is none or it is spoiled."""
    try:
        data = json.loads(((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY) or "{}")
        return {str(item["engineName"]): bool(item.get("required")) for item in data.get("adapters", [])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def digests(config_map: dict[str, Any] | None) -> frozenset[tuple[str, str]]:
    """Return source and digest of all that a ConfigMap lists that was written before; nothing if there is none or somebody spoiled it."""
    try:
        data = json.loads(((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY) or "{}")
        return frozenset((str(item["source"]), str(item["digest"])) for item in data.get("adapters", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def routes(config_map: dict[str, Any] | None) -> dict[str, Route]:
    """Return the route of each alias in a ConfigMap that was written before; nothing if there is none or somebody spoiled it."""
    try:
        data = json.loads(((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY) or "{}")
        return {
            str(item["alias"]): Route(tuple(str(name) for name in item["prefer"]), str(item.get("candidate") or ""), int(item.get("weight") or 0))
            for item in data.get("aliases", [])
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
