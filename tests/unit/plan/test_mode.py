"""What follows for the engine from what a model is: its task as vLLM chooses it, and whether it takes adapters."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.engines import TABLES
from graftwork.facts.inspected import ModelFacts
from graftwork.plan import engine, mode
from graftwork.plan.mode import ADAPTERS_OFF, ADAPTERS_ON, Mode
from graftwork.plan.revisions import template_hash


def deployment(**spec: Any) -> LLMDeployment:
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "s3://models/tiny"}, **spec}})


def facts(architecture: str, **found: Any) -> ModelFacts:
    return ModelFacts(fingerprint="sha256:" + "1" * 64, architecture=architecture, parameters=1, weights_bytes=2, **found)


PLAIN = deployment()
IMAGE = deployment(engine={"image": "mine:1"})

MODES: list[tuple[str, dict[str, Any], Mode]] = [
    ("Qwen3ForCausalLM", {}, ADAPTERS_ON),
    ("BertModel", {"task": "embed"}, ADAPTERS_ON),
    ("BertForSequenceClassification", {"task": "classify"}, Mode(without_lora="BertForSequenceClassification")),
    ("FalconMambaForCausalLM", {}, Mode(without_lora="FalconMambaForCausalLM")),
    ("MadeUpForCausalLM", {}, ADAPTERS_ON),
    ("Qwen3ForCausalLM", {"task": "embed", "pooling_module": True}, ADAPTERS_ON),
    ("Qwen3ForCausalLM", {"task": "embed", "pooling_module": None}, ADAPTERS_ON),
    ("Qwen3ForCausalLM", {"task": "embed", "pooling_module": False}, Mode(runner="pooling")),
    ("BertModel", {"task": "embed", "pooling_module": False}, ADAPTERS_ON),
    ("NomicBertModel", {"task": "embed", "pooling_module": False}, Mode(without_lora="NomicBertModel")),
]


@pytest.mark.parametrize(("architecture", "found", "expected"), MODES, ids=str)
def test_the_mode_follows_from_the_facts(architecture: str, found: dict[str, Any], expected: Mode) -> None:
    assert mode.of_facts(PLAIN, facts(architecture, **found)) == expected
    assert mode.of_facts(IMAGE, facts(architecture, **found)) == ADAPTERS_ON, "what another version takes nobody knows"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"model-impl": "transformers"}, ADAPTERS_ON),
        ({"model_impl": "vllm"}, Mode(without_lora="FalconMambaForCausalLM")),
        ({"hf-overrides": '{"architectures": ["Qwen3ForCausalLM"]}'}, ADAPTERS_ON),
        ({"hf-overrides.architectures": '["NomicBertModel"]'}, Mode(without_lora="NomicBertModel")),
        ({"hf-overrides": "no JSON"}, Mode(without_lora="FalconMambaForCausalLM")),
        ({"hf-config-path": "/elsewhere"}, ADAPTERS_ON),
    ],
    ids=str,
)
def test_flags_that_change_the_class_count(args: dict[str, Any], expected: Mode) -> None:
    assert mode.of_facts(deployment(engine={"args": args}), facts("FalconMambaForCausalLM")) == expected


@pytest.mark.parametrize("name", ["runner", "convert"])
def test_who_says_the_task_gets_no_second_word(name: str) -> None:
    said = deployment(engine={"args": {name: "auto"}})
    assert mode.of_facts(said, facts("Qwen3ForCausalLM", task="embed", pooling_module=False)) == ADAPTERS_ON


TASKS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("Qwen3ForCausalLM", {}, {}, "generate"),
    ("Qwen3ForCausalLM", {"task": "embed", "pooling_module": True}, {}, "embed"),
    ("Qwen3ForCausalLM", {"task": "embed"}, {}, "embed"),
    ("Qwen3Model", {"task": "embed"}, {}, "embed"),
    ("UltravoxModel", {"task": "embed"}, {}, "generate"),
    ("InternVLChatModel", {"task": "embed"}, {}, "generate"),
    ("Qwen2VLForConditionalGeneration", {}, {}, "generate"),
    ("BertForMaskedLM", {"task": "embed"}, {}, "embed"),
    ("Qwen3ForSequenceClassification", {"task": "classify"}, {}, "classify"),
    ("XLMRobertaForSequenceClassification", {"task": "classify"}, {}, "classify"),
    ("InternLM2ForRewardModel", {"task": "classify"}, {}, "embed"),
    ("WhisperForConditionalGeneration", {"task": "transcribe"}, {}, "transcribe"),
    ("CohereAsrForConditionalGeneration", {}, {}, "transcribe"),
    ("Qwen3ForCausalLM", {}, {"runner": "pooling"}, "embed"),
    ("Qwen3ForCausalLM", {}, {"convert": "classify"}, "classify"),
    ("LlamaModel", {"task": "embed"}, {"runner": "generate"}, "generate"),
]


@pytest.mark.parametrize(("architecture", "found", "args", "expected"), TASKS, ids=str)
def test_the_task_is_the_one_that_vllm_chooses(architecture: str, found: dict[str, Any], args: dict[str, Any], expected: str) -> None:
    assert mode.task(deployment(engine={"args": args}), facts(architecture, **found)) == expected


def test_an_architecture_without_a_class_is_served_by_that_of_its_base_model() -> None:
    assert TABLES.architecture("Qwen3ForSequenceClassification") is None
    assert TABLES.served_as("Qwen3ForSequenceClassification") == "Qwen3ForCausalLM"
    assert TABLES.served_as("FalconMambaForSequenceClassification") == "FalconMambaForCausalLM"
    assert mode.of_architecture(PLAIN, "FalconMambaForSequenceClassification").without_lora == "FalconMambaForSequenceClassification"


def test_the_usual_mode_adds_nothing_to_the_hash_and_another_does() -> None:
    usual = template_hash(PLAIN)
    assert template_hash(PLAIN, mode=Mode()) == usual == "c723d04c451b6633"
    assert len({usual, template_hash(PLAIN, mode=ADAPTERS_OFF), template_hash(PLAIN, mode=Mode(runner="pooling"))}) == 3


def test_without_adapters_neither_their_limits_nor_the_architectures_name_count() -> None:
    more = deployment(adapters={"maxLoaded": 9, "maxRank": 64})
    assert template_hash(more, mode=Mode(without_lora="X")) == template_hash(PLAIN, mode=ADAPTERS_OFF)


def test_without_adapters_the_engine_hears_of_none() -> None:
    bare = engine.arguments(PLAIN, Mode(without_lora="X", runner="pooling"))
    assert [item for item in bare if "lora" in item] == []
    assert "--runner=pooling" in bare
    removed = [item for item in engine.arguments(PLAIN) if item not in bare]
    assert removed == ["--enable-lora", "--max-loras=8", "--max-lora-rank=16", "--max-cpu-loras=256"]
    named = {item["name"] for item in engine.environment(PLAIN)} - {item["name"] for item in engine.environment(PLAIN, ADAPTERS_OFF)}
    assert named == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING"}


def test_what_was_detected_is_one_line() -> None:
    assert (
        mode.said(PLAIN, facts("Qwen3ForCausalLM", quantization="gptq"))
        == "serves generate; quantization auto: the engine reads it in the model's files"
    )
    assert mode.said(PLAIN, facts("BertForSequenceClassification", task="classify")) == (
        f"serves classify; adapters are off, since vLLM {TABLES.version} has no LoRA for BertForSequenceClassification"
    )
    assert mode.said(PLAIN, facts("Qwen2_5_VLForConditionalGeneration")) == "serves generate (multimodal)"
