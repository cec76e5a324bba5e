"""Whether every value of a tensor is finite: bit tests on blocks of the file, so that memory stays small and bfloat16 needs no library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graftwork_store.tensors import Tensor

_BLOCK_BYTES = 256 << 10
# dtype of the file -> unsigned integer of the same width, exponent bits: all set means infinite or NaN
_EXPONENT: dict[str, tuple[type[np.unsignedinteger], int]] = {"BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000)}

FLOAT_DTYPES = tuple(_EXPONENT)


def not_finite(path: Path, tensors: dict[str, Tensor]) -> tuple[str, int, int] | None:
    """Return the first tensor (in file order) with values that are not finite: its name, how many, the index of the first; or None."""
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            kind, mask = _EXPONENT[tensor.dtype]
            width = np.dtype(kind).itemsize
            count, first, done = 0, -1, 0
            file.seek(tensor.start)
            while done < tensor.end - tensor.start:
                length = file.readinto(memoryview(block)[: min(_BLOCK_BYTES, tensor.end - tensor.start - done)])
                length -= length % width
                if not length:
                    raise OSError(f"{path}: ends before {tensor.end}")
                bad = (np.frombuffer(block, dtype=kind, count=length // width) & kind(mask)) == kind(mask)
                if bad.any():
                    count += int(bad.sum())
                    first = first if first >= 0 else done // width + int(bad.argmax())
                done += length
                file.seek(tensor.start + done)
            if count:
                return name, count, first
    return None
