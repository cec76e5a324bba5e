"""GRAFTWORK_FILL: what the operator asks a fill for (contracts, section 7d)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_agent.refusal import Refusal

API_VERSION = "graftwork.dev/fill/v1"
_KEY = re.compile(r"[0-9a-f]{12}")
_REVISION = re.compile(r"[0-9a-f]{40,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Instructions:
    """Which files of which source, as the inspection found them; under which key they go to which folder; and which other keys must stay."""

    claim: str
    source: str
    revision: str
    key: str
    count: int
    size_bytes: int
    digest: str
    keep: tuple[str, ...]
    to: Path
    port: int

    @property
    def place(self) -> str:
        """The source without its revision."""
        return self.source.partition("@")[0] if self.source.startswith("hf://") else self.source

    @classmethod
    def parse(cls, text: str) -> Instructions:
        """Read GRAFTWORK_FILL; raises Refusal (InvalidSpec). One entry that cannot be understood is reason enough to touch nothing."""
        try:
            return cls._read(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal("InvalidSpec", f"GRAFTWORK_FILL: {type(error).__name__}: {error}; see docs/design/schemas/fill.schema.json") from None

    @classmethod
    def _read(cls, raw: Any) -> Instructions:
        if raw["apiVersion"] != API_VERSION:
            raise ValueError(f"apiVersion {raw['apiVersion']!r} is not {API_VERSION!r}")
        if not isinstance(raw["keep"], list):
            raise TypeError("keep must be a list")
        if not isinstance(raw["source"], str) or not isinstance(raw["to"], str) or not raw["to"].startswith("/"):
            raise TypeError("source and to must be strings, and to an absolute path")
        files = raw["files"]
        return cls(
            claim=f"{raw['deployment']['name']}-cache",
            source=raw["source"],
            revision=_text("revision", raw["revision"], _REVISION),
            key=_text("key", raw["key"], _KEY),
            count=_count("files.count", files["count"]),
            size_bytes=_count("files.bytes", files["bytes"]),
            digest=_text("files.digest", files["digest"], _DIGEST),
            keep=tuple(_text("keep", key, _KEY) for key in raw["keep"]),
            to=Path(raw["to"]),
            port=_count("progressPort", raw["progressPort"]),
        )


def _text(name: str, value: Any, rule: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not rule.fullmatch(value):
        raise ValueError(f"{name} is {value!r}, must match {rule.pattern}")
    return value


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {value!r}, must be a whole number that is not negative")
    return value
