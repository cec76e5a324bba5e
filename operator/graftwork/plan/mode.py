"""How an engine serves its model, by what is known of the model: for which task, and whether with adapters.

vLLM chooses the task itself (`--runner auto`); only where it would choose wrongly is a flag written. An architecture whose class in vLLM takes no
adapters ends an engine that is started with --enable-lora (v1/worker/lora_model_runner_mixin.py: `X does not support LoRA yet.`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from graftwork.api import LLMDeployment
from graftwork.engines import CLASSIFY, EMBED, GENERATE, TABLES
from graftwork.facts.inspected import ModelFacts
from graftwork.plan import engine_fields

TRANSCRIBE = "transcribe"
POOLING = (EMBED, CLASSIFY)
_RUNNER = ("runner", "convert")
_UNKNOWN = "its architecture"


@dataclass(frozen=True)
class Mode:
    """What of a pod template follows from the model. The default, text with adapters, adds nothing to the template's hash."""

    without_lora: str = ""
    """The architecture that takes no adapters; empty: adapters are on."""
    runner: str = ""
    """--runner, where vLLM's own choice would be wrong."""

    @property
    def hashed(self) -> dict[str, object]:
        """Return what of it counts as part of what a template is made from."""
        return {**({"lora": False} if self.without_lora else {}), **({"runner": self.runner} if self.runner else {})}


ADAPTERS_ON = Mode()
ADAPTERS_OFF = Mode(without_lora=_UNKNOWN)


def of_architecture(deployment: LLMDeployment, architecture: str) -> Mode:
    """Return the mode of a model of which nothing but the architecture is known.

    An image of the spec's own may hold a version that takes adapters where the pinned one does not, so it is started with them; so is a model that
    Transformers' own code serves, whatever its class in vLLM can.
    """
    given = _given(deployment)
    if deployment.spec.engine.image or given.get("model-impl") == "transformers" or "hf-config-path" in given:
        return ADAPTERS_ON
    architecture = _overridden(given.get("hf-overrides")) or architecture
    known = TABLES.architecture(TABLES.served_as(architecture))
    return ADAPTERS_ON if known is None or known.lora else Mode(without_lora=architecture)


def _given(deployment: LLMDeployment) -> dict[str, object]:
    """Return engine.args by flag; parts of one (`hf-overrides.architectures`) as an object."""
    found: dict[str, object] = {}
    for name, value in deployment.spec.engine.args.items():
        head, _, part = name.partition(".")
        flag = engine_fields.flag(head)
        found[flag] = {part: value} if part else value
    return found


def _overridden(overrides: object) -> str:
    """Return the architecture that --hf-overrides names, if it names one; the flag is JSON, and so may be the value of its part."""
    value = _json(overrides)
    named = _json(value.get("architectures")) if isinstance(value, Mapping) else None
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) else ""


def _json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    except ValueError:
        return None


def of_facts(deployment: LLMDeployment, facts: ModelFacts) -> Mode:
    """Return the mode of a model that was inspected."""
    lora = of_architecture(deployment, facts.architecture).without_lora
    return Mode(lora, "pooling" if _taken_for_text(deployment, facts) else "")


def _taken_for_text(deployment: LLMDeployment, facts: ModelFacts) -> bool:
    """Whether vLLM would generate with a model of sentence-transformers: it reads modules.json, and knows only some classes of pooling there.

    config/model.py, _get_default_runner_type, and transformers_utils/config.py, get_pooling_config. Where an inspection of before did not look into
    that file, nothing is changed.
    """
    if facts.task != EMBED or facts.pooling_module is not False or deployment.spec.engine.image:
        return False
    return TABLES.task(facts.architecture) == GENERATE and not _chosen(deployment)


def _chosen(deployment: LLMDeployment) -> dict[str, object]:
    """Return what engine.args say of the task themselves."""
    arguments = deployment.spec.engine.args
    return {flag: arguments[name] for name in arguments if (flag := engine_fields.flag(name)) in _RUNNER}


def task(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """Return what the engine will serve: generate, embed, classify or transcribe, as engine.args or the model say."""
    chosen = _chosen(deployment)
    if chosen.get("convert") in POOLING:
        return str(chosen["convert"])
    known = TABLES.architecture(TABLES.served_as(facts.architecture))
    if chosen.get("runner") == GENERATE:
        return GENERATE
    if (known and known.transcription) or facts.task == TRANSCRIBE:
        return TRANSCRIBE
    meant = TABLES.task(facts.architecture)
    if meant == GENERATE and (chosen.get("runner") == "pooling" or _sentence_transformers(facts)):
        return EMBED
    return meant


def _sentence_transformers(facts: ModelFacts) -> bool:
    """Whether there is a modules.json; inspections of before said `embed` of such a model and of what is called a Model."""
    return facts.pooling_module is not None or (facts.task == EMBED and not facts.architecture.endswith("Model"))


def said(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """Return in one line what was detected and what follows from it, for the status."""
    known = TABLES.architecture(TABLES.served_as(facts.architecture))
    parts = [f"serves {task(deployment, facts)}{' (multimodal)' if known and known.multimodal else ''}"]
    if facts.quantization and not deployment.spec.engine.quantization:
        parts.append("quantization auto: the engine reads it in the model's files")
    found = of_facts(deployment, facts)
    if found.without_lora:
        parts.append(f"adapters are off, since vLLM {TABLES.version} has no LoRA for {found.without_lora}")
    return "; ".join(parts)
