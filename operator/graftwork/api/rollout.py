"""How an LLMDeployment's pods are replaced."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from graftwork.api import cel
from graftwork.api.base import Model, field
from graftwork.api.common import INT_OR_STRING, duration_seconds

MOST_SURGE = 100
Surge = Annotated[Annotated[int, Field(ge=0, le=MOST_SURGE)] | Literal["auto"], WithJsonSchema(INT_OR_STRING)]


class Rollout(Model):
    """How pods are replaced without losing a request."""

    RULES = (
        cel.Rule(
            "!has(self.progressDeadline) || self.progressDeadline == 'auto' || duration(self.progressDeadline) >= duration('30s')",
            "rollout.progressDeadline is a duration of at least 30s, such as 90s, 20m or 1h30m, or auto",
        ),
    )
    NOT_IN_PODS: ClassVar[tuple[str, ...]] = ("surge", "progressDeadline", "autoRollback", "upgradePolicy")
    """Fields that no pod is made from."""

    drain_seconds: int = field(
        8,
        doc="How long an ending pod goes on answering, with `Connection: close`, before vLLM is told to stop.",
        unit="seconds",
        restarts=True,
        ge=0,
        le=600,
    )
    answer_seconds: int = field(
        300, doc="Longest answer: how long vLLM may finish what runs when it is told to stop.", unit="seconds", restarts=True, ge=1, le=86_400
    )
    surge: Surge = field(
        "auto",
        doc="Pods that may exist beyond `replicas` while they are replaced. `auto`: one; where no node is found for it within five minutes and there "
        "is more than one replica, they are replaced one at a time. 0: always one at a time, an old pod ends before its successor starts: with one "
        "replica that is the consent to a gap in service (`RolloutNeedsDowntime`).",
        unit="pods",
        restarts=False,
        rules=(cel.int_or_auto("rollout.surge", 0, MOST_SURGE),),
    )
    progress_deadline: str = field(
        "auto",
        doc="How long a new pod's engine may take to be ready once it has node, image and weights, such as 20m; after that the revision has failed. "
        "`auto`: by the size of the weights, at least 15 minutes (half an hour on CPUs), at most six hours. Waiting for node, image or weights never "
        "counts. It ends a minute before the startup probe of the pods at the latest, which is an hour or more.",
        restarts=False,
        max_length=16,
        pattern=r"^(auto|([0-9]{1,6}[hms])+)$",
    )
    auto_rollback: bool = field(
        True,
        doc="Go back to the last good revision when a new one fails: its engine does not take a flag, keeps ending, runs out of memory, or is not "
        "ready within `progressDeadline`. It stays there until the spec changes. false: the failing pod is left as it is, beside the old ones.",
        restarts=False,
    )
    upgrade_policy: Literal["WithNextChange", "Rolling"] = field(
        "WithNextChange",
        doc="What becomes of pods when another version of Graftwork, or other images in its configuration, would make them otherwise. "
        "`WithNextChange`: nothing, until a field that restarts pods changes. `Rolling`: they are replaced as after such a change, with all its "
        "guarantees.",
        restarts=False,
    )

    @property
    def deadline_seconds(self) -> float | None:
        """The deadline in seconds; None for auto."""
        return None if self.progress_deadline == "auto" else float(duration_seconds(self.progress_deadline))
