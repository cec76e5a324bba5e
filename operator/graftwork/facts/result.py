"""The last word of a trainer or of a download container (contracts.md, section 7), checked before it is believed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from graftwork import contracts
from graftwork.facts.text import clip, last_line
from graftwork.names import DIGEST_PATTERN
from graftwork.reasons import Reason

DEFINITIVE_EXITS = (64, 65)
"""Exit codes of our programs that say that another attempt cannot help: wrong data, wrong configuration."""


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class PublishedAdapter(_Part):
    """What lies in the store now."""

    source: str = Field(pattern=r"^store://[^/]+/[^/]+/[0-9a-f]{12}$")
    digest: str = Field(pattern=DIGEST_PATTERN)
    rank: int = Field(ge=1)
    size_bytes: int = Field(ge=0)


class Base(_Part):
    """What was trained on."""

    fingerprint: str = Field(pattern=DIGEST_PATTERN)


class DatasetResult(_Part):
    """What the data was."""

    examples: int
    validation: int
    tokens: int | None = None
    digest: str
    format: str
    warnings: tuple[str, ...] = ()


class EvaluationNumbers(_Part):
    """The adapter compared with the base."""

    base_loss: float
    adapter_loss: float
    improvement: float
    verdict: str


class TrainingNumbers(_Part):
    """What the training was."""

    steps: int
    seconds: float
    loss: float | None = None


class Memory(_Part):
    """Memory of the training."""

    measured_peak_bytes: int


class Result(_Part):
    """The whole message."""

    api_version: Literal["graftwork.dev/result/v1"]
    outcome: Literal["Succeeded", "Rejected", "Failed"]
    reason: str = Field(min_length=1)
    message: str = ""
    adapter: PublishedAdapter | None = None
    base: Base | None = None
    dataset: DatasetResult | None = None
    evaluation: EvaluationNumbers | None = None
    training: TrainingNumbers | None = None
    memory: Memory | None = None
    published_at: str = ""

    def known_reason(self, otherwise: Reason) -> Reason:
        """Return the reason if it is one of the closed list."""
        return Reason(self.reason) if self.reason in Reason.__members__.values() else otherwise


def parse(message: str) -> Result | None:
    """Return the result in a termination message; None if it is none (a crash, or a program that does not keep the contract)."""
    try:
        return Result.model_validate(contracts.parse(contracts.RESULT, message.encode()))
    except (contracts.ContractError, ValidationError):
        return None


def last_words(message: str, otherwise: Reason) -> tuple[Reason, str]:
    """Return reason and text of a container that failed: of its result, or its last line."""
    result = parse(message)
    if result is None:
        return otherwise, last_line(message)
    return result.known_reason(otherwise), clip(result.message) or result.reason
