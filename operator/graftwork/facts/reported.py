"""What a container of ours says as its last word, whichever program it runs (contracts.md, sections 7 to 7c), checked before it is believed."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from graftwork import contracts
from graftwork.facts.text import clip, last_line
from graftwork.reasons import Reason, known

DEFINITIVE_EXITS = (64, 65)
"""Exit codes of our programs that say that another attempt cannot help: wrong data, wrong configuration."""


class Part(BaseModel):
    """A part of such a message; what a newer program adds to it is left alone."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=())


class Reported(Part):
    """What each such message has."""

    outcome: str
    reason: str = Field(min_length=1)
    message: str = ""

    def known_reason(self, otherwise: Reason) -> Reason:
        """Return the reason if it is one of the closed list."""
        return known(self.reason) or otherwise


T = TypeVar("T", bound=Reported)


def parse(model: type[T], schema: str, message: str) -> T | None:
    """Return the result in a termination message; None if it is none (a crash, or a program that does not keep the contract)."""
    try:
        return model.model_validate(contracts.parse(schema, message.encode()))
    except (contracts.ContractError, ValidationError):
        return None


def last_words(result: Reported | None, message: str, otherwise: Reason) -> tuple[Reason, str]:
    """Return reason and text of a container that failed: of its result, or the last line of its message."""
    if result is None:
        return otherwise, last_line(message)
    return result.known_reason(otherwise), clip(result.message) or result.reason
