"""What is checked before an adapter reaches the engine, which itself checks neither base, nor names, nor small shapes, nor NaN."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graftwork_store.digest import WEIGHTS_FILE, adapter_digest, adapter_files
from graftwork_store.errors import StoreError
from graftwork_store.fingerprint import BaseModel
from graftwork_store.manifest import MANIFEST_FILE
from graftwork_store.tensors import Header, HeaderError, Tensor, read_header

from graftwork_agent.adapter_config import LoraConfig, read_config
from graftwork_agent.finite import FLOAT_DTYPES, not_finite
from graftwork_agent.refusal import Refusal

HEADER_LIMIT_BYTES = 16 << 20  # about a hundred thousand tensors; the agent's memory is small
_NAME_LIMIT = 512
_PREFIX = "base_model.model."
# suffix of a tensor's name -> (which half it is, whether it belongs to an embedding)
_SUFFIXES = {
    ".lora_A.weight": ("A", False),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_A": ("A", True),
    ".lora_embedding_B": ("B", True),
}
# The largest number of float16, the narrowest range that engines compute in. The values of lora_B are converted to the engine's type and scaled
# when they are loaded; in adapters that do anything useful they are far below 10. An engine of bfloat16 could take more, but whoever serves an
# adapter of another tenant should not have to know.
LARGEST = 65504.0
_PICKLE, _PICKLE_ZIP = b"\x80", b"PK\x03\x04"  # how files of torch.save begin, before and since version 1.6
_PACKED_SUFFIXES = (".qweight", ".weight_packed")
_PACKED_DTYPES = ("U8", "I8", "I32", "U32")


@dataclass(frozen=True)
class _Part:
    """What a tensor's name says: the base's module, which half of its LoRA (A or B), and whether the module is an embedding."""

    name: str
    module: str
    half: str
    embedding: bool


@dataclass(frozen=True)
class Expected:
    """What the adapter has to fit: the digest asked for, the fingerprint it was trained on ("": not compared), the largest rank, the base."""

    digest: str
    trained_on: str
    max_rank: int
    base: BaseModel


def check_base(expected: Expected) -> None:
    """Refuse an adapter that was trained on other weights, where it is known on which; names and shapes of its tensors are checked in any case."""
    if expected.trained_on not in ("", expected.base.fingerprint):
        raise Refusal(
            "BaseMismatch",
            f"trained on {expected.trained_on}, this pod serves {expected.base.fingerprint}; "
            "train it on the served model, or name the one it was trained on in model.compatibleBases",
        )


def check_rank(rank: int, expected: Expected, where: str) -> None:
    """Refuse a rank that the engine was not started for."""
    if rank > expected.max_rank:
        raise Refusal("RankTooHigh", f"{where}: rank {rank} is above adapters.maxRank {expected.max_rank}; raise maxRank or train with a lower rank")


def verify(folder: Path, expected: Expected) -> None:
    """Check a downloaded adapter in full; raises Refusal. Reading it whole also leaves it in the page cache, so that the load is short."""
    _check_files(folder, expected)
    check_base(expected)
    config = _config(folder)
    check_rank(config.max_rank, expected, "adapter_config.json")
    _check_weights(folder, config, expected.base)


def verify_alone(folder: Path, digest: str = "") -> LoraConfig:
    """Check what needs no base model, before an import publishes it: files, digest (if one is given), config, tensors among themselves, values.

    Raises:
        Refusal: as `verify`, but never for the rank or the base.
    """
    try:
        found = adapter_digest(folder)
    except StoreError as error:
        raise Refusal(error.reason, error.message) from None
    if digest and found != digest:
        raise Refusal("DigestMismatch", f"the files have digest {found}, spec.digest is {digest}; correct it, or the source that it is of")
    config = _config(folder)
    _check_weights(folder, config, None)
    return config


@contextlib.contextmanager
def _judging(reason: str, what: str) -> Iterator[None]:
    """Refuse what nobody foresaw: the same bytes would be as wrong the next time. A disk or a memory that failed says nothing about them."""
    try:
        yield
    except (Refusal, OSError, MemoryError):
        raise
    except Exception as error:
        raise Refusal(reason, f"{what}: cannot be checked ({type(error).__name__}: {error}); publish the adapter again") from error


def _config(folder: Path) -> LoraConfig:
    with _judging("ConfigInvalid", "adapter_config.json"):
        return read_config(folder)


def _check_weights(folder: Path, config: LoraConfig, base: BaseModel | None) -> None:
    with _judging("TensorMismatch", WEIGHTS_FILE):
        header = _read_header(folder)
        _check_tensors(header, config, base)
        _check_finite(folder, header, config.scale)


def _read_header(folder: Path) -> Header:
    path = folder / WEIGHTS_FILE
    try:
        return read_header(path, HEADER_LIMIT_BYTES)
    except HeaderError as error:
        with path.open("rb") as file:
            pickled = file.read(len(_PICKLE_ZIP)).startswith((_PICKLE_ZIP, _PICKLE))
        if pickled:
            raise Refusal(
                "FileNotAllowed",
                f"{WEIGHTS_FILE}: is a pickle under another name, which can run code when it is read; convert it with the library safetensors",
            ) from None
        raise Refusal("TensorMismatch", f"{error}; publish the adapter again") from None


def _check_finite(folder: Path, header: Header, scale: float) -> None:
    path, tensors = folder / WEIGHTS_FILE, header.tensors
    limits = {name: LARGEST / max(scale, 1.0) for name in tensors if _parse_name(name).half == "B"}
    found = not_finite(path, tensors, limits)
    if not found:
        return
    name, count, first = found
    infinite = not_finite(path, {name: tensors[name]})
    if infinite:
        _, count, first = infinite
        raise Refusal("NotFinite", f"{name}: {count} of {tensors[name].count} values are NaN or infinite, the first at index {first}")
    raise Refusal(
        "NotFinite",
        f"{name}: {count} of {tensors[name].count} values are above {LARGEST:.0f}, the largest of float16, when lora_alpha and r scale them by up to "
        f"{max(scale, 1.0):g}, the first at index {first}; train with a lower alpha",
    )


def _check_files(folder: Path, expected: Expected) -> None:
    try:
        allowed = {path.name for path in adapter_files(folder)}
        for path in folder.iterdir():
            if path.name not in allowed and path.name != MANIFEST_FILE:
                raise Refusal(
                    "FileNotAllowed",
                    f"{path.name}: not a file of the allow-list; only configuration, safetensors weights and tokenizer files are served",
                )
        digest = adapter_digest(folder)
    except StoreError as error:
        raise Refusal(error.reason, error.message) from None
    if digest != expected.digest:
        raise Refusal("DigestMismatch", f"the files have digest {digest}, expected {expected.digest}; publish the adapter again")


def _check_tensors(header: Header, config: LoraConfig, base: BaseModel | None) -> None:
    if not header.tensors:
        raise Refusal("TensorMismatch", f"{WEIGHTS_FILE}: has no tensors")
    halves: dict[str, set[str]] = {}
    for name, tensor in header.tensors.items():
        part = _parse_name(name)
        halves.setdefault(part.module, set()).add(part.half)
        _check_tensor(name, tensor, _shape(part, config, base))
    for module, found in halves.items():
        if found != {"A", "B"}:
            raise Refusal("TensorMismatch", f"{module}: has lora_{''.join(found)} only, lora_A and lora_B are needed")


def _parse_name(name: str) -> _Part:
    if len(name) > _NAME_LIMIT:
        raise Refusal("TensorMismatch", f"{name[:80]}…: a name of {len(name)} characters, the limit is {_NAME_LIMIT}; no base has such a module")
    for suffix, (half, embedding) in _SUFFIXES.items():
        if name.startswith(_PREFIX) and name.endswith(suffix):
            return _Part(name, name.removeprefix(_PREFIX).removesuffix(suffix), half, embedding)
    raise Refusal("Unsupported", f"{name}: not a LoRA weight that vLLM serves; expected {_PREFIX}<module> with one of {', '.join(_SUFFIXES)}")


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int | None, int | None]) -> None:
    if tensor.dtype not in FLOAT_DTYPES:
        raise Refusal("Unsupported", f"{name}: dtype {tensor.dtype}, must be one of {', '.join(FLOAT_DTYPES)}")
    if len(tensor.shape) != 2 or any(want is not None and have != want for have, want in zip(tensor.shape, shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise Refusal("TensorMismatch", f"{name}: shape {list(tensor.shape)}, the base and the rank need [{wanted}]")


def _shape(part: _Part, config: LoraConfig, base: BaseModel | None) -> tuple[int | None, int | None]:
    """Return the shape that a half must have; None where a packed base, or none, does not tell."""
    rank = config.rank_of(part.module)
    rows, columns = _base_shape(part, base) if base else (None, None)
    turned = part.embedding or config.fan_in_fan_out
    taken, given = (rows, columns) if turned else (columns, rows)
    return (rank, taken) if part.half == "A" else (given, rank)


def _base_shape(part: _Part, base: BaseModel) -> tuple[int | None, int | None]:
    weight = f"{part.module}.weight"
    tensor = base.tensors.get(weight)
    if tensor is None and part.module == "lm_head" and base.config.get("tie_word_embeddings"):
        tensor = base.tensors.get("model.embed_tokens.weight")
    if tensor is None:
        if any(f"{part.module}{suffix}" in base.tensors for suffix in _PACKED_SUFFIXES):
            return None, None
        raise Refusal("TensorMismatch", f"{part.name}: the base has no tensor {weight}; the adapter was made for another architecture or more layers")
    if tensor.dtype in _PACKED_DTYPES:
        return None, None
    if len(tensor.shape) != 2:
        raise Refusal("TensorMismatch", f"{part.name}: the base's {weight} has shape {list(tensor.shape)}; only matrices take a LoRA")
    return tensor.shape[0], tensor.shape[1]
