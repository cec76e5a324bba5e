"""Taking an adapter out of an archive that nobody vouches for: tar, gzipped tar, zip.

Only regular files whose base name is on the allow-list are written, under that name. What an archive claims is not believed: sizes are counted
while the data comes out, and headers that are read as a whole are limited.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from graftwork_store.digest import ALLOWED_FILES
from graftwork_store.errors import DiskFull, FileNotAllowed, SourceInvalid

from graftwork_agent.adapter_sources import check_names, too_large
from graftwork_agent.bounded import Bounded, TooMuch

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
ENTRIES_LIMIT = 10_000
HEADER_LIMIT_BYTES = 4 << 20
_CHUNK_BYTES = 256 << 10
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


def extract(uri: str, archive: Path, to: Path, limit: int) -> None:
    """Write the adapter in `archive` to `to`.

    Raises:
        FileNotAllowed: an entry is a link, a device, leads out of the folder, or is there twice; or the weights are a pickle.
        SourceInvalid: it is not an archive of its name's kind, is cut off, or has more than `limit` bytes.
        SourceNotFound: it has no adapter.
        DiskFull: the volume has no room.
    """
    writer = _Writer(uri, to, limit)
    try:
        if uri.endswith(".zip"):
            _zip(archive, writer)
        else:
            _tar(archive, writer, limit)
    except TooMuch as error:
        if error.header:
            raise SourceInvalid(f"{uri}: a header of more than {error.limit} bytes; make the archive anew, of the adapter's files only") from None
        raise too_large(uri, error.size, limit) from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise SourceInvalid(f"{uri}: cannot be read as an archive of its name's kind ({error}); it is cut off or was made by another tool") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{uri}: no room left on the volume for what is in the archive; give it a larger size") from None
        raise SourceInvalid(f"{uri}: cannot be read as an archive ({error}); make it anew") from None
    check_names(uri, writer.seen)


class _Writer:
    """Judges each entry and writes those that belong to an adapter."""

    def __init__(self, uri: str, to: Path, limit: int) -> None:
        self._uri = uri
        self._to = to
        self._left = limit
        self._limit = limit
        self._entries = 0
        self.seen: dict[str, str] = {}

    def refused(self, entry: str, why: str) -> FileNotAllowed:
        """Return the error for an entry."""
        return FileNotAllowed(f"{self._uri}: entry {entry[:200]!r} {why}; make the archive anew, of the adapter's own regular files")

    def wanted(self, entry: str) -> bool:
        """Judge the name of an entry, whatever its kind; returns whether it is a file of an adapter."""
        self._entries += 1
        if self._entries > ENTRIES_LIMIT:
            raise SourceInvalid(f"{self._uri}: more than {ENTRIES_LIMIT} entries; make the archive anew, of the adapter's files only")
        path = PurePosixPath(entry)
        if path.is_absolute() or "\\" in entry or "\0" in entry or entry[1:2] == ":":
            raise self.refused(entry, "has an absolute path, a backslash or a zero byte")
        if ".." in path.parts:
            raise self.refused(entry, "leads out of the folder by '..'")
        return path.name in ALLOWED_FILES

    def note(self, entry: str) -> None:
        """Remember a regular file that is not taken out."""
        self.seen.setdefault(PurePosixPath(entry).name, entry)

    def write(self, entry: str, data: IO[bytes]) -> None:
        """Write one file under its base name."""
        name = PurePosixPath(entry).name
        if name in self.seen:
            raise self.refused(entry, f"is {name} a second time, after {self.seen[name][:200]!r}")
        self.seen[name] = entry
        with (self._to / name).open("xb") as file:
            while chunk := data.read(_CHUNK_BYTES):
                self._left -= len(chunk)
                if self._left < 0:
                    raise TooMuch(self._limit - self._left, self._limit, header=False)
                file.write(chunk)


def _tar(archive: Path, writer: _Writer, limit: int) -> None:
    with _unpacked(archive) as plain:
        # Twice the limit for everything that comes out, so that other files beside the adapter are no reason to refuse it.
        bounded = Bounded(plain, 2 * limit, HEADER_LIMIT_BYTES)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as tar:
            while (member := tar.next()) is not None:
                _tar_entry(tar, member, bounded, writer)
                bounded.next_entry()
        bounded.drain()


def _tar_entry(tar: tarfile.TarFile, member: tarfile.TarInfo, bounded: Bounded, writer: _Writer) -> None:
    wanted = writer.wanted(member.name)
    if member.isdir():
        return
    if member.issym() or member.islnk():
        raise writer.refused(member.name, f"is a link to {member.linkname[:200]!r}")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise writer.refused(member.name, "is not a regular file")
    if not wanted:
        writer.note(member.name)
        return
    data = tar.extractfile(member)
    if data is None:
        raise writer.refused(member.name, "has no data")
    bounded.in_data = True
    with data:
        writer.write(member.name, data)
    bounded.in_data = False


@contextlib.contextmanager
def _unpacked(archive: Path) -> Iterator[BinaryIO]:
    """Open a tar, gzipped or not: its first bytes tell, for servers and browsers unpack on the way."""
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as plain:
            yield cast(BinaryIO, plain)


class _ZipFile(io.FileIO):
    """The archive's file; the reader takes the whole directory at once, as large as the archive says."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, but not more than a header may have."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > HEADER_LIMIT_BYTES:
            raise TooMuch(size, HEADER_LIMIT_BYTES, header=True)
        return super().read(size) or b""


def _zip(archive: Path, writer: _Writer) -> None:
    with _ZipFile(archive) as file, zipfile.ZipFile(file) as container:
        for info in container.infolist():
            name = info.filename
            wanted = writer.wanted(info.orig_filename)
            if name != info.orig_filename:
                raise writer.refused(info.orig_filename, "has a second name")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if kind == stat.S_IFLNK:
                raise writer.refused(name, "is a link")
            if kind not in (0, stat.S_IFREG):
                raise writer.refused(name, "is not a regular file")
            if not wanted:
                writer.note(name)
                continue
            if info.flag_bits & _ENCRYPTED or info.compress_type not in _ZIP_METHODS:
                raise writer.refused(name, "is encrypted or packed by a method other than store and deflate")
            with container.open(info) as data:
                writer.write(name, data)
