"""The canary of one alias: what the user asked for, where it stands, and what Prometheus said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """When the step began: when the pods were seen to have read of its share; None until then."""
    failed: str = ""
    """LoRAAdapter whose canary failed, and `failure` why."""
    failure: str = ""
    candidate_engine: str = ""
    """The candidate's engine name, and the failed one's: a LoRAAdapter that was made again under the same name may have other files."""
    failed_engine: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the fields of the alias' row in the status (`from_row` reads them back)."""
        return {
            "step": self.step if self.candidate else None,
            "step_started_at": rfc3339(self.since) if self.since else None,
            "failed": self.failed or None,
            "failure": self.failure or None,
            "candidate_engine_name": (self.candidate_engine or None) if self.candidate else None,
            "failed_engine_name": (self.failed_engine or None) if self.failed else None,
        }

    def among(self, engines: Mapping[str, str]) -> Standing:
        """Return what is still true of the adapters of now, engine names by name: what is known of one says nothing of other files under its name."""
        standing = self
        if _others(engines.get(self.candidate), self.candidate_engine):
            standing = replace(standing, candidate="", step=0, since=None, candidate_engine="")
        if _others(engines.get(self.failed), self.failed_engine):
            standing = replace(standing, failed="", failure="", failed_engine="")
        return standing


def _others(now: str | None, known: str) -> bool:
    return bool(now and known and now != known)


def from_row(row: Mapping[str, Any]) -> Standing:
    """Return the standing that a row of the status tells; what somebody spoiled counts as not begun."""
    try:
        since = parse_rfc3339(str(row["stepStartedAt"])) if row.get("stepStartedAt") else None
        step = max(0, int(row.get("step") or 0))
    except ValueError:
        since, step = None, 0
    candidate = str(row.get("candidate") or "")
    return Standing(
        candidate,
        step if candidate else 0,
        since if candidate else None,
        str(row.get("failed") or ""),
        str(row.get("failure") or ""),
        str(row.get("candidateEngineName") or ""),
        str(row.get("failedEngineName") or ""),
    )


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
    """One version's requests that ended in the window, but those that the client left first. None: Prometheus lacks a series that this needs."""

    requests: float | None = None
    errors: float = 0.0
    """Those of them that failed by the engine: 5xx, or inside a stream."""
    ttft_seconds: float = 0.0
    """Sum of the times to first token of `ttft_count` streams."""
    ttft_count: float = 0.0
    abandoned: float = 0.0
    """Requests whose client left before the answer had ended: they say nothing of the version, and are told all the same."""

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
