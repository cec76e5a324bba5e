"""Facts of known models, as an inspection finds them: config.json and the headers of the safetensors files of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from graftwork.facts.inspected import ModelFacts, Resolved

FINGERPRINT = "sha256:" + "1" * 64


def facts(**known: Any) -> ModelFacts:
    return ModelFacts.model_validate({"fingerprint": FINGERPRINT, **known})


LLAMA_3_8B = facts(  # meta-llama/Meta-Llama-3-8B
    architecture="LlamaForCausalLM",
    parameters=8_030_261_248,
    weightsBytes=16_060_522_496,
    maxModelLen=8192,
    layers=32,
    hiddenSize=4096,
    heads=32,
    kvHeads=8,
    headDim=128,
    vocabSize=128_256,
    dtype="bfloat16",
)
QWEN3_06B = facts(  # Qwen/Qwen3-0.6B: its file has the head beside the embedding, although they are the same
    architecture="Qwen3ForCausalLM",
    parameters=751_632_384,
    weightsBytes=1_503_264_768,
    maxModelLen=40_960,
    layers=28,
    hiddenSize=1024,
    heads=16,
    kvHeads=8,
    headDim=128,
    vocabSize=151_936,
    dtype="bfloat16",
)
DEEPSEEK_V3 = facts(  # deepseek-ai/DeepSeek-V3: latent attention, a mixture of experts, blocks of fp8
    architecture="DeepseekV3ForCausalLM",
    parameters=684_531_386_000,
    weightsBytes=688_586_727_753,
    maxModelLen=163_840,
    layers=61,
    hiddenSize=7168,
    heads=128,
    kvHeads=128,
    headDim=56,
    kvLoraRank=512,
    vocabSize=129_280,
    dtype="bfloat16",
    quantization="fp8",
)
GPT2_LIKE = facts(architecture="GPT2LMHeadModel", parameters=124_439_808, weightsBytes=497_759_232, dtype="float32")


def resolved(model: ModelFacts, files_bytes: int | None = None) -> Resolved:
    size = files_bytes if files_bytes is not None else model.weights_bytes
    return Resolved.model_validate(
        {
            "key": "k",
            "source": "hf://acme/model",
            "revision": "a" * 40,
            "files": {"count": 1, "bytes": size, "largestBytes": size, "digest": FINGERPRINT},
            "facts": model.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
    )
