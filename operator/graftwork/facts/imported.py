"""The last word of an import container (contracts.md, section 7a), checked before it is believed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from graftwork import contracts
from graftwork.facts.result import PublishedAdapter
from graftwork.facts.text import clip, last_line
from graftwork.reasons import Reason

RETRIES = 6
"""Attempts of an import Job after the first, with the Job controller's pauses of 10 s, 20 s, 40 s …: about ten minutes in all."""
DEADLINE_SECONDS = 7200


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Resolved(_Part):
    """What was read."""

    source: str
    revision: str = ""


class NamedBase(_Part):
    """What the files say they were trained on."""

    source: str = Field(default="", max_length=1024)
    fingerprint: str = ""


class ImportResult(_Part):
    """The whole message."""

    api_version: Literal["graftwork.dev/import-result/v1"]
    outcome: Literal["Succeeded", "Failed"]
    reason: str = Field(min_length=1)
    message: str = ""
    adapter: PublishedAdapter | None = None
    resolved: Resolved | None = None
    base: NamedBase | None = None
    imported_at: str = ""

    def known_reason(self, otherwise: Reason) -> Reason:
        """Return the reason if it is one of the closed list."""
        return Reason(self.reason) if self.reason in Reason.__members__.values() else otherwise


def parse(message: str) -> ImportResult | None:
    """Return the result in a termination message; None if it is none."""
    try:
        return ImportResult.model_validate(contracts.parse(contracts.IMPORT_RESULT, message.encode()))
    except (contracts.ContractError, ValidationError):
        return None


def last_words(message: str, otherwise: Reason) -> tuple[Reason, str]:
    """Return reason and text of an import container that failed: of its result, or its last line."""
    result = parse(message)
    if result is None:
        return otherwise, last_line(message)
    return result.known_reason(otherwise), clip(result.message) or result.reason


def pinned(result: ImportResult) -> dict[str, Any]:
    """Return the status fields of an adapter that is in the store; from then on they say what it is."""
    assert result.adapter is not None
    base, resolved = result.base or NamedBase(), result.resolved
    return {
        "digest": result.adapter.digest,
        "source": result.adapter.source,
        "rank": result.adapter.rank,
        "sizeBytes": result.adapter.size_bytes,
        "baseModel": {key: value for key, value in (("source", base.source), ("fingerprint", base.fingerprint)) if value} or None,
        "resolved": {key: value for key, value in (("source", resolved.source), ("revision", resolved.revision)) if value} if resolved else None,
        "importedAt": result.imported_at or None,
    }
