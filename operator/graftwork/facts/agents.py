"""What a pod's agent last said, reduced to what Graftwork looks at (contracts.md, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from graftwork.facts.inspected import ModelFacts
from graftwork.facts.text import clip

CANDIDATES = "candidates"
"""The feature of an agent whose guard gives a candidate its share of the requests."""

LOADED, UNLOADING, FAILED, REFUSED = "Loaded", "Unloading", "Failed", "Refused"


@dataclass(frozen=True)
class SeenAdapter:
    """One adapter as one agent sees it."""

    engine_name: str
    name: str
    state: str
    reason: str = ""
    message: str = ""
    seen_at: str = ""
    """When the agent saw it first."""

    @property
    def present(self) -> bool:
        """Whether the engine may still have it."""
        return self.state in (LOADED, UNLOADING)


@dataclass(frozen=True)
class BaseFacts:
    """What the agent read in the base model's files."""

    fingerprint: str
    architecture: str
    parameters: int
    weights_bytes: int
    max_model_len: int | None
    model: ModelFacts | None = None
    """The same and what the configuration says besides, as of a source that is looked up; None: an agent of before says no more."""


@dataclass(frozen=True)
class Agent:
    """One pod's agent. Unless `reachable`, everything else is old news (or nothing, if it never answered)."""

    reachable: bool
    silent_seconds: float = 0.0
    """For how long it has not answered, as far as this process knows."""
    answered: bool = False
    observed_hash: str = ""
    base: BaseFacts | None = None
    base_error: str = ""
    adapters: tuple[SeenAdapter, ...] = ()
    routes: Mapping[str, str] = field(default_factory=dict)
    keys_error: str = ""
    """What is wrong with the API keys; empty where none are required."""
    engine_started_at: str = ""
    """When its engine began to listen; empty while it does not."""
    features: frozenset[str] = frozenset()
    """What it does that older ones did not."""
    said: str = ""
    """What its engine last said of importance while it starts; empty once it serves."""

    def adapter(self, engine_name: str) -> SeenAdapter | None:
        """Return what the agent says of an adapter, if it knows it."""
        return next((item for item in self.adapters if item.engine_name == engine_name), None)


def agent(status: Mapping[str, Any] | None, *, reachable: bool, silent_seconds: float) -> Agent:
    """Return the facts of an answer of `/status` (None: there was none yet)."""
    if status is None:
        return Agent(reachable=False, silent_seconds=silent_seconds)
    base = status.get("base") or {}
    return Agent(
        reachable=reachable,
        silent_seconds=0.0 if reachable else silent_seconds,
        answered=True,
        observed_hash=status.get("observedHash") or "",
        base=_base(base) if base.get("fingerprint") else None,
        base_error=base.get("error") or "",
        adapters=tuple(
            SeenAdapter(
                item["engineName"], item["name"], item["state"], item.get("reason") or "", item.get("message") or "", item.get("seenAt") or ""
            )
            for item in status.get("adapters") or []
        ),
        routes=dict(status.get("routes") or {}),
        keys_error=(status.get("keys") or {}).get("error") or "",
        engine_started_at=(status.get("engine") or {}).get("startedAt") or "",
        features=frozenset(str(item) for item in status.get("features") or []),
        said=clip(str((status.get("engine") or {}).get("said") or "")),
    )


def _base(base: Mapping[str, Any]) -> BaseFacts:
    return BaseFacts(
        fingerprint=base["fingerprint"],
        architecture=base.get("architecture") or "",
        parameters=int(base.get("parameters") or 0),
        weights_bytes=int(base.get("weightsBytes") or 0),
        max_model_len=base.get("maxModelLen"),
        model=_model(base) if "task" in base else None,
    )


def _model(base: Mapping[str, Any]) -> ModelFacts | None:
    try:
        return ModelFacts.model_validate(base)
    except ValidationError:
        return None
