"""Whether every value of a tensor is finite and in bounds: bit tests on blocks of the file, so memory stays small and bfloat16 needs no library."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from graftwork_store.tensors import Tensor

_BLOCK_BYTES = 64 << 10  # several adapters are read at once, each with a few arrays of this size
Kind = type[np.unsignedinteger[Any]]

# Without its sign bit, a value of these is infinite or NaN from this number on (all bits of the exponent set). The engine's widest type has 8 bits
# of exponent, so of a double everything counts that would be infinite there.
_FROM: dict[str, tuple[Kind, int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F80_0000),
    "F64": (np.uint64, 0x47F0_0000_0000_0000),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),  # has no infinity, and one NaN of either sign
}
# These have no infinity, no negative zero, and one NaN in its place.
_ONLY: dict[str, tuple[Kind, int]] = {"F8_E4M3FNUZ": (np.uint8, 0x80), "F8_E5M2FNUZ": (np.uint8, 0x80)}

# How many bits the fraction of each has, and the bias of its exponent.
_LAYOUT = {
    "BF16": (7, 127),
    "F16": (10, 15),
    "F32": (23, 127),
    "F64": (52, 1023),
    "F8_E5M2": (2, 15),
    "F8_E4M3": (3, 7),
    "F8_E4M3FNUZ": (3, 8),
    "F8_E5M2FNUZ": (2, 16),
}

FLOAT_DTYPES = (*_FROM, *_ONLY)


def not_finite(path: Path, tensors: Mapping[str, Tensor], limits: Mapping[str, float] | None = None) -> tuple[str, int, int] | None:
    """Return the first tensor (in file order) with values that are not finite: its name, how many, the index of the first; or None.

    Of a tensor with a limit, values whose magnitude is above it count as well.
    """
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            first = _first_above(tensor.dtype, (limits or {}).get(name, math.inf))
            count, index = _count(file, tensor, block, first)
            if count:
                return name, count, index
    return None


def _count(file: io.FileIO, tensor: Tensor, block: bytearray, first_bad: int) -> tuple[int, int]:
    """Return how many values of a tensor are bad, and the index of the first."""
    kind = (_FROM.get(tensor.dtype) or _ONLY[tensor.dtype])[0]
    width = np.dtype(kind).itemsize
    count, first, done = 0, -1, 0
    file.seek(tensor.start)
    while done < tensor.end - tensor.start:
        length = file.readinto(memoryview(block)[: min(_BLOCK_BYTES, tensor.end - tensor.start - done)])
        length -= length % width
        if not length:
            raise OSError(f"{file.name}: ends before {tensor.end}")
        bad = _bad(np.frombuffer(block, dtype=kind, count=length // width), tensor.dtype, first_bad)
        if bad.any():
            count += int(bad.sum())
            first = first if first >= 0 else done // width + int(bad.argmax())
        done += length
        file.seek(tensor.start + done)
    return count, first


def _bad(bits: np.ndarray[Any, Any], dtype: str, first_bad: int) -> np.ndarray[Any, Any]:
    kind = bits.dtype.type
    magnitude = bits & ~kind(1 << (bits.dtype.itemsize * 8 - 1))
    if dtype in _ONLY:
        return np.asarray((bits == kind(_ONLY[dtype][1])) | (magnitude > kind(first_bad - 1)))
    return np.asarray(magnitude >= kind(first_bad))


@cache
def _first_above(dtype: str, limit: float) -> int:
    """Return the lowest bits without a sign that are above a limit, or not finite: without the sign, floats are in the order of their bits."""
    end = _FROM[dtype][1] if dtype in _FROM else _ONLY[dtype][1]
    if math.isinf(limit):
        return end
    return bisect_right(range(end), limit, key=lambda bits: _value(dtype, bits))


def _value(dtype: str, bits: int) -> float:
    fraction_bits, bias = _LAYOUT[dtype]
    exponent, fraction = bits >> fraction_bits, bits & ((1 << fraction_bits) - 1)
    if exponent:
        fraction, exponent = fraction | 1 << fraction_bits, exponent - 1
    return math.ldexp(fraction, exponent + 1 - bias - fraction_bits)
