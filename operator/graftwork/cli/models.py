"""What is known of a model where no cluster is asked: facts in a file, or a model in a folder, of whose weights only the headers are read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftwork.cli.files import FileError
from graftwork.facts.inspected import ModelFacts, Resolved, SourceFiles

NO_DIGEST = "sha256:" + "0" * 64
"""Stands in for digests that nothing here depends on."""
HEADER_LIMIT_BYTES = 100_000_000
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_NUMBERS = {
    "maxModelLen": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hiddenSize": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "kvHeads": ("num_key_value_heads", "num_kv_heads"),
    "headDim": ("head_dim",),
    "kvLoraRank": ("kv_lora_rank",),
    "vocabSize": ("vocab_size",),
}


def known(facts: ModelFacts, source: str, files_bytes: int | None = None) -> Resolved:
    """Return facts as the operator would hold them after it has looked a source up."""
    size = facts.weights_bytes if files_bytes is None else files_bytes
    files = SourceFiles(count=1, bytes=size, largest_bytes=size, digest=NO_DIGEST)
    return Resolved(key="planned", source=source, revision="0" * 40, files=files, facts=facts)


def from_file(path: str, source: str) -> Resolved:
    """Return the facts of a JSON file: an LLMDeployment, its status, `status.model.resolved`, its facts, or the result of an inspection."""
    value = _json(Path(path))
    for holder in _holders(value):
        for key in ("facts", "model"):
            if facts := _facts(holder.get(key)):
                return known(facts, source, _files_bytes(holder))
        if facts := _facts(holder):
            return known(facts, source)
    raise FileError(
        f"{path} has no facts of a model; they are in .status.model.resolved of an LLMDeployment with an hf:// or s3:// source (kubectl get -o json)"
    )


def seen(model: Mapping[str, Any], source: str) -> Resolved | None:
    """Return what a status says that the agents have read of a model, as facts."""
    facts = _facts(model.get("facts")) or _facts(model)
    return known(facts, source) if facts else None


def _holders(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the object and what it holds on the way down to the facts."""
    while isinstance(value, Mapping):
        yield value
        value = next((value[key] for key in ("status", "model", "resolved") if isinstance(value.get(key), Mapping)), None)


def _facts(value: Any) -> ModelFacts | None:
    if not isinstance(value, Mapping) or "weightsBytes" not in value:
        return None
    try:
        return ModelFacts.model_validate({"fingerprint": NO_DIGEST, "architecture": "", "parameters": 0, **value})
    except ValidationError:
        return None


def _files_bytes(holder: Mapping[str, Any]) -> int | None:
    files = holder.get("files")
    size = files.get("bytes") if isinstance(files, Mapping) else None
    return size if isinstance(size, int) else None


def from_folder(path: str, source: str) -> Resolved:
    """Return the facts of a model in a folder."""
    folder = Path(path)
    config = _json(folder / "config.json")
    if not isinstance(config, Mapping):
        raise FileError(f"{folder / 'config.json'} is no JSON object")
    weights = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith("consolidated")]
    if not weights:
        raise FileError(f"{path} has no *.safetensors; a model is a folder with config.json and weights in safetensors files")
    counted = [_counted(file) for file in weights]
    parts = [config, *(part for key in _TEXT_PARTS if isinstance(part := config.get(key), Mapping))]
    names = config.get("architectures")
    found = {
        **_shape(parts),
        "fingerprint": NO_DIGEST,
        "architecture": str(names[0]) if isinstance(names, list) and names else "",
        "parameters": sum(count for count, _ in counted),
        "weightsBytes": sum(size for _, size in counted),
        "dtype": _text(parts, "dtype") or _text(parts, "torch_dtype"),
        "quantization": next(
            (str(each.get("quant_method", "")) for part in parts if isinstance(each := part.get("quantization_config"), Mapping)), ""
        ),
    }
    return known(ModelFacts.model_validate(found), source, sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {error}") from error


def _counted(path: Path) -> tuple[int, int]:
    """Return the values of a file of weights and their bytes, by its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_LIMIT_BYTES, path.stat().st_size):
                raise FileError(f"{path} is no safetensors file: its header would have {length} bytes")
            header = json.loads(file.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        return sum(prod(tensor["shape"]) for tensor in tensors), sum(end - start for start, end in (tensor["data_offsets"] for tensor in tensors))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise FileError(f"{path} is no safetensors file: {error}") from error


def _shape(parts: list[Mapping[str, Any]]) -> dict[str, int]:
    found = {name: value for name, keys in _NUMBERS.items() if (value := _number(parts, keys)) is not None}
    if "heads" in found:
        found.setdefault("kvHeads", found["heads"])
        if "hiddenSize" in found:
            found.setdefault("headDim", found["hiddenSize"] // found["heads"])
    return found


def _number(parts: list[Mapping[str, Any]], keys: tuple[str, ...]) -> int | None:
    values = (part.get(key) for part in parts for key in keys)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0), None)


def _text(parts: list[Mapping[str, Any]], key: str) -> str:
    return next((value for part in parts if isinstance(value := part.get(key), str)), "")
