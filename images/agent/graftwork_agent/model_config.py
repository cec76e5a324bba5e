"""What the configuration of a model says of it: the same for one that is looked up and for one that lies in a pod already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftwork_store.fingerprint import architecture

TEXT_LENGTH = 100
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_NUMBERS = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hiddenSize": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "kvHeads": ("num_key_value_heads", "num_kv_heads"),
    "headDim": ("head_dim",),
    "kvLoraRank": ("kv_lora_rank",),
    "vocabSize": ("vocab_size",),
}
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "RewardModel")
_ENCODERS = ("Model", "ForMaskedLM")
_LISTENERS = ("WhisperForConditionalGeneration", "ForSpeechSeq2Seq")


def described(config: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """Return what of `model` (contracts, section 7c) is in the configuration; `paths` are the files beside it."""
    return {
        **_shape(config),
        "dtype": _text(config, "dtype") or _text(config, "torch_dtype"),
        "quantization": _quantization(config),
        "task": task(config, paths),
        "remoteCode": isinstance(config.get("auto_map"), dict),
    }


def _shape(config: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the numbers of the text model; None where the configuration does not say."""
    found = {name: _number(config, keys) for name, keys in _NUMBERS.items()}
    heads, hidden = found["heads"], found["hiddenSize"]
    found["kvHeads"] = found["kvHeads"] or heads
    found["headDim"] = found["headDim"] or (hidden // heads if hidden and heads else None)
    return found


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config, *(part for key in _TEXT_PARTS if isinstance(part := config.get(key), dict))]


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for part in _parts(config):
        for key in keys:
            value = part.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53:
                return value
    return None


def _text(config: Mapping[str, Any], key: str) -> str:
    return next((value[:TEXT_LENGTH] for part in _parts(config) if isinstance(value := part.get(key), str)), "")


def _quantization(config: Mapping[str, Any]) -> str:
    """Return how the weights are quantized, in the words of their configuration; "" if they are not."""
    for part in _parts(config):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict) and isinstance(method := settings.get("quant_method"), str):
            return method[:TEXT_LENGTH]
    return ""


def task(config: Mapping[str, Any], paths: Collection[str]) -> str:
    """Return what the model is for: `generate`, `embed`, `classify` or `transcribe`."""
    name = architecture(config)
    if name.endswith(_LISTENERS):
        return "transcribe"
    if name.endswith(_CLASSIFIERS):
        return "classify"
    if "modules.json" in paths or name.endswith(_ENCODERS):  # modules.json: sentence-transformers
        return "embed"
    return "generate"
