"""The terms of a GPU's memory against values that were computed by hand."""

from __future__ import annotations

import pytest
from graftwork.facts.inspected import ModelFacts
from graftwork.sizing import memory
from graftwork.sizing.memory import GIB, Asked

from tests.unit.sizing.models import DEEPSEEK_V3, GPT2_LIKE, LLAMA_3_8B, QWEN3_06B, facts

WEIGHTS: list[tuple[str, ModelFacts, Asked, int]] = [
    ("16 bits", LLAMA_3_8B, Asked(), 8_030_261_248 * 2),
    ("32 bits asked for", LLAMA_3_8B, Asked(dtype="float32"), 8_030_261_248 * 4),
    ("32 bits in the files are 16 in the engine", GPT2_LIKE, Asked(), 124_439_808 * 2),
    ("four GPUs share each layer", LLAMA_3_8B, Asked(tensor=4), 4_015_130_624),
    ("two groups of two", LLAMA_3_8B, Asked(tensor=2, pipeline=2), 4_015_130_624),
    ("quantized files are what they are", DEEPSEEK_V3, Asked(tensor=8), 86_073_340_970),
    # 8030261248 - 2 x 128256 x 4096 = 6979588096 parameters of one byte, 1050673152 of two
    ("quantized while loading", LLAMA_3_8B, Asked(quantization="fp8"), 6_979_588_096 + 2 * 1_050_673_152),
    ("with scales", LLAMA_3_8B, Asked(quantization="mxfp4"), 6_979_588_096 * 17 // 32 + 2 * 1_050_673_152),
    ("a count that is not known", facts(architecture="", parameters=0, weightsBytes=600), Asked(), 600),
]


@pytest.mark.parametrize(("model", "asked", "size"), [case[1:] for case in WEIGHTS], ids=[case[0] for case in WEIGHTS])
def test_weights_of_one_gpu(model: ModelFacts, asked: Asked, size: int) -> None:
    assert memory.weights(model, asked).bytes == size


TOKENS: list[tuple[str, ModelFacts, Asked, int | None]] = [
    ("8 of 32 heads have keys and values", LLAMA_3_8B, Asked(), 2 * 32 * 8 * 128 * 2),
    ("head_dim is not hidden / heads", QWEN3_06B, Asked(), 2 * 28 * 8 * 128 * 2),
    ("all heads have their own", facts(architecture="", parameters=1, weightsBytes=1, layers=2, heads=4, kvHeads=4, headDim=8), Asked(), 256),
    ("four GPUs have two heads each", LLAMA_3_8B, Asked(tensor=4), 32768),
    ("sixteen GPUs repeat heads", LLAMA_3_8B, Asked(tensor=16), 2 * 32 * 1 * 128 * 2),
    ("three groups have eleven layers at most", LLAMA_3_8B, Asked(pipeline=3), 2 * 11 * 8 * 128 * 2),
    ("latent", DEEPSEEK_V3, Asked(), 61 * (512 + 64) * 2),
    ("latent is on every GPU whole", DEEPSEEK_V3, Asked(tensor=8, kv_dtype="fp8"), 35_136),
    ("fp8", LLAMA_3_8B, Asked(kv_dtype="fp8_e4m3"), 65_536),
    ("four bits and a half", LLAMA_3_8B, Asked(kv_dtype="nvfp4"), 36_864),
    ("32 bits", LLAMA_3_8B, Asked(dtype="float32"), 262_144),
    ("a type whose bits are not known", LLAMA_3_8B, Asked(kv_dtype="turboquant_4bit_nc"), None),
    ("no layers", GPT2_LIKE, Asked(), None),
    ("no heads", facts(architecture="", parameters=1, weightsBytes=1, layers=2), Asked(), None),
]


@pytest.mark.parametrize(("model", "asked", "size"), [case[1:] for case in TOKENS], ids=[case[0] for case in TOKENS])
def test_kv_cache_of_a_token(model: ModelFacts, asked: Asked, size: int | None) -> None:
    assert memory.kv_bytes_per_token(model, asked).bytes == size


@pytest.mark.parametrize(
    ("model", "asked", "size"),
    [
        (LLAMA_3_8B, Asked(), GIB),
        (LLAMA_3_8B, Asked(context=4096), GIB // 2),
        (QWEN3_06B, Asked(), 40_960 * 114_688),
        (DEEPSEEK_V3, Asked(tensor=8), 163_840 * 70_272),
        (facts(architecture="", parameters=1, weightsBytes=1, layers=2, heads=4, kvHeads=4, headDim=8), Asked(), None),
        (GPT2_LIKE, Asked(context=1024), None),
    ],
)
def test_kv_cache_of_the_longest_context(model: ModelFacts, asked: Asked, size: int | None) -> None:
    assert memory.kv_cache(model, asked).bytes == size


# Llama-3-8B: (8030261248 - 128256 x 4096 - 32 x 4096 x 10240) / (3 x 4096 x 32) = 15672 wide at most; it is 14336.
# A layer and rank: query and output 2 x (4096 + 4096), key and value 2 x (4096 + 1024), MLP 3 x (4096 + 15672) = 85928
LLAMA_SLOT = (32 * 85_928 + 2 * (128_256 + 4096)) * 16 * 2


@pytest.mark.parametrize(
    ("model", "asked", "size"),
    [
        (LLAMA_3_8B, Asked(slots=8, rank=16), 8 * LLAMA_SLOT),
        (LLAMA_3_8B, Asked(slots=1, rank=64), 4 * LLAMA_SLOT),
        # two GPUs: 2 x (4096 + 2048) + 2 x (4096 + 512) + 3 x (4096 + 7836) = 57300
        (LLAMA_3_8B, Asked(tensor=2, slots=1, rank=16), (32 * 57_300 + 264_704) * 32),
        (LLAMA_3_8B, Asked(pipeline=2, slots=1, rank=16), (16 * 85_928 + 264_704) * 32),
        # (751632384 - 151936 x 1024 - 28 x 1024 x 6144) / (3 x 1024 x 28) = 4881: 10240 + 3 x (1024 + 4881) = 27955
        (QWEN3_06B, Asked(slots=8, rank=16), 8 * (28 * 27_955 + 2 * (151_936 + 1024)) * 32),
        (DEEPSEEK_V3, Asked(slots=8, rank=16), None),
        (GPT2_LIKE, Asked(slots=8, rank=16), None),
        # a mixture of experts: Qwen3-30B-A3B has 128 of them
        (LLAMA_3_8B.model_copy(update={"parameters": 46_702_792_704}), Asked(slots=8, rank=16), None),
        (LLAMA_3_8B.model_copy(update={"quantization": "awq"}), Asked(slots=8, rank=16), None),
    ],
)
def test_lora_slots(model: ModelFacts, asked: Asked, size: int | None) -> None:
    term = memory.lora_slots(model, asked)
    assert term.bytes == size
    assert term.how


def test_the_need_is_the_sum_and_every_term_has_its_arithmetic() -> None:
    parts = memory.terms(LLAMA_3_8B, Asked(slots=8, rank=16))
    assert [part.name for part in parts] == ["weights", "KV cache", "LoRA slots", "engine"]
    assert memory.needed(parts) == 16_060_522_496 + GIB + 8 * LLAMA_SLOT + 2 * GIB
    assert all(part.how for part in parts)
