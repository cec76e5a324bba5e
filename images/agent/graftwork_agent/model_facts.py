"""What a model is, from its configuration and the headers of its weights, of which nothing else is read."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from graftwork_store.errors import ModelInvalid
from graftwork_store.fingerprint import (
    CONFIG_FILE,
    INDEX_FILE,
    SAMPLE_BYTES,
    architecture,
    check_shards,
    fingerprint_of,
    max_model_len,
    parse_config,
)
from graftwork_store.tensors import HEADER_LIMIT_BYTES, HeaderError, parse_header

from graftwork_agent.model_files import ListedModel, ModelFile, is_weights

_FIRST_BYTES = 256 << 10
"""Read of each file of weights before its header's length is known; most headers are shorter, and one request is enough."""
_JSON_LIMIT_BYTES = 64 << 20
_TEXT_LENGTH = 100
_PARALLEL = 4
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
_CLASSIFIERS = (*(f"For{kind}Classification" for kind in ("Sequence", "Token", "Audio", "Image", "Video")), "ClassificationModel")
_ENCODERS = ("Model", "ForMaskedLM", "ForTextEncoding", "ForRewardModeling")
_TALKERS = ("ChatModel", "ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_MODULES = "modules.json"
_POOLING = ("sentence_transformers.models.Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling")
_QUANTIZED = "hf_quant_config.json"
_QUANTIZATION_FILES = ("quant_config.json", "quantize_config.json", "quantization_config.json")
_LISTENERS = ("WhisperForConditionalGeneration", "ForSpeechSeq2Seq")


@dataclass(frozen=True)
class _Weights:
    """Of one file of weights: its part of the fingerprint, its values and their bytes."""

    row: tuple[str, str, str]
    parameters: int
    size: int


def facts(source: ListedModel) -> dict[str, Any]:
    """Return `model` of the result; raises ModelInvalid for what is none."""
    by_path = {file.path: file for file in source.files}
    where = f"{source.uri}@{source.revision[:12]}"
    if CONFIG_FILE not in by_path:
        raise ModelInvalid(f"{where}: no {CONFIG_FILE}; only models in Hugging Face layout are served")
    config = parse_config(where, _small(source, by_path[CONFIG_FILE]))
    weights = [file for path, file in sorted(by_path.items(), key=lambda item: item[0].encode()) if is_weights(path)]
    index = _small(source, by_path[INDEX_FILE]) if INDEX_FILE in by_path else None
    check_shards(where, index, {file.path for file in weights})
    with ThreadPoolExecutor(_PARALLEL) as pool:
        read = list(pool.map(lambda file: _weights(source, where, file), weights))
    return {
        "fingerprint": fingerprint_of(config, [item.row for item in read]),
        "architecture": architecture(config)[:_TEXT_LENGTH],
        "parameters": sum(item.parameters for item in read),
        "weightsBytes": sum(item.size for item in read),
        "maxModelLen": max_model_len(config),
        **_shape(config),
        "dtype": _text(config, "dtype") or _text(config, "torch_dtype"),
        "quantization": quantization(config) or _quantized_by(_object(source, by_path.get(_QUANTIZED))),
        "quantizationFile": any(name in by_path for name in _QUANTIZATION_FILES),
        "task": task(config, set(by_path)),
        **_pooled(source, by_path.get(_MODULES)),
        "remoteCode": isinstance(config.get("auto_map"), dict),
    }


def _small(source: ListedModel, file: ModelFile) -> bytes:
    if file.size > _JSON_LIMIT_BYTES:
        raise ModelInvalid(f"{source.uri}: {file.path} has {file.size} bytes, the limit is {_JSON_LIMIT_BYTES}; it is no such file of a model")
    return source.read(file, 0, file.size)


def _json(source: ListedModel, file: ModelFile | None) -> Any:
    """Return what a file of JSON says; None for one that is not there or says nothing: the engine will tell what it makes of it."""
    try:
        return json.loads(_small(source, file)) if file else None
    except (ValueError, RecursionError):
        return None


def _object(source: ListedModel, file: ModelFile | None) -> Mapping[str, Any]:
    found = _json(source, file)
    return found if isinstance(found, dict) else {}


def _pooled(source: ListedModel, file: ModelFile | None) -> dict[str, bool]:
    """Return whether sentence-transformers' modules have a pooling that vLLM reads; nothing for a model without such modules."""
    modules = _json(source, file)
    if not isinstance(modules, list):
        return {}
    return {"poolingModule": any(isinstance(item, dict) and item.get("type") in _POOLING for item in modules)}


def _weights(source: ListedModel, where: str, file: ModelFile) -> _Weights:
    """Read the header of a file of weights and the sample after it, mostly by one request."""
    data = source.read(file, 0, _FIRST_BYTES)
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    end = 8 + length + SAMPLE_BYTES
    if length <= min(HEADER_LIMIT_BYTES, file.size) and end > len(data):
        data += source.read(file, len(data), end - len(data))
    try:
        header = parse_header(io.BytesIO(data), file.path, file.size)
    except HeaderError as error:
        raise ModelInvalid(f"{where}: {error}; upload the model again") from None
    sample = data[header.data_start : header.data_start + SAMPLE_BYTES]
    row = (file.path, header.sha256, hashlib.sha256(sample).hexdigest())
    tensors = header.tensors.values()
    return _Weights(row, sum(tensor.count for tensor in tensors), sum(tensor.end - tensor.start for tensor in tensors))


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
    return next((value[:_TEXT_LENGTH] for part in _parts(config) if isinstance(value := part.get(key), str)), "")


def quantization(config: Mapping[str, Any]) -> str:
    """Return how the weights are quantized, in the words of their configuration; "" if they are not."""
    for part in _parts(config):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict) and (method := _quantized_by(settings)):
            return method
    return ""


def _quantized_by(settings: Mapping[str, Any]) -> str:
    """Return the method of one configuration; ModelOpt writes an algorithm of its own beside it, or instead."""
    method, parts = settings.get("quant_method"), (settings, settings.get("quantization"))
    algorithms = [str(found).upper() for part in parts if isinstance(part, dict) and (found := part.get("quant_algo"))]
    producer = settings.get("producer")
    if algorithms and (str(method).lower() == "modelopt" or (isinstance(producer, dict) and producer.get("name") == "modelopt")):
        return _modelopt(algorithms[0])
    return method[:_TEXT_LENGTH] if isinstance(method, str) else ""


def _modelopt(algorithm: str) -> str:
    """Return vLLM's name of an algorithm of ModelOpt's (vllm/model_executor/layers/quantization/modelopt.py, override_quantization_method)."""
    if algorithm == "MIXED_PRECISION":
        return "modelopt_mixed"
    if "MXFP8" in algorithm:
        return "modelopt_mxfp8"
    return "modelopt_fp4" if "FP4" in algorithm else "modelopt"


def task(config: Mapping[str, Any], paths: set[str]) -> str:
    """Return what the model is for: `generate`, `embed`, `classify` or `transcribe`; which of vLLM's classes serves it the operator knows better."""
    name = architecture(config)
    if name.endswith(_LISTENERS):
        return "transcribe"
    if name.endswith(_CLASSIFIERS):
        return "classify"
    if _MODULES in paths:  # sentence-transformers
        return "embed"
    return "embed" if name.endswith(_ENCODERS) and not name.endswith(_TALKERS) else "generate"
