"""The last word of an import container (contracts.md, section 7a), checked before it is believed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from graftwork import contracts
from graftwork.facts import reported
from graftwork.facts.reported import Part, Reported
from graftwork.facts.result import PublishedAdapter
from graftwork.reasons import Reason

RETRIES = 6
"""Attempts of an import Job after the first, with the Job controller's pauses of 10 s, 20 s, 40 s …: about ten minutes in all."""
DEADLINE_SECONDS = 7200


class Resolved(Part):
    """What was read."""

    source: str
    revision: str = ""


class NamedBase(Part):
    """What the files say they were trained on."""

    source: str = Field(default="", max_length=1024)
    fingerprint: str = ""


class ImportResult(Reported):
    """The whole message."""

    api_version: Literal["graftwork.dev/import-result/v1"]
    outcome: Literal["Succeeded", "Failed"]
    adapter: PublishedAdapter | None = None
    resolved: Resolved | None = None
    base: NamedBase | None = None
    imported_at: str = ""


def parse(message: str) -> ImportResult | None:
    """Return the result in a termination message; None if it is none."""
    return reported.parse(ImportResult, contracts.IMPORT_RESULT, message)


def last_words(message: str) -> tuple[Reason, str]:
    """Return reason and text of an import container that failed."""
    return reported.last_words(parse(message), message, Reason.IMPORT_FAILED)


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
