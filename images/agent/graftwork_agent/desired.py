"""`adapters.json`: what the operator wants the engine to have (contracts, section 3)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

API_VERSION = "graftwork.dev/adapters/v1"
ENGINE_NAME = re.compile(r"([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)--([0-9a-f]{12})")
_ALIAS = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class DesiredError(ValueError):
    """The file is not an `adapters.json` of this version."""


@dataclass(frozen=True)
class Adapter:
    """One adapter that is to be loaded."""

    name: str
    alias: str
    version: int
    engine_name: str
    digest: str
    source: str
    rank: int
    base_fingerprint: str
    required: bool
    compatible: bool = False


@dataclass(frozen=True)
class Candidate:
    """The adapter that a share of an alias's requests is tried on: `weight` of a hundred."""

    engine_name: str
    weight: int


@dataclass(frozen=True)
class Desired:
    """One state of the file; `adapters` are in its order, `aliases` maps an alias to engine names, the preferred first."""

    served_name: str
    max_rank: int
    required_deadline_seconds: float
    adapters: tuple[Adapter, ...]
    aliases: dict[str, tuple[str, ...]]
    hash: str
    candidates: dict[str, Candidate] = field(default_factory=dict)
    replicas: int = 1

    def by_name(self) -> dict[str, Adapter]:
        """The adapters by engine name."""
        return {adapter.engine_name: adapter for adapter in self.adapters}


def content_hash(data: bytes) -> str:
    """Return what the pod's annotation has for these bytes."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes) -> Desired:
    """Parse and check the file; a name that does not contain its digest, or a name twice, is refused.

    Raises:
        DesiredError: names the field, its value and the rule.
    """
    try:
        raw = json.loads(data)
        if raw["apiVersion"] != API_VERSION:
            raise DesiredError(f"apiVersion {raw['apiVersion']!r} is not {API_VERSION!r}")
        adapters = tuple(_adapter(item) for item in raw["adapters"])
        aliases = {_alias(item["alias"]): tuple(_engine_name(name) for name in item["prefer"]) for item in raw["aliases"]}
        desired = Desired(
            served_name=str(raw["servedName"]),
            max_rank=int(raw["maxRank"]),
            required_deadline_seconds=float(raw["requiredDeadlineSeconds"]),
            adapters=adapters,
            aliases=aliases,
            hash=content_hash(data),
            candidates=_candidates(raw["aliases"]),
            replicas=_whole_number("replicas", raw.get("replicas", 1), 1),
        )
    except DesiredError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DesiredError(f"not an adapters.json ({type(error).__name__}: {error})") from None
    if len(desired.by_name()) != len(adapters):
        raise DesiredError("adapters: an engineName is listed twice")
    return desired


def _adapter(item: dict[str, Any]) -> Adapter:
    adapter = Adapter(
        name=str(item["name"]),
        alias=_alias(item["alias"]),
        version=int(item["version"]),
        engine_name=_engine_name(item["engineName"]),
        digest=str(item["digest"]),
        source=str(item["source"]),
        rank=int(item["rank"]),
        base_fingerprint=str(item["baseFingerprint"]),
        required=bool(item["required"]),
        compatible=bool(item.get("compatible", False)),
    )
    if not _DIGEST.fullmatch(adapter.digest):
        raise DesiredError(f"adapters[{adapter.name}].digest {adapter.digest!r} must be sha256:<64 hex>")
    expected = f"{adapter.alias}--{adapter.digest.removeprefix('sha256:')[:12]}"
    if adapter.engine_name != expected:
        raise DesiredError(f"adapters[{adapter.name}].engineName {adapter.engine_name!r} must be {expected!r}")
    return adapter


def _candidates(items: list[dict[str, Any]]) -> dict[str, Candidate]:
    found = {}
    for item in items:
        where = f"aliases[{item['alias']}]"
        if ("candidate" in item) != ("weight" in item):
            raise DesiredError(f"{where} has candidate {item.get('candidate')!r} and weight {item.get('weight')!r}; it must have both or neither")
        if "candidate" in item:
            weight = _whole_number(f"{where}.weight", item["weight"], 0, 100)
            found[_alias(item["alias"])] = Candidate(_engine_name(item["candidate"]), weight)
    return found


def _whole_number(where: str, value: Any, least: int, most: int | None = None) -> int:
    if type(value) is not int or value < least or (most is not None and value > most):
        rule = f"at least {least}" if most is None else f"from {least} to {most}"
        raise DesiredError(f"{where} {value!r} must be a whole number {rule}")
    return value


def _alias(value: Any) -> str:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value) or "--" in value:
        raise DesiredError(f"alias {value!r} must be lower-case letters, digits and single dashes, at most 40 characters")
    return value


def _engine_name(value: Any) -> str:
    if not isinstance(value, str) or not ENGINE_NAME.fullmatch(value):
        raise DesiredError(f"engineName {value!r} must be <alias>--<12 hex>")
    return value
