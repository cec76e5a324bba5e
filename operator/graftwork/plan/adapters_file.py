"""`adapters.json`: what the agents read (contracts.md, section 3)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from graftwork import names
from graftwork.facts.adapters import Selection
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
        "adapters": sorted((_entry(alias.prefer, index) for alias in selection.aliases for index in range(len(alias.prefer))), key=_engine_name),
        "aliases": [
            {"alias": alias.alias, "prefer": [adapter.engine_name for adapter in alias.prefer]}
            for alias in sorted(selection.aliases, key=lambda item: item.alias)
        ],
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _entry(prefer: Any, index: int) -> dict[str, Any]:
    adapter = prefer[index]
    return {
        "name": adapter.name,
        "alias": adapter.alias,
        "version": adapter.version,
        "engineName": adapter.engine_name,
        "digest": adapter.digest,
        "source": adapter.source,
        "rank": adapter.rank,
        "baseFingerprint": adapter.fingerprint,
        "required": index == 0,
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
