"""A file object over data that nobody trusts: what is read in all, and for one header, is limited."""

from __future__ import annotations

import io
from typing import BinaryIO

_SKIP_BYTES = 256 << 10


class TooMuch(Exception):  # noqa: N818 - it says what was met
    """More bytes than are allowed; `header` tells whether one header alone had them."""

    def __init__(self, size: int, limit: int, *, header: bool) -> None:
        super().__init__(f"more than {limit} bytes")
        self.size = size
        self.limit = limit
        self.header = header


class Bounded(io.RawIOBase):
    """A readable that counts every byte that comes out, also those that are skipped.

    Archive readers take whole headers into memory, as large as the archive says. So outside of a file's data (`in_data`) no more than
    `header_limit` bytes can be read until the next call of `next_entry`.
    """

    def __init__(self, file: BinaryIO, limit: int, header_limit: int) -> None:
        self._file = file
        self._limit = limit
        self._header_limit = header_limit
        self._header_read = 0
        self._total = 0
        self._position = 0
        self.in_data = False

    def next_entry(self) -> None:
        """Start the count of header bytes anew."""
        self._header_read = 0

    def drain(self) -> None:
        """Read what is left: a packed file's checksum stands at its end."""
        while self._take(_SKIP_BYTES):
            pass

    def readable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return how far it was read."""
        return self._position

    def seekable(self) -> bool:
        """Forward only, by reading."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip forward to an offset from the start."""
        if whence != io.SEEK_SET or offset < self._position:
            raise OSError("the archive's entries are not in order")
        while self._position < offset and self._take(min(_SKIP_BYTES, offset - self._position)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes unless the data ends."""
        if not self.in_data:
            self._header_read += max(size, 0)
            if size < 0 or self._header_read > self._header_limit:
                raise TooMuch(self._header_read, self._header_limit, header=True)
        parts = []
        while size and (part := self._take(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        self._total += len(data)
        self._position += len(data)
        if self._total > self._limit:
            raise TooMuch(self._total, self._limit, header=False)
        return data
