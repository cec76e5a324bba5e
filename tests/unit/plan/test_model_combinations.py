"""Settings that a model rules out. What vLLM itself says of them: tests/e2e/test_73_engine.py asks it with the same rows."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.facts.inspected import ModelFacts, Resolved, SourceFiles
from graftwork.plan import model_combinations
from graftwork.reasons import Reason

DIGEST = "sha256:" + "1" * 64
TEXT = {"reasoning": {"parser": "qwen3"}, "toolCalling": {"parser": "hermes"}}


def told(found: dict[str, Any], count: int | None = None, **engine: Any) -> str:
    accelerator = {"types": ["cpu"]} if count == 0 else {"count": count}
    spec = {"model": {"source": "hf://acme/tiny"}, "accelerator": accelerator, "engine": engine}
    deployment = LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec})
    facts = ModelFacts(**{"fingerprint": DIGEST, "architecture": "Qwen3ForCausalLM", "parameters": 1, "weights_bytes": 2, **found})
    files = SourceFiles(count=1, bytes=1, largest_bytes=1, digest=DIGEST)
    problem = model_combinations.problem(deployment, Resolved(key="k", source="hf://acme/tiny", revision="a" * 40, files=files, facts=facts))
    assert problem is None or (problem.reason is Reason.UNSUPPORTED_COMBINATION and problem.needs_user)
    return problem.message if problem else ""


def by(method: str) -> dict[str, Any]:
    return {"quantization": method}


PLAIN: dict[str, Any] = {"quantization_file": False}
REFUSED: list[tuple[dict[str, Any], int | None, dict[str, Any], str, str]] = [
    (
        by("gptq"),
        None,
        {"quantization": "awq"},
        "quantization is awq, and the weights of Qwen3ForCausalLM are quantized by gptq",
        "leave quantization out",
    ),
    (by("awq"), None, {"quantization": "fp8"}, "quantized by awq", "leave quantization out"),
    (by("fp8"), None, {"quantization": "fp8_per_tensor"}, "quantized by fp8", "leave quantization out"),
    (by("compressed-tensors"), None, {"quantization": "fp8"}, "quantized by compressed-tensors", "a model that is not quantized"),
    (by("compressed_tensors"), None, {"quantization": "gptq"}, "quantized by compressed-tensors", "leave"),
    (by("mxfp4"), None, {"quantization": "mxfp8"}, "quantized by mxfp4", "leave"),
    (by("awq"), 0, {"quantization": "awq_marlin"}, "quantized by awq", "leave"),
    (by("bitsandbytes"), None, {}, "quantized by bitsandbytes, which vLLM 0.32.0 does not read", "compressed-tensors, gptq, awq or fp8"),
    (by("hqq"), None, {}, "quantized by hqq", "serve the model that they were made of"),
    (by("fbgemm_fp8"), None, {}, "quantized by fbgemm_fp8", "serve the model"),
    (PLAIN, None, {"quantization": "awq"}, "quantization is awq, which reads weights that were quantized before", "fp8_per_tensor"),
    (PLAIN, None, {"quantization": "compressed-tensors"}, "those of Qwen3ForCausalLM are not", "leave it out"),
    ({}, None, {"quantization": "quark"}, "those of Qwen3ForCausalLM are not", "leave it out"),
    (by("mxfp8"), 0, {}, "quantized by mxfp8, for which vLLM 0.32.0 has no kernel on CPUs", "serve it on GPUs"),
    (by("modelopt_fp4"), 0, {}, "quantized by modelopt_fp4, for which", "serve it on GPUs"),
    ({}, 0, {"quantization": "mxfp8"}, "spec.engine.quantization is mxfp8, for which", "serve it on GPUs"),
    (
        {"architecture": "BertModel", "task": "embed"},
        None,
        TEXT,
        "spec.engine.reasoning and spec.engine.toolCalling are for models that generate text, and BertModel is served for embed",
        "remove them",
    ),
    (
        {"architecture": "Qwen3ForSequenceClassification", "task": "classify"},
        None,
        {"speculative": {"method": "ngram", "tokens": 3}},
        "spec.engine.speculative is for models that generate text",
        "remove it",
    ),
    ({"heads": 6}, 4, {}, "Qwen3ForCausalLM has 6 attention heads, which 4 GPUs cannot share", "spec.engine.parallelism.tensor"),
]
TAKEN: list[tuple[dict[str, Any], int | None, dict[str, Any]]] = [
    ({}, None, {}),
    (by("gptq"), None, {}),
    (by("gptq"), None, {"quantization": "gptq"}),
    (by("gptq"), None, {"quantization": "gptq_marlin"}),
    (by("GPTQ"), None, {"quantization": "moe_wna16"}),
    (by("awq"), None, {"quantization": "awq_marlin"}),
    (by("awq"), 0, {"quantization": "awq"}),
    (by("fp8"), 0, {}),
    (by("compressed_tensors"), None, {"quantization": "compressed-tensors"}),
    (by("bitsandbytes"), None, {"quantization": "humming"}),
    (by("bitsandbytes"), None, {"image": "mine:1"}),
    (by("bitsandbytes"), None, {"args": {"hf-overrides": "{}"}}),
    (by("fbgemm_fp8"), None, {"args": {"allow_deprecated_quantization": True}}),
    (by("modelopt"), None, {"quantization": "fp8"}),
    (by("auto-round"), None, {"quantization": "awq"}),
    (by("mxfp8"), None, {}),
    (PLAIN, None, {"quantization": "fp8"}),
    (PLAIN, None, {"quantization": "mxfp4"}),
    (PLAIN, None, {"quantization": "modelopt"}),
    ({}, None, {"quantization": "awq"}),
    ({"quantization_file": True}, None, {"quantization": "gptq"}),
    ({}, None, TEXT),
    ({"architecture": "WhisperForConditionalGeneration", "task": "transcribe"}, None, TEXT),
    ({"heads": 8}, 4, {}),
    ({"heads": 6}, 4, {"parallelism": {"tensor": 2, "data": 2}}),
    ({"heads": 6}, 4, {"args": {"tensor-parallel-size": 2}}),
]


@pytest.mark.parametrize(("found", "count", "engine", "reason", "remedy"), REFUSED, ids=str)
def test_what_the_model_rules_out_is_refused_with_reason_and_remedy(
    found: dict[str, Any], count: int | None, engine: dict[str, Any], reason: str, remedy: str
) -> None:
    said = told(found, count, **engine)
    assert reason in said
    assert remedy in said


@pytest.mark.parametrize(("found", "count", "engine"), TAKEN, ids=str)
def test_what_may_work_is_left_to_the_engine(found: dict[str, Any], count: int | None, engine: dict[str, Any]) -> None:
    assert told(found, count, **engine) == ""
