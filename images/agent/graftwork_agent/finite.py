"""Whether every value of a tensor is finite: bit tests on blocks of the file, so that memory stays small and bfloat16 needs no library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from graftwork_store.tensors import Tensor

_BLOCK_BYTES = 256 << 10
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

FLOAT_DTYPES = (*_FROM, *_ONLY)


def not_finite(path: Path, tensors: dict[str, Tensor]) -> tuple[str, int, int] | None:
    """Return the first tensor (in file order) with values that are not finite: its name, how many, the index of the first; or None."""
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            kind = (_FROM.get(tensor.dtype) or _ONLY[tensor.dtype])[0]
            width = np.dtype(kind).itemsize
            count, first, done = 0, -1, 0
            file.seek(tensor.start)
            while done < tensor.end - tensor.start:
                length = file.readinto(memoryview(block)[: min(_BLOCK_BYTES, tensor.end - tensor.start - done)])
                length -= length % width
                if not length:
                    raise OSError(f"{path}: ends before {tensor.end}")
                bad = _bad(np.frombuffer(block, dtype=kind, count=length // width), tensor.dtype)
                if bad.any():
                    count += int(bad.sum())
                    first = first if first >= 0 else done // width + int(bad.argmax())
                done += length
                file.seek(tensor.start + done)
            if count:
                return name, count, first
    return None


def _bad(bits: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    if dtype in _ONLY:
        kind, nan = _ONLY[dtype]
        return np.asarray(bits == kind(nan))
    kind, first = _FROM[dtype]
    sign = kind(1 << (np.dtype(kind).itemsize * 8 - 1))
    return np.asarray((bits & ~sign) >= kind(first))
