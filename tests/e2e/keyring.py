"""The keys of the deployment `keyed`: what its Secret holds (contracts, section 5a)."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from tests.harness.kube import Object

SECRET = "client-keys"
KEYED_LABELS = {"team": "keyed"}


@dataclass(frozen=True)
class Keyring:
    """Names and keys; the keys are random, so that finding one in a log is no accident."""

    entries: dict[str, dict[str, Any]]

    @classmethod
    def fresh(cls) -> Keyring:
        """Return one key for each rule that is tested."""
        rules: dict[str, dict[str, Any]] = {
            "open": {},
            "other": {},
            "narrow": {"models": ["keyed"]},
            "slow": {"limits": {"requestsPerMinute": 2}},
            "frugal": {"limits": {"tokensPerMinute": 20}},
            "single": {"limits": {"concurrent": 1}},
            "scraper": {"metrics": True},
        }
        return cls({name: {"key": f"gw-{secrets.token_hex(20)}", **rule} for name, rule in rules.items()})

    def key(self, name: str) -> str:
        """Return the key of a name."""
        return str(self.entries[name]["key"])

    def bearer(self, name: str) -> dict[str, str]:
        """Return the header with which a client sends its key."""
        return {"Authorization": f"Bearer {self.key(name)}"}

    def without(self, name: str) -> Keyring:
        """Return the same keys but one."""
        return Keyring({other: entry for other, entry in self.entries.items() if other != name})

    def with_new(self, name: str) -> Keyring:
        """Return the same keys and one more."""
        return Keyring({**self.entries, name: {"key": f"gw-{secrets.token_hex(20)}"}})

    def secret(self, text: str = "") -> Object:
        """Return the Secret; `text` stands in for the keys (JSON is YAML)."""
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": {"keys.yaml": text or json.dumps(self.entries)}}
