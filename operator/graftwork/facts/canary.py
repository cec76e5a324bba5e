"""The canary of one alias: what the user asked for, where it stands, and what Prometheus said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graftwork.clock import parse_rfc3339, rfc3339
from graftwork.reasons import Reason


@dataclass(frozen=True)
class Settings:
    """Steps in percent, how long each lasts at least, and what the analysis allows."""

    steps: tuple[int, ...] = (10, 50)
    step_seconds: float = 300.0
    max_error_rate: float = 0.01
    max_ttft_ratio: float = 1.2
    """0: the time to first token is not compared."""
    min_requests: int = 50


@dataclass(frozen=True)
class Standing:
    """Where the canary of one alias stands: all that its next decision needs, kept in the status of the LLMDeployment."""

    candidate: str = ""
    """LoRAAdapter that `step` is about."""
    step: int = 0
    """From 1; 0: the candidate gets nothing yet."""
    since: datetime | None = None
    """When the step began."""
    failed: str = ""
    """LoRAAdapter whose canary failed, and `failure` why."""
    failure: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the fields of the alias' row in the status (`from_row` reads them back)."""
        return {
            "step": self.step if self.candidate else None,
            "step_started_at": rfc3339(self.since) if self.since else None,
            "failed": self.failed or None,
            "failure": self.failure or None,
        }


def from_row(row: Mapping[str, Any]) -> Standing:
    """Return the standing that a row of the status tells; what somebody spoiled counts as not begun."""
    try:
        since = parse_rfc3339(str(row["stepStartedAt"])) if row.get("stepStartedAt") else None
        step = max(0, int(row.get("step") or 0))
    except ValueError:
        since, step = None, 0
    candidate = str(row.get("candidate") or "")
    return Standing(candidate, step if candidate else 0, since if candidate else None, str(row.get("failed") or ""), str(row.get("failure") or ""))


@dataclass(frozen=True)
class Question:
    """What is asked of Prometheus: the numbers of two versions of an alias since a moment (None: only whether it answers)."""

    namespace: str
    deployment: str
    alias: str
    stable: int
    candidate: int
    since: datetime | None


@dataclass(frozen=True)
class Numbers:
    """One version's requests in the window. None: Prometheus has no such series."""

    requests: float | None = None
    errors: float = 0.0
    """Answers that failed by the engine: 5xx, or inside a stream."""
    ttft_seconds: float = 0.0
    """Sum of the times to first token of `ttft_count` streams."""
    ttft_count: float = 0.0

    @property
    def ttft(self) -> float | None:
        """Return the mean time to first token in seconds, if there is one."""
        return self.ttft_seconds / self.ttft_count if self.ttft_count > 0 else None


@dataclass(frozen=True)
class Observation:
    """What Prometheus answered; with `problem` it did not, and the numbers mean nothing."""

    candidate: Numbers = Numbers()
    stable: Numbers = Numbers()
    problem: str = ""
    lasted_seconds: float = 0.0
    """How long the step had lasted when this was asked."""


@dataclass(frozen=True)
class Outcome:
    """What one pass decided of an alias with a candidate (or with a failed one)."""

    standing: Standing
    weight: int = 0
    steps: int = 0
    reason: Reason | None = None
    message: str = ""
    promoted: bool = False
    look_again_seconds: float | None = None
