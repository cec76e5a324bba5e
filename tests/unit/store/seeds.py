"""Small adapters and base models on disk, and safetensors files of any dtype, right or wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, HEADS, VOCAB, LAYERS = 16, 24, 32, 2
FINGERPRINT = "sha256:" + "0" * 64
PREFIX = "base_model.model."

Array = Any  # a numpy array of any dtype


def bf16(values: Array) -> tuple[str, Array]:
    """Return values as bfloat16 bits: the upper halves of float32."""
    return "BF16", (np.asarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def f32(values: Array) -> tuple[str, Array]:
    return "F32", np.asarray(values, dtype=np.float32)


def f16(values: Array) -> tuple[str, Array]:
    return "F16", np.asarray(values, dtype=np.float16)


def write_safetensors(path: Path, tensors: dict[str, tuple[str, Array]]) -> None:
    """Write a file as the format says: header length, header, data in the header's order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def make_base(folder: Path, *, seed: int = 0, tie: bool = True, **config: Any) -> Path:
    """Make a base model: embeddings and q_proj, o_proj per layer."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": bf16(random.normal(size=(VOCAB, HIDDEN)))}
    for layer in range(LAYERS):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = bf16(random.normal(size=(HEADS, HIDDEN)))
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"] = bf16(random.normal(size=(HIDDEN, HEADS)))
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = bf16(random.normal(size=(HIDDEN,)))
    write_safetensors(folder / "model.safetensors", tensors)
    text = {
        "architectures": ["Qwen3ForCausalLM"],
        "max_position_embeddings": 2048,
        "tie_word_embeddings": tie,
        "transformers_version": "5.0",
        **config,
    }
    (folder / "config.json").write_text(json.dumps(text))
    return folder


def lora_tensors(rank: int = 4, seed: int = 1) -> dict[str, tuple[str, Array]]:
    """Return LoRA halves for q_proj and o_proj of every layer."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module, given, taken in (("q_proj", HEADS, HIDDEN), ("o_proj", HIDDEN, HEADS)):
            name = f"{PREFIX}model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = bf16(random.normal(size=(rank, taken)))
            tensors[f"{name}.lora_B.weight"] = bf16(random.normal(size=(given, rank)))
    return tensors


def lora_config(rank: int = 4, **fields: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "bias": "none", **fields}


def make_adapter(folder: Path, *, rank: int = 4, seed: int = 1, tensors: dict[str, tuple[str, Array]] | None = None, **config: Any) -> Path:
    """Make an adapter for `make_base`."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(lora_config(rank, **config)))
    write_safetensors(folder / "adapter_model.safetensors", lora_tensors(rank, seed) if tensors is None else tensors)
    return folder


def fields(fingerprint: str = FINGERPRINT, rank: int = 4) -> dict[str, Any]:
    """Return what `publish` is told about an adapter."""
    return {
        "rank": rank,
        "targetModules": ["q_proj", "o_proj"],
        "base": {"source": "s3://models/tiny", "fingerprint": fingerprint},
        "lineage": {"namespace": "ml", "job": "tickets", "uid": "u", "run": 1},
    }
