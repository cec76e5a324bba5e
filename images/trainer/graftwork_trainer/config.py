"""What one run is asked to do: GRAFTWORK_RUN, read and checked (docs/design/contracts.md, section 6)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftwork_trainer.errors import invalid_setting

API_VERSION = "graftwork.dev/run/v1"
ALIAS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
FORMATS = ("auto", "messages", "instruct", "prompt_completion", "text")
METHODS = ("qlora", "lora")
SCHEDULERS = ("cosine", "linear", "constant")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Job:
    """The FineTuneJob that asked for this run."""

    namespace: str
    name: str
    uid: str
    run: int


@dataclass(frozen=True)
class Dataset:
    """Where the data lies and how it is to be read; `validation` is a share of the examples."""

    path: Path
    source: str
    format: str
    validation: float


@dataclass(frozen=True)
class Lora:
    """Shape of the adapter; `target_modules` is "all-linear" or a list of module names."""

    rank: int
    alpha: int
    dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """How the adapter is trained. `batch_size` None is "auto"; `max_steps` None means that `epochs` decides."""

    epochs: float
    learning_rate: float
    batch_size: int | None
    max_seq_length: int
    packing: bool
    warmup_ratio: float
    scheduler: str
    seed: int
    max_steps: int | None


@dataclass(frozen=True)
class Run:
    """Everything that a run is told."""

    job: Job
    base_path: Path
    base_source: str
    dataset: Dataset
    method: str
    lora: Lora
    training: Training
    min_improvement: float
    alias: str
    scratch: Path
    progress_port: int


class _Fields:
    """One object of the run; each accessor names field, value, rule and remedy when it refuses."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise invalid_setting(path or "GRAFTWORK_RUN", value, "must be a JSON object", "see docs/design/schemas/run.schema.json")
        self.values, self.path = value, path

    def _get(self, name: str) -> tuple[str, Any]:
        field = f"{self.path}.{name}" if self.path else name
        if name not in self.values:
            raise invalid_setting(field, None, "is required", "see docs/design/schemas/run.schema.json")
        return field, self.values[name]

    def object(self, name: str) -> _Fields:
        field, value = self._get(name)
        return _Fields(value, field)

    def raw(self, name: str) -> Any:
        return self._get(name)[1]

    def text(self, name: str) -> str:
        field, value = self._get(name)
        if not isinstance(value, str) or not value:
            raise invalid_setting(field, value, "must be a text that is not empty", "fill it in")
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        field, value = self._get(name)
        if value not in allowed:
            raise invalid_setting(field, value, "is not one of the known values", f"use one of {', '.join(allowed)}")
        return str(value)

    def flag(self, name: str) -> bool:
        field, value = self._get(name)
        if not isinstance(value, bool):
            raise invalid_setting(field, value, "must be true or false", "write it without quotation marks")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        field, value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid_setting(field, value, f"must be a whole number from {low} to {high}", "choose a number in that range")
        return value

    def number(self, name: str, low: float, high: float, *, above: bool = False, below: bool = False) -> float:
        field, value = self._get(name)
        rule = f"must be a number {'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:g}"
        wrong = isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high
        if wrong or (above and value == low) or (below and value == high):
            raise invalid_setting(field, value, rule, "choose a number in that range")
        return float(value)


def parse_run(text: str) -> Run:
    """Return the run that `text` (the value of GRAFTWORK_RUN) describes; raises RunError (exit 65) that names the field."""
    if not text:
        raise invalid_setting(
            "GRAFTWORK_RUN", "", "the environment variable is not set", "the operator sets it; see docs/design/contracts.md, section 6"
        )
    try:
        document = json.loads(text)
    except ValueError as error:
        raise invalid_setting("GRAFTWORK_RUN", text, f"is not JSON ({error})", "see docs/design/contracts.md, section 6") from error
    top = _Fields(document, "")
    top.choice("apiVersion", (API_VERSION,))
    base, publish = top.object("base"), top.object("publish")
    return Run(
        job=_job(top.object("job")),
        base_path=Path(base.text("path")),
        base_source=base.text("source"),
        dataset=_dataset(top.object("dataset")),
        method=top.choice("method", METHODS),
        lora=_lora(top.object("lora")),
        training=_training(top.object("training")),
        min_improvement=top.object("evaluation").object("gate").number("minImprovement", -1000, 1),
        alias=_alias(publish.text("alias")),
        scratch=Path(top.text("scratch")),
        progress_port=top.integer("progressPort", 0, 65535),
    )


def _job(fields: _Fields) -> Job:
    return Job(fields.text("namespace"), fields.text("name"), fields.text("uid"), fields.integer("run", 1, 10**9))


def _dataset(fields: _Fields) -> Dataset:
    return Dataset(Path(fields.text("path")), fields.text("source"), fields.choice("format", FORMATS), fields.number("validation", 0, 0.9))


def _lora(fields: _Fields) -> Lora:
    return Lora(
        rank=fields.integer("rank", 1, 512),
        alpha=fields.integer("alpha", 1, 65536),
        dropout=fields.number("dropout", 0, 1, below=True),
        target_modules=_target_modules(fields.raw("targetModules")),
    )


def _target_modules(value: Any) -> Literal["all-linear"] | tuple[str, ...]:
    if value == ALL_LINEAR:
        return "all-linear"
    if isinstance(value, list) and value and all(isinstance(name, str) and name for name in value):
        return tuple(dict.fromkeys(value))
    rule = f'must be "{ALL_LINEAR}" or a list of module names'
    raise invalid_setting("lora.targetModules", value, rule, 'for example ["q_proj", "v_proj"]')


def _training(fields: _Fields) -> Training:
    return Training(
        epochs=fields.number("epochs", 0, 10_000, above=True),
        learning_rate=fields.number("learningRate", 0, 1, above=True),
        batch_size=None if fields.raw("batchSize") == "auto" else fields.integer("batchSize", 1, 4096),
        max_seq_length=fields.integer("maxSeqLength", 8, 1_048_576),
        packing=fields.flag("packing"),
        warmup_ratio=fields.number("warmupRatio", 0, 1),
        scheduler=fields.choice("scheduler", SCHEDULERS),
        seed=fields.integer("seed", 0, 2**32 - 1),
        max_steps=None if fields.raw("maxSteps") is None else fields.integer("maxSteps", 1, 10**9),
    )


def _alias(value: str) -> str:
    if not ALIAS.fullmatch(value) or len(value) > 40 or "--" in value:
        rule = "must be lower-case letters, digits and single hyphens, at most 40 characters"
        raise invalid_setting("publish.alias", value, rule, "for example support-tone")
    return value
