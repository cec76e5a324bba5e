"""What is known of a shared cache: what its fill Job says (contracts.md, section 7d), and how the weights of a deployment come to its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from graftwork import contracts
from graftwork.facts import reported
from graftwork.facts.problem import Problem
from graftwork.facts.reported import Part, Reported
from graftwork.reasons import Reason

RETRIES = 6
"""Attempts of a fill's Job after the first, with the Job controller's pauses of 10 s, 20 s, 40 s …: about ten minutes in all."""
DEADLINE_SECONDS = 86_400
KEY_PATTERN = r"^[0-9a-f]{12}$"

Mode = Literal["Shared", "PerPod", "None"]
CACHED, FILLING, FAILED = "Cached", "Filling", "Failed"


class _Filled(Part):
    key: str
    bytes: int = Field(ge=0)


class FillResult(Reported):
    """The whole message."""

    api_version: Literal["graftwork.dev/fill-result/v1"]
    outcome: Literal["Succeeded", "Failed"]
    filled: _Filled | None = None
    pruned: tuple[str, ...] = ()


class FillProgress(Part):
    """What a fill says of itself while it runs."""

    key: str
    phase: str
    bytes_done: int = Field(ge=0)
    bytes_total: int = Field(ge=0)
    bytes_per_second: float = Field(ge=0)
    eta_seconds: float | None = None


class Held(Part):
    """One revision that lies complete in the claim."""

    key: str = Field(pattern=KEY_PATTERN)
    revision: str = ""
    bytes: int = Field(default=0, ge=0)

    def to_object(self) -> dict[str, Any]:
        """Return it as it is written into a status."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Caching:
    """How the weights of the present spec come to pods. `held` is of the claim `claim_uid`. `waiting`: pods of it cannot be made yet."""

    mode: Mode
    why: str
    claim: str = ""
    claim_uid: str = ""
    key: str = ""
    phase: str = ""
    held: tuple[Held, ...] = ()
    progress: FillProgress | None = None
    total_bytes: int | None = None
    size_bytes: int | None = None
    waiting: bool = False
    problem: Problem | None = None
    again_seconds: float | None = None


def last_words(message: str) -> tuple[Reason, str]:
    """Return reason and text of a fill that failed."""
    return reported.last_words(reported.parse(FillResult, contracts.FILL_RESULT, message), message, Reason.CACHE_FAILED)


def progress(document: Mapping[str, Any] | None, key: str) -> FillProgress | None:
    """Return what a fill says of itself; None if it says nothing of this key."""
    try:
        found = FillProgress.model_validate(document)
    except ValidationError:
        return None
    return found if found.key == key else None


def claim_uid(status: Mapping[str, Any]) -> str:
    """Return of which claim a status tells what lies in it; empty where it was not written down."""
    return str((status.get("cache") or {}).get("claimUid") or "")


def held(status: Mapping[str, Any]) -> tuple[Held, ...]:
    """Return what a status says of the revisions in the claim; what nobody of ours wrote is left out."""
    found = []
    for item in (status.get("cache") or {}).get("models") or []:
        try:
            found.append(Held.model_validate(item))
        except ValidationError:
            continue
    return tuple(found)
