"""What a fake hub holds: repositories of commits, who may read them, and how files and commits are named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

LARGE_BYTES = 1 << 20
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
_POINTER_BYTES = 134


@dataclass(frozen=True)
class File:
    """One version of a file. A large one is kept beside git, named by its sha256; a small one in it, named by its git hash."""

    path: str
    data: bytes

    @property
    def large(self) -> bool:
        """Whether the hub keeps it as LFS does."""
        return len(self.data) >= LARGE_BYTES or self.path.endswith(LARGE_SUFFIXES)

    @property
    def sha256(self) -> str:
        """The name of a large file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob(self) -> str:
        """The git object: the file itself, or the pointer to a large one."""
        data = f"version https://git-lfs\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode() if self.large else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        """What a client sees change when the content does."""
        return self.sha256 if self.large else self.blob

    def entry(self) -> dict[str, object]:
        """The file in a listing of a tree."""
        found: dict[str, object] = {
            "type": "file",
            "path": self.path,
            "size": len(self.data),
            "oid": self.blob,
        }
        if self.large:
            found["lfs"] = {
                "oid": self.sha256,
                "size": len(self.data),
                "pointerSize": _POINTER_BYTES,
            }
        return found

    def sibling(self, *, blobs: bool) -> dict[str, object]:
        """The file in the facts of a model; with `blobs`, its size and hashes too."""
        found: dict[str, object] = {"rfilename": self.path}
        if blobs:
            found |= {"size": len(self.data), "blobId": self.blob}
            if self.large:
                found["lfs"] = {
                    "sha256": self.sha256,
                    "size": len(self.data),
                    "pointerSize": _POINTER_BYTES,
                }
        return found


@dataclass
class Repository:
    """A repository: its commits by sha, its branches and tags by name.

    `private`: only the tokens of `readers` see that it exists. `gated`: everyone sees its facts, only `readers` get its files.
    """

    name: str
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Make these files the whole content of a branch or tag; returns the commit's sha."""
        found = {path: File(path, data) for path, data in sorted(files.items())}
        text = "".join(f"{path}\0{file.blob}\n" for path, file in found.items())
        sha = hashlib.sha1(f"{self.name}\0{revision}\0{len(self.commits)}\0{text}".encode()).hexdigest()
        self.commits[sha] = found
        self.refs[revision] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a full sha."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def folder(self, sha: str, path: str, *, recursive: bool) -> list[dict[str, object]] | None:
        """List a folder of a commit as the hub does; None when it has no such folder."""
        prefix = f"{path}/" if path else ""
        files = [file for file in self.commits[sha].values() if file.path.startswith(prefix)]
        if path and not files:
            return None
        folders = sorted({parent for file in files for parent in _folders(file.path, prefix)})
        listed = [file for file in files if recursive or "/" not in file.path.removeprefix(prefix)]
        shown = [name for name in folders if recursive or "/" not in name.removeprefix(prefix)]
        return [{"type": "directory", "path": name, "size": 0, "oid": _hash(name)} for name in shown] + [file.entry() for file in listed]


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path in a repository; hidden ones are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _folders(path: str, prefix: str) -> Iterable[str]:
    return (str(parent) for parent in PurePosixPath(path).parents if str(parent) != "." and str(parent).startswith(prefix))


def _hash(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
