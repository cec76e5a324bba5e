"""What a model is, as the inspection of its source found it (contracts.md, section 7c), and to what the source is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from graftwork import contracts
from graftwork.facts import reported
from graftwork.facts.problem import Problem
from graftwork.facts.reported import Part, Reported
from graftwork.names import DIGEST_PATTERN
from graftwork.reasons import Reason, known

RETRIES = 6
"""Attempts of an inspection's Job after the first, with the Job controller's pauses of 10 s, 20 s, 40 s …: about ten minutes in all."""
DEADLINE_SECONDS = 1800
KEPT_SECONDS = 600
"""How long the Job stays after its end; if it gave up because a source did not answer, that is the pause before the next one."""


class ModelFacts(Part):
    """What is known of a model without its weights; None: its configuration does not say."""

    fingerprint: str = Field(pattern=DIGEST_PATTERN)
    architecture: str
    parameters: int = Field(ge=0)
    weights_bytes: int = Field(ge=0)
    max_model_len: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    kv_lora_rank: int | None = None
    vocab_size: int | None = None
    dtype: str = ""
    quantization: str = ""
    quantization_file: bool | None = None
    """Whether a file beside config.json says how the weights are quantized, for who names the method; None: nobody looked."""
    task: str = "generate"
    pooling_module: bool | None = None
    """Whether modules.json (sentence-transformers) names a pooling module that vLLM reads; None: no such file, or nobody looked."""
    remote_code: bool = False


class SourceFiles(Part):
    """What a download brings."""

    count: int = Field(ge=1)
    bytes: int = Field(ge=0)
    largest_bytes: int = Field(ge=0)
    digest: str = Field(pattern=DIGEST_PATTERN)


class Resolved(Part):
    """To what a source is frozen.

    `key` is of everything whose change makes it looked up again, `requested` the revision as the user wrote it, `refresh` the text of
    `graftwork.dev/refresh` that was answered by it.
    """

    key: str = Field(min_length=1)
    source: str
    requested: str = ""
    refresh: str = ""
    revision: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    resolved_at: str = ""
    files: SourceFiles
    facts: ModelFacts

    def to_object(self) -> dict[str, Any]:
        """Return it as it is written into statuses and ControllerRevisions."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_object(cls, value: object) -> Resolved | None:
        """Return what was written; None for what nobody of ours wrote."""
        try:
            return cls.model_validate(value)
        except ValidationError:
            return None


class _Named(Part):
    source: str
    revision: str


class InspectResult(Reported):
    """The whole message."""

    api_version: Literal["graftwork.dev/inspect-result/v1"]
    outcome: Literal["Succeeded", "Failed"]
    resolved: _Named | None = None
    files: SourceFiles | None = None
    model: ModelFacts | None = None
    inspected_at: str = ""


@dataclass(frozen=True)
class Resolution:
    """How the source of an LLMDeployment stands. `wanted` is the key of what is asked for; empty for a source that pins nothing."""

    wanted: str = ""
    resolved: Resolved | None = None
    problem: Problem | None = None
    refused: bool = False
    """Whether the look has ended and another one would end the same way: `problem` is remembered. What keeps its pod from starting may pass."""
    refresh: str = ""
    detected: str = ""
    """What was detected of it, and how it is served therefore."""
    again_seconds: float | None = None
    took_seconds: float | None = None
    """How long the look took that this pass found ended; None: it was known before, or goes on."""

    @property
    def waiting(self) -> bool:
        """Whether pods of the present spec cannot be made yet."""
        return bool(self.wanted) and self.resolved is None


def parse(message: str) -> InspectResult | None:
    """Return the result in a termination message; None if it is none."""
    return reported.parse(InspectResult, contracts.INSPECT_RESULT, message)


def last_words(message: str) -> tuple[Reason, str]:
    """Return reason and text of an inspection that failed."""
    return reported.last_words(parse(message), message, Reason.INSPECT_FAILED)


def frozen(result: InspectResult, key: str, source: str, requested: str, refresh: str = "") -> Resolved | None:
    """Return to what a source is frozen by a result; None if the result is not of that source."""
    if result.outcome != "Succeeded" or not (result.resolved and result.files and result.model) or result.resolved.source != source:
        return None
    return Resolved(
        key=key,
        source=source,
        requested=requested,
        refresh=refresh,
        revision=result.resolved.revision,
        resolved_at=result.inspected_at,
        files=result.files,
        facts=result.model,
    )


def remembered(status: Mapping[str, Any], key: str) -> Resolved | None:
    """Return what a status says a source is frozen to, if it is about `key`."""
    found = Resolved.from_object((status.get("model") or {}).get("resolved"))
    return found if found and found.key == key else None


def refused(status: Mapping[str, Any], key: str) -> Problem | None:
    """Return why the source of `key` was refused for good, if the status says so; no other look helps before the key changes."""
    found = (status.get("model") or {}).get("refused") or {}
    reason = known(found.get("reason"))
    return Problem(reason, str(found.get("message") or "")) if reason and found.get("key") == key else None


def answered(status: Mapping[str, Any]) -> str:
    """Return the text of the refresh annotation that was answered last, well or by a refusal."""
    model = status.get("model") or {}
    return str((model.get("refused") or model.get("resolved") or {}).get("refresh") or "")
