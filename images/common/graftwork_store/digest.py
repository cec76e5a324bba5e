"""The digest of an adapter: which files count, and the one rule that names their bytes (contracts, section 9)."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from graftwork_store.errors import FileNotAllowed

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE)
ALLOWED_FILES = (
    CONFIG_FILE,
    WEIGHTS_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True)
class FileEntry:
    """One file of an adapter: its name, its size in bytes and its sha256 in lower-case hex."""

    path: str
    size: int
    sha256: str


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file; reading it whole also leaves it in the page cache."""
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_of(entries: Iterable[FileEntry]) -> str:
    """Return `sha256:<hex>` over `<path>\\0<size>\\0<sha256>\\n` of the entries in bytewise order of path."""
    hasher = hashlib.sha256()
    for entry in sorted(entries, key=lambda item: item.path.encode()):
        hasher.update(f"{entry.path}\0{entry.size}\0{entry.sha256}\n".encode())
    return f"sha256:{hasher.hexdigest()}"


def adapter_files(folder: Path) -> list[Path]:
    """Return the files of the allow-list that lie in `folder`.

    Raises:
        FileNotAllowed: one of them is a link, a folder or a device, or a required one is missing.
    """
    found = []
    for name in ALLOWED_FILES:
        path = folder / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            if name in REQUIRED_FILES:
                raise FileNotAllowed(f"{name}: missing; an adapter consists of {CONFIG_FILE} and {WEIGHTS_FILE} at least") from None
            continue
        if not stat.S_ISREG(mode):
            raise FileNotAllowed(f"{name}: not a regular file; links, folders and devices are refused, copy the file itself")
        found.append(path)
    return found


def adapter_entries(folder: Path) -> list[FileEntry]:
    """Hash the files of an adapter's folder; raises like `adapter_files`."""
    return [FileEntry(path.name, path.stat().st_size, file_sha256(path)) for path in adapter_files(folder)]


def adapter_digest(folder: Path) -> str:
    """Return the digest of the adapter that lies in `folder`."""
    return digest_of(adapter_entries(folder))
