"""Reading what a safetensors file says about itself, without its data."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

HEADER_LIMIT_BYTES = 100_000_000
DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


_NUMBER_LIMIT = 2**63  # beyond it nothing can be addressed, and products of such numbers would grow without end
_DIMENSIONS_LIMIT = 64
_SHOWN = 100


class HeaderError(ValueError):
    """A file is not a safetensors file; the message says what is wrong with it."""


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: `start` and `end` are offsets from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """The number of values."""
        total = 1
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True)
class Header:
    """The header of one file: its sha256 (the 8 length bytes and the JSON), where the data starts, and the tensors by name."""

    sha256: str
    data_start: int
    tensors: dict[str, Tensor]


def read_header(path: Path, limit: int = HEADER_LIMIT_BYTES) -> Header:
    """Read and check the header of a safetensors file, of at most `limit` bytes.

    Raises:
        HeaderError: the header is not one, or its offsets do not fit the file.
    """
    with path.open("rb", buffering=0) as file:
        return parse_header(file, path.name, path.stat().st_size, limit)


def parse_header(file: BinaryIO, name: str, size: int, limit: int = HEADER_LIMIT_BYTES) -> Header:
    """Do `read_header` for a file of `size` bytes of which at least the header can be read."""
    length_bytes = file.read(8)
    if len(length_bytes) < 8:
        raise HeaderError(f"{name}: {size} bytes are too few for a safetensors file")
    length = struct.unpack("<Q", length_bytes)[0]
    if limit < length <= size - 8:
        raise HeaderError(f"{name}: header of {length} bytes, the limit is {limit}")
    if length > size - 8:
        raise HeaderError(f"{name}: header of {length} bytes in a file of {size} bytes; the file is cut off or not safetensors")
    text = file.read(length)
    while len(text) < length:
        more = file.read(length - len(text))
        if not more:
            raise HeaderError(f"{name}: the header ends early")
        text += more
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"{name}: the header is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise HeaderError(f"{name}: the header is not a JSON object")
    start = 8 + length
    tensors = {key: _tensor(f"{name}: {_shown(key)}", value, start, size) for key, value in fields.items() if key != "__metadata__"}
    _check_layout(name, tensors, start, size)
    return Header(hashlib.sha256(length_bytes + text).hexdigest(), start, tensors)


def _tensor(what: str, value: Any, data_start: int, size: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise HeaderError(f"{what}: the header entry lacks dtype, shape or data_offsets") from None
    if not isinstance(dtype, str) or len(dtype) > _SHOWN:
        raise HeaderError(f"{what}: the dtype is no name of one")
    if len(shape) > _DIMENSIONS_LIMIT:
        raise HeaderError(f"{what}: {len(shape)} dimensions, the limit is {_DIMENSIONS_LIMIT}")
    numbers = (*shape, begin, end)
    if any(not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _NUMBER_LIMIT for number in numbers):
        raise HeaderError(f"{what}: shape and offsets must be whole numbers that are not negative, and below 2^63")
    tensor = Tensor(dtype, shape, data_start + begin, data_start + end)
    if begin > end or tensor.end > size:
        raise HeaderError(f"{what}: data at {tensor.start}..{tensor.end} in a file of {size} bytes; the file is cut off")
    bits = DTYPE_BITS.get(tensor.dtype)
    if bits is not None and tensor.count * bits != (end - begin) * 8:
        raise HeaderError(f"{what}: {tensor.dtype} of shape {list(shape)} needs {tensor.count * bits // 8} bytes, the header gives it {end - begin}")
    return tensor


def _check_layout(name: str, tensors: dict[str, Tensor], data_start: int, size: int) -> None:
    """Refuse data that the tensors do not fill one after another, as the library safetensors does: what lies between them is nobody's."""
    position = data_start
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != position:
            what = "overlaps the one before it" if tensor.start < position else "leaves a hole before it"
            raise HeaderError(f"{name}: {_shown(key)}: starts at {tensor.start}, which {what} ({position}); it is not a safetensors file")
        position = tensor.end
    if position != size:
        raise HeaderError(f"{name}: the tensors end at {position} in a file of {size} bytes; nothing may follow them")


def _shown(key: str) -> str:
    """Return a tensor's name as a message can have it."""
    return key if len(key) <= _SHOWN else f"{key[:_SHOWN]}…"
