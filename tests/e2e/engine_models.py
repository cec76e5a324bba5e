"""Models as their configurations describe them, for vLLM to say what it makes of them: nothing of them has weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from graftwork.api import LLMDeployment
from graftwork.facts.inspected import ModelFacts, Resolved, SourceFiles
from graftwork.plan import engine, mode, model_combinations
from graftwork_agent import model_facts

from tests.e2e.service import deployment

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
LLAVA: dict[str, Any] = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "torch_dtype": "bfloat16",
    "image_token_index": 999,
    "text_config": {**QWEN3, "model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    },
}
"""One that sees, of those that need no torchvision, which the engine's image for CPUs has not."""
POOLING, OTHER = "sentence_transformers.models.Pooling", "custom_st.Transformer"
DIGEST = "sha256:" + "1" * 64


@dataclass(frozen=True)
class Case:
    """A model and the engine's fields. `modules`: types of the modules of sentence-transformers; none: no such model."""

    config: dict[str, Any]
    modules: tuple[str, ...] = ()
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Return what of the model vLLM reads before its weights."""
        found = {"config.json": json.dumps(self.config)}
        if self.modules:
            listed = [{"idx": index, "name": str(index), "path": f"{index}_Pooling", "type": kind} for index, kind in enumerate(self.modules)]
            pooling = {f"{index}_Pooling/config.json": json.dumps({"pooling_mode_lasttoken": True}) for index in range(len(self.modules))}
            found |= {"modules.json": json.dumps(listed), **pooling}
        return found

    @property
    def facts(self) -> ModelFacts:
        """Return what an inspection says of it."""
        return ModelFacts(
            fingerprint=DIGEST,
            architecture=self.config["architectures"][0],
            parameters=1,
            weights_bytes=2,
            quantization=model_facts.quantization(self.config),
            quantization_file=False,
            task=model_facts.task(self.config, set(self.files)),
            pooling_module=POOLING in self.modules if self.modules else None,
        )

    @property
    def deployment(self) -> LLMDeployment:
        """Return the LLMDeployment that serves it on a CPU."""
        return LLMDeployment.from_object(deployment("x", engine={"maxModelLen": 512, **self.engine}))

    @property
    def arguments(self) -> list[str]:
        """Return vLLM's command line as the operator writes it."""
        return engine.arguments(self.deployment, mode.of_facts(self.deployment, self.facts))[2:]

    @property
    def refused(self) -> str:
        """Return why the operator refuses it; empty: it does not."""
        files = SourceFiles(count=1, bytes=1, largest_bytes=1, digest=DIGEST)
        found = model_combinations.problem(self.deployment, Resolved(key="k", source="s", revision="a" * 40, files=files, facts=self.facts))
        return found.message if found else ""

    @property
    def runner(self) -> str:
        """Return the runner that vLLM should choose for it."""
        return "pooling" if mode.task(self.deployment, self.facts) in mode.POOLING else "generate"


def quantized(method: str | None, wanted: str = "", **settings: Any) -> Case:
    """Return a case of weights that were quantized by a method, and of engine.quantization."""
    config = QWEN3 if method is None else {**QWEN3, "quantization_config": {"quant_method": method, **settings}}
    return Case(config, engine={"quantization": wanted, "dtype": "bfloat16"} if wanted else {"dtype": "bfloat16"})


FOUR_BIT: dict[str, Any] = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True, "zero_point": True, "version": "gemm"}
TASKS = (
    Case(QWEN3),
    Case(QWEN3, (POOLING,)),
    Case(QWEN3, (OTHER,)),
    Case({**QWEN3, "architectures": ["Qwen3Model"]}),
    Case({**QWEN3, "architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}),
    Case(QWEN3, engine={"args": {"runner": "pooling"}}),
    Case(QWEN3, (POOLING,), engine={"args": {"runner": "generate"}}),
)
METHODS = (
    *(quantized("gptq", wanted, **FOUR_BIT) for wanted in ("", "gptq", "gptq_marlin", "auto_gptq", "moe_wna16", "humming", "awq", "fp8")),
    *(quantized("awq", wanted, **FOUR_BIT) for wanted in ("", "awq", "awq_marlin", "auto_awq", "gptq")),
    *(quantized("fp8", wanted, activation_scheme="dynamic") for wanted in ("", "fp8", "deepseek_v4_fp8", "fp8_per_tensor", "compressed-tensors")),
    *(quantized("modelopt", wanted, quant_algo="FP8", ignore=[]) for wanted in ("", "modelopt", "fp8")),
    *(quantized("auto-round", wanted, **FOUR_BIT) for wanted in ("", "awq")),
    *(quantized(method, bits=4) for method in ("bitsandbytes", "hqq", "fbgemm_fp8")),
    *(quantized(None, wanted) for wanted in ("fp8", "fp8_per_block", "mxfp4", "awq", "gptq_marlin", "compressed-tensors", "quark", "torchao", "inc")),
)
