"""API keys: who may ask, for which models (docs/design/contracts.md, section 5a). Pure; the guard knows hashes, never a key."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graftwork_guard.limits import NO_LIMITS, Limits

API_VERSION = "graftwork.dev/keys/v1"
CREDENTIAL_HEADERS = (b"authorization", b"x-api-key")

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?")
_NAME_LENGTH = 63
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIMITS = {"requestsPerMinute": "requests_per_minute", "tokensPerMinute": "tokens_per_minute", "concurrent": "concurrent"}


class KeysError(Exception):
    """A document of keys breaks the contract; the text names entry, field and rule, and no hash."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. No `models` means every model, but for a key that reads `metrics`: that one asks none."""

    name: str
    sha256: str = field(repr=False)
    models: frozenset[str] = frozenset()
    limits: Limits = NO_LIMITS
    metrics: bool = False

    def may(self, model: str) -> bool:
        """Whether this key may ask for the model of that public name."""
        return not self.metrics and (not self.models or model in self.models)

    def salted(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a request's body with the `cache_salt` of this key, so that no other key's requests share its prefix cache.

        The client's own salt goes into it and never in place of it: what one tenant sends can be no other tenant's salt. What is not text is left
        for the engine to refuse.
        """
        own = document.get("cache_salt")
        if own is not None and not isinstance(own, str):
            return document
        parts = (b"graftwork-cache-salt", self.sha256.encode(), (own or "").encode("utf-8", "surrogatepass"))
        return {**document, "cache_salt": hashlib.sha256(b"\0".join(parts)).hexdigest()}


class Keyring:
    """All keys of a moment; replaced as a whole."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.by_name = {key.name: key for key in keys}
        self._by_hash = {key.sha256: key for key in self.by_name.values()}

    def find(self, credential: bytes) -> Key | None:
        """Return the key whose text this is.

        What is looked up is a hash, of which nobody can choose the beginning, so the time it takes tells nothing about a key; the comparison that
        decides takes the same time for every hash.
        """
        digest = hashlib.sha256(credential).hexdigest()
        key = self._by_hash.get(digest)
        return key if key is not None and hmac.compare_digest(key.sha256, digest) else None


def credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the key that a request carries: `Authorization: Bearer <key>`, or `x-api-key: <key>` as the messages API's clients send it."""
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in CREDENTIAL_HEADERS:
            given.setdefault(name, value)
    scheme, _, text = given.get(b"authorization", b"").strip().partition(b" ")
    bearer = text.strip() if scheme.lower() == b"bearer" else b""
    return bearer or given.get(b"x-api-key", b"").strip()


def parse(document: object) -> Keyring:
    """Return the keys that the agent sent; raise KeysError."""
    if not isinstance(document, dict):
        raise KeysError("the body is not a JSON object; send a document of docs/design/schemas/keys.schema.json")
    if document.get("apiVersion") != API_VERSION:
        raise KeysError(f"apiVersion is {document.get('apiVersion')!r}; this guard reads {API_VERSION!r}")
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeysError("keys must be a list of {name, sha256, models, limits}")
    keys = [_key(number, entry) for number, entry in enumerate(entries)]
    if len({key.name for key in keys}) < len(keys) or len({key.sha256 for key in keys}) < len(keys):
        raise KeysError("keys has a name or a hash twice; each must be there once")
    return Keyring(keys)


def _key(number: int, entry: object) -> Key:
    where = f"keys[{number}]"
    if not isinstance(entry, dict):
        raise KeysError(f"{where} is not an object")
    name, sha256, models, limits, metrics = (entry.get(field_name) for field_name in ("name", "sha256", "models", "limits", "metrics"))
    if not isinstance(name, str) or len(name) > _NAME_LENGTH or not _NAME.fullmatch(name):
        raise KeysError(f"{where}.name must be at most {_NAME_LENGTH} letters, digits, '-', '_' and '.', with a letter or digit at both ends")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise KeysError(f"{where}.sha256 (of {name}) must be 64 lower-case hex digits")
    if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
        raise KeysError(f"{where}.models (of {name}) must be a list of names; an empty list is every model")
    if not isinstance(limits, dict):
        raise KeysError(f"{where}.limits (of {name}) must be an object")
    if not isinstance(metrics, bool | None):
        raise KeysError(f"{where}.metrics (of {name}) must be true or false")
    return Key(name, sha256, frozenset(models), metrics=bool(metrics), limits=_limits(f"{where}.limits (of {name})", limits))


def _limits(where: str, limits: Mapping[str, Any]) -> Limits:
    for name, value in limits.items():
        if name not in _LIMITS or type(value) is not int or value < 1:
            raise KeysError(f"{where} has {name!r}: {value!r}; it takes {', '.join(_LIMITS)}, each a whole number >= 1")
    return Limits(**{_LIMITS[name]: value for name, value in limits.items()})
