"""The fingerprint and the facts of a base model, from its config and its files' headers; weights are never loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_store.errors import ModelInvalid
from graftwork_store.tensors import Header, HeaderError, Tensor, read_header

SAMPLE_BYTES = 4096
CONFIG_FILE, INDEX_FILE = "config.json", "model.safetensors.index.json"
_IGNORED_CONFIG = ("_name_or_path", "transformers_version")
_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "model_max_length")


@dataclass(frozen=True)
class BaseModel:
    """What is known of a base model without loading it."""

    fingerprint: str
    architecture: str
    parameters: int
    weights_bytes: int
    max_model_len: int | None
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def facts(self) -> dict[str, Any]:
        """Return `base` of the agent's status."""
        return {
            "fingerprint": self.fingerprint,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "weightsBytes": self.weights_bytes,
            "maxModelLen": self.max_model_len,
        }


def fingerprint_of(config: Mapping[str, Any], files: list[tuple[str, str, str]]) -> str:
    """Return the fingerprint of a config and of (file name, sha256 of the header, sha256 of the sample) triples."""
    kept = {key: value for key, value in config.items() if key not in _IGNORED_CONFIG}
    rows = [list(row) for row in sorted(files, key=lambda row: row[0].encode())]
    text = json.dumps({"config": kept, "files": rows}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_base(folder: Path) -> BaseModel:
    """Read a model folder in Hugging Face layout.

    Raises:
        ModelInvalid: there is no readable config.json or no readable *.safetensors at the top of the folder.
    """
    config = parse_config(str(folder), _config_bytes(folder))
    paths = sorted((path for path in folder.glob("*.safetensors") if path.is_file()), key=lambda path: path.name.encode())
    if not paths:
        raise ModelInvalid(f"{folder}: no *.safetensors file; only models in Hugging Face layout with safetensors weights are served")
    check_shards(str(folder), _index_bytes(folder), {path.name for path in paths})
    rows: list[tuple[str, str, str]] = []
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            header = read_header(path)
        except HeaderError as error:
            raise ModelInvalid(f"{folder}: {error}; download the model again") from None
        rows.append((path.name, header.sha256, _sample_sha256(path, header)))
        tensors.update(header.tensors)
    return BaseModel(
        fingerprint=fingerprint_of(config, rows),
        architecture=architecture(config),
        parameters=sum(tensor.count for tensor in tensors.values()),
        weights_bytes=sum(tensor.end - tensor.start for tensor in tensors.values()),
        max_model_len=max_model_len(config),
        config=config,
        tensors=tensors,
    )


def base_fingerprint(folder: Path) -> str:
    """Return the fingerprint of the model in `folder`; raises like `read_base`."""
    return read_base(folder).fingerprint


def _config_bytes(folder: Path) -> bytes:
    path = folder / CONFIG_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelInvalid(f"{folder}: no {CONFIG_FILE}; only models in Hugging Face layout are served") from None
    except OSError as error:
        raise ModelInvalid(f"{path}: cannot be read ({error}); download the model again") from None


def _index_bytes(folder: Path) -> bytes | None:
    path = folder / INDEX_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelInvalid(f"{path}: cannot be read ({type(error).__name__}: {error}); download the model again") from None


def parse_config(where: str, data: bytes) -> dict[str, Any]:
    """Return config.json of the model at `where`; raises ModelInvalid."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(f"{where}/{CONFIG_FILE}: cannot be read ({error}); download the model again") from None
    if not isinstance(config, dict):
        raise ModelInvalid(f"{where}/{CONFIG_FILE}: must be a JSON object; download the model again")
    return config


def check_shards(where: str, index: bytes | None, present: set[str]) -> None:
    """Refuse a model of which shards are missing: a download that is not done would otherwise get a fingerprint of its own.

    `index` is the content of model.safetensors.index.json; None where there is none, and nothing to compare with.
    """
    if index is None:
        return
    try:
        shards = set(json.loads(index)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelInvalid(f"{where}/{INDEX_FILE}: cannot be read ({type(error).__name__}: {error}); download the model again") from None
    missing = sorted(str(shard) for shard in shards - present)
    if missing:
        raise ModelInvalid(f"{where}: {len(missing)} of {len(shards)} shards are missing, the first is {missing[0]}; download the model again")


def _sample_sha256(path: Path, header: Header) -> str:
    with path.open("rb") as file:
        file.seek(header.data_start)
        return hashlib.sha256(file.read(SAMPLE_BYTES)).hexdigest()


def architecture(config: Mapping[str, Any]) -> str:
    """Return the class of the model, or at least its kind."""
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return str(config.get("model_type", ""))


def max_model_len(config: Mapping[str, Any]) -> int | None:
    """Return the longest context that the configuration allows; None if it does not say."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in _LENGTH_KEYS:
            value = part.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None
