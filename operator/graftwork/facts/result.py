"""The last word of a trainer or of a download container (contracts.md, section 7), checked before it is believed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftwork import contracts
from graftwork.facts import reported
from graftwork.facts.reported import Part, Reported
from graftwork.names import DIGEST_PATTERN
from graftwork.reasons import Reason


class PublishedAdapter(Part):
    """What lies in the store now."""

    source: str = Field(pattern=r"^store://[^/]+/[^/]+/[0-9a-f]{12}$")
    digest: str = Field(pattern=DIGEST_PATTERN)
    rank: int = Field(ge=1)
    size_bytes: int = Field(ge=0)


class Base(Part):
    """What was trained on."""

    fingerprint: str = Field(pattern=DIGEST_PATTERN)


class DatasetResult(Part):
    """What the data was."""

    examples: int
    validation: int
    tokens: int | None = None
    digest: str
    format: str
    warnings: tuple[str, ...] = ()


class EvaluationNumbers(Part):
    """The adapter compared with the base."""

    base_loss: float
    adapter_loss: float
    improvement: float
    verdict: str


class TrainingNumbers(Part):
    """What the training was."""

    steps: int
    seconds: float
    loss: float | None = None


class Memory(Part):
    """Memory of the training."""

    measured_peak_bytes: int


class Result(Reported):
    """The whole message."""

    api_version: Literal["graftwork.dev/result/v1"]
    outcome: Literal["Succeeded", "Rejected", "Failed"]
    adapter: PublishedAdapter | None = None
    base: Base | None = None
    dataset: DatasetResult | None = None
    evaluation: EvaluationNumbers | None = None
    training: TrainingNumbers | None = None
    memory: Memory | None = None
    published_at: str = ""


def parse(message: str) -> Result | None:
    """Return the result in a termination message; None if it is none."""
    return reported.parse(Result, contracts.RESULT, message)


def last_words(message: str, otherwise: Reason) -> tuple[Reason, str]:
    """Return reason and text of a trainer or a download that failed."""
    return reported.last_words(parse(message), message, otherwise)
