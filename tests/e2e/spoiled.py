"""Adapters that must not reach the engine: changed copies of one that works, each with one fault."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.e2e.adapters import Files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAN = {"F32": b"\x00\x00\xc0\x7f", "BF16": b"\xc0\x7f", "F16": b"\x00\x7e"}  # little endian, as in the file
INFINITE = {"F32": b"\x00\x00\x80\xff", "BF16": b"\x80\xff", "F16": b"\x00\xfc"}


class Tensor(NamedTuple):
    """One tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def width(self) -> int:
        """Bytes of one value."""
        return len(NAN[self.dtype])


Tensors = dict[str, Tensor]


def unpacked(weights: bytes) -> Tensors:
    """Return the tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", weights[:8])
    header: dict[str, Any] = json.loads(weights[8 : 8 + length])
    data = weights[8 + length :]
    return {
        name: Tensor(each["dtype"], tuple(each["shape"]), data[slice(*each["data_offsets"])])
        for name, each in header.items()
        if name != "__metadata__"
    }


def packed(tensors: Tensors) -> bytes:
    """Return a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, offset + len(tensor.data)]}
        offset += len(tensor.data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values())


def first(tensors: Tensors, half: str) -> str:
    """Return the name of the first tensor of a half: lora_A or lora_B."""
    return next(name for name in sorted(tensors) if f".{half}." in name)


def configured(files: Files, **changes: Any) -> dict[str, bytes]:
    """Return the files with fields of the configuration changed."""
    return {**files, CONFIG: json.dumps(json.loads(files[CONFIG]) | changes).encode()}


def reweighted(files: Files, change: Callable[[Tensors], Tensors]) -> dict[str, bytes]:
    """Return the files with other weights."""
    return {**files, WEIGHTS: packed(change(unpacked(files[WEIGHTS])))}


def not_finite(files: Files, pattern: dict[str, bytes], index: int, count: int) -> dict[str, bytes]:
    """Return the files with `count` values that are not finite from `index` on, in the first lora_B."""

    def change(tensors: Tensors) -> Tensors:
        name = first(tensors, "lora_B")
        old = tensors[name]
        begin, end = index * old.width, (index + count) * old.width
        return {**tensors, name: old._replace(data=old.data[:begin] + pattern[old.dtype] * count + old.data[end:])}

    return reweighted(files, change)


def narrower(files: Files) -> dict[str, bytes]:
    """Return the files with the first lora_A made for half the width: vLLM loads it and answers nonsense."""

    def change(tensors: Tensors) -> Tensors:
        name = first(tensors, "lora_A")
        rank, columns = tensors[name].shape
        return {**tensors, name: Tensor(tensors[name].dtype, (rank, columns // 2), tensors[name].data[: len(tensors[name].data) // 2])}

    return reweighted(files, change)


def deeper(files: Files) -> dict[str, bytes]:
    """Return the files with one tensor moved to a layer that the base does not have: vLLM loads it and does nothing."""

    def change(tensors: Tensors) -> Tensors:
        return {name.replace(".layers.3.", ".layers.39."): tensor for name, tensor in tensors.items()}

    return reweighted(files, change)


def wider(files: Files, rank: int) -> dict[str, bytes]:
    """Return the files with every matrix filled up with zeros to a higher rank: a consistent adapter, only larger."""

    def grown(name: str, tensor: Tensor) -> Tensor:
        rows, columns = tensor.shape
        if ".lora_A." in name:
            return Tensor(tensor.dtype, (rank, columns), tensor.data + bytes((rank - rows) * columns * tensor.width))
        row = columns * tensor.width
        padding = bytes((rank - columns) * tensor.width)
        lines = (tensor.data[start : start + row] + padding for start in range(0, len(tensor.data), row))
        return Tensor(tensor.dtype, (rows, rank), b"".join(lines))

    return reweighted(configured(files, r=rank), lambda tensors: {name: grown(name, tensor) for name, tensor in tensors.items()})


def cut(files: Files, left: int = 2) -> dict[str, bytes]:
    """Return the files with the weights cut off in the middle."""
    return {**files, WEIGHTS: files[WEIGHTS][: len(files[WEIGHTS]) // left]}
