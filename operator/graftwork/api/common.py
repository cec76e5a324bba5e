"""Parts of a spec that more than one kind has."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from graftwork.api import cel
from graftwork.api.base import Model, field
from graftwork.names import ALIAS_MAX_LENGTH, ALIAS_PATTERN

INT_OR_STRING: dict[str, Any] = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}

NAME = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
"""A name of a Kubernetes object, or nothing."""

DURATION_BOUNDS: dict[str, Any] = {"max_length": 16, "pattern": r"^([0-9]{1,6}[hms])+$"}
_SECONDS = {"h": 3600, "m": 60, "s": 1}

ALIAS_BOUNDS: dict[str, Any] = {"min_length": 1, "max_length": ALIAS_MAX_LENGTH, "pattern": ALIAS_PATTERN, "rules": (cel.ALIAS,)}

Label = Annotated[str, Field(max_length=63)]
AnnotationText = Annotated[str, Field(max_length=4096)]
Quantity = Annotated[int | str, WithJsonSchema({**INT_OR_STRING, "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", "maxLength": 32})]


def duration_seconds(text: str) -> int:
    """Return the seconds of a duration such as 90m or 1h30m."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", text))


class Accelerator(Model):
    """Where the work runs: on GPUs of a node, or on its CPU."""

    RULES = (
        cel.Rule(
            "!has(self.types) || !('cpu' in self.types) || !has(self.count) || self.count == 0",
            "accelerator.count is a number of GPUs: leave it out (or 0) with types [cpu], or remove cpu from types",
        ),
        cel.Rule(
            "!has(self.count) || self.count >= 1 || (has(self.types) && 'cpu' in self.types)",
            "accelerator.count 0 means no GPU: write types [cpu] to run without one",
        ),
    )

    types: tuple[Literal["cpu"], ...] = field(
        (),
        doc="Kinds of accelerator, in order of preference. Empty: any node with free GPUs. `cpu`: no GPU.",
        restarts=True,
        max_length=8,
    )
    count: int | None = field(
        None,
        doc="GPUs per replica or run (resource `nvidia.com/gpu`). Left out: 1, or none with `types: [cpu]`.",
        unit="GPUs",
        restarts=True,
        ge=0,
        le=16,
    )

    @property
    def cpu(self) -> bool:
        """Whether the work runs without a GPU."""
        return "cpu" in self.types

    @property
    def gpus(self) -> int:
        """GPUs to request per pod."""
        if self.cpu:
            return 0
        return 1 if self.count is None else self.count


class EnvVar(Model):
    """One environment variable with a literal value."""

    name: str = field(doc="Name of the variable.", restarts=True, min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    value: str = field("", doc="Its value.", restarts=True, max_length=4096)


class Toleration(Model):
    """A taint that the pods tolerate; the same fields as a pod's tolerations."""

    key: str | None = field(None, doc="Key of the taint. Left out with operator Exists: every taint.", restarts=True, max_length=317)
    operator: Literal["Exists", "Equal"] | None = field(None, doc="`Exists`, or `Equal` (what Kubernetes takes when left out).", restarts=True)
    value: str | None = field(None, doc="Value of the taint, for operator Equal.", restarts=True, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = field(
        None, doc="Effect of the taint. Left out: every effect.", restarts=True
    )
    toleration_seconds: int | None = field(None, doc="How long a NoExecute taint is tolerated.", unit="seconds", restarts=True, ge=0, le=31_536_000)


class ResourceRequirements(Model):
    """CPU, memory and other resources of the main container. GPUs are asked for by `accelerator`, not here."""

    RULES = (
        cel.Rule(
            "(!has(self.requests) || !('nvidia.com/gpu' in self.requests)) && (!has(self.limits) || !('nvidia.com/gpu' in self.limits))",
            "nvidia.com/gpu is set by accelerator.count; remove it from pod.resources",
        ),
    )

    requests: dict[str, Quantity] = field(default_factory=dict, doc="Requested amounts, by resource.", restarts=True, max_length=16)
    limits: dict[str, Quantity] = field(default_factory=dict, doc="Limits, by resource.", restarts=True, max_length=16)


class PodSettings(Model):
    """What the pods get beside what Graftwork decides."""

    labels: dict[str, Label] = field(default_factory=dict, doc="More labels of the pods.", restarts=True, max_length=32, rules=(cel.OWN_KEYS,))
    annotations: dict[str, AnnotationText] = field(
        default_factory=dict, doc="More annotations of the pods.", restarts=True, max_length=32, rules=(cel.OWN_KEYS,)
    )
    node_selector: dict[str, Label] = field(default_factory=dict, doc="Labels that a node must have.", restarts=True, max_length=32)
    tolerations: tuple[Toleration, ...] = field((), doc="Taints that the pods tolerate.", restarts=True, max_length=32)
    resources: ResourceRequirements = field(
        default_factory=ResourceRequirements,
        doc="Resources of the main container (`vllm` or `trainer`). Of an engine with an `hf://` or `s3://` model, cpu, memory and "
        "ephemeral-storage are computed where they are named here neither as request nor as limit.",
        restarts=True,
    )
    priority_class_name: str = field("", doc="PriorityClass of the pods.", restarts=True, max_length=253, pattern=NAME)
    image_pull_secrets: tuple[Annotated[str, Field(min_length=1, max_length=253, pattern=NAME)], ...] = field(
        (), doc="Names of Secrets of the namespace with registry credentials.", restarts=True, max_length=16
    )
