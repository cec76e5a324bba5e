"""A cache's claim: which models lie on it, what a fill has got so far, and what may be removed (contracts, section 7d).

The claim may be of any kind that several nodes can write: nothing here needs hard links, or locks that hold between nodes. Files and folders
get their names by a rename when they are whole, so attempts may end at any moment and several may run at once; locks only save them work.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from graftwork_store.clock import now
from graftwork_store.errors import CacheFailed, DiskFull, FillFailed, StoreError

from graftwork_agent.model_files import ModelFile

MANIFEST = ".graftwork-model.json"
API_VERSION = "graftwork.dev/cached-model/v1"
_KEY = re.compile(r"[0-9a-f]{12}")
_REMAINS = re.compile(r"\.(?P<kind>filling|pruned)-(?P<key>[0-9a-f]{12})(?P<attempt>\.[0-9a-f]{12})?")
_LOCK = "lock"
_ANYBODY = 0o777
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_YOUNG_SECONDS = 60.0
"""An attempt has this long from making its folder to locking it."""


class Claim:
    """The claim as one fill sees it: the model of `key`, and everything else that Graftwork put there."""

    def __init__(self, root: Path, key: str) -> None:
        self._root = root
        self._key = key
        self.models = root / "models"
        self.model = self.models / key
        self.filling = root / f".filling-{key}"
        self.compiled = root / "compile"

    def open_compiled(self) -> None:
        """Make the folder in which engines keep what they compile, whatever user they are; one that somebody else made is left as it is.

        A kubelet would make it as root, and where the volume takes root for nobody, no engine could write to it.
        """
        try:
            self.compiled.mkdir(exist_ok=True)
        except OSError as error:
            raise failed(error, self.compiled.name) from None
        with contextlib.suppress(OSError):  # not ours, or a volume without modes
            self.compiled.chmod(_ANYBODY)

    def compiled_bytes(self) -> int:
        """Return how much of the claim is taken by what engines compiled."""
        sizes = 0
        for folder, _, names in os.walk(self.compiled):
            for name in names:
                with contextlib.suppress(OSError):  # an engine removed it
                    sizes += os.lstat(os.path.join(folder, name)).st_size
        return sizes

    def complete(self, source: str, revision: str) -> list[tuple[str, int]] | None:
        """Return the model's files with their sizes if all are there; raises CacheFailed when the folder is somebody else's."""
        manifest = _manifest(self.model)
        if manifest is None:
            if _is_empty(self.model):
                return None
            raise CacheFailed(
                f"models/{self._key} on the claim has files and no {MANIFEST}: Graftwork did not put them there and leaves them alone; move them away"
            )
        if (manifest.get("source"), manifest.get("revision")) != (source, revision):
            raise CacheFailed(
                f"models/{self._key} on the claim is {manifest.get('source')} at {manifest.get('revision')}, not {source} at {revision}; move it away"
            )
        try:
            files = [(str(file["path"]), int(file["size"])) for file in manifest["files"]]
        except (KeyError, TypeError, ValueError):
            return None
        return files if files and all(_has(self.model / path, size) for path, size in files) else None

    def reopen(self, source: str, revision: str) -> None:
        """Make a model whose files have gone what a fill has got so far; pods that have it mounted keep what is there of it."""
        if _manifest(self.model) is not None and self.complete(source, revision) is None:
            self._remove(self.filling)
            os.rename(self.model, self.filling)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[Path]:
        """Give this attempt an empty folder of its own, and remove those of attempts that were killed."""
        for left in self._root.glob(f"{self.filling.name}.*"):
            if _REMAINS.fullmatch(left.name) and not _in_use(left):
                shutil.rmtree(left, ignore_errors=True)
        folder = self._root / f"{self.filling.name}.{secrets.token_hex(6)}"
        files = folder / "files"
        files.mkdir(parents=True)
        with (folder / _LOCK).open("wb") as lock:
            with contextlib.suppress(OSError):  # a filesystem without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield files
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def place(self, name: str, path: Path) -> None:
        """Put a whole file where the next attempt finds it; what is written is on the disk before it gets its name."""
        try:
            _sync(path)
            target = self.filling / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        except OSError as error:
            raise failed(error, f".filling-{self._key}/{name}") from None

    def publish(self, source: str, revision: str, files: Collection[ModelFile], scratch: Path) -> None:
        """Make what was placed the model. Raises FillFailed when some of it is no longer there: another fill was faster."""
        listed = [{"path": file.path, "size": file.size, "sha256" if file.kind == "sha256" else "etag": file.mark} for file in files]
        document = {"apiVersion": API_VERSION, "source": source, "revision": revision, "files": listed}
        try:
            self._strip({file.path for file in files})
            written = scratch / "manifest"
            written.write_text(json.dumps(document | {"bytes": sum(file.size for file in files), "filledAt": now()}), encoding="utf-8")
            missing = [file.path for file in files if not _has(self.filling / file.path, file.size)]
            if missing:
                raise FillFailed(
                    f".filling-{self._key} on the claim has lost {len(missing)} files, the first is {missing[0]}; they are fetched again"
                )
            self.place(MANIFEST, written)
            for folder in {(self.filling / file.path).parent for file in files}:
                _sync(folder)
            self.models.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                self.model.rmdir()  # an empty one: a kubelet makes it for a pod that comes too early
            os.rename(self.filling, self.model)
            _sync(self.models)
        except OSError as error:
            raise failed(error, f"models/{self._key}") from None

    def prune(self, keep: Collection[str]) -> list[str]:
        """Remove the models that `keep` does not name, and the remains of other fills; returns the keys of the models.

        Only what bears Graftwork's names and manifest is touched. What cannot be removed stays: it is no reason to fail.
        """
        kept = {self._key, *keep}
        removed = []
        for folder in _folders(self.models):
            if _KEY.fullmatch(folder.name) and folder.name not in kept and _manifest(folder) is not None and self._remove(folder):
                removed.append(folder.name)
        for folder in _folders(self._root):
            found = _REMAINS.fullmatch(folder.name)
            if found and self._abandoned(folder, found, kept):
                shutil.rmtree(folder, ignore_errors=True)
        return sorted(removed)

    def _abandoned(self, folder: Path, name: re.Match[str], kept: Collection[str]) -> bool:
        """Whether nobody goes on with what a fill or a removal left."""
        if name["kind"] == "pruned":
            return True
        if name["attempt"]:
            return (name["key"] == self._key or name["key"] not in kept) and not _in_use(folder)
        return name["key"] not in kept or (name["key"] == self._key and _manifest(self.model) is not None)

    def free_bytes(self) -> int:
        """Return how much can still be written."""
        return shutil.disk_usage(self._root).free

    def _remove(self, folder: Path) -> bool:
        """Remove a folder; it loses its name at once, so that nobody takes half of it for the whole."""
        aside = self._root / f".pruned-{folder.name[-len(self._key) :]}.{secrets.token_hex(6)}"
        try:
            os.rename(folder, aside)
        except OSError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _strip(self, names: Collection[str]) -> None:
        """Remove what a fill of this listing does not have: it would look like a part of the model. The manifest may be a faster fill's."""
        for path in [path for path in self.filling.rglob("*") if not path.is_dir() or path.is_symlink()]:
            if str(path.relative_to(self.filling)) not in {*names, MANIFEST}:
                path.unlink()


def failed(error: OSError, what: str) -> StoreError:
    """Return what an error of the claim's filesystem means: DiskFull or FillFailed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{what} on the claim: {error.strerror}")
    remedy = "the pods' user or fsGroup must be able to write to it" if error.errno in _REFUSED else "it is tried again"
    return FillFailed(f"{what} on the claim: {error.strerror or type(error).__name__}; {remedy}")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a model that Graftwork put there; None for any other folder."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("apiVersion") == API_VERSION else None


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.is_symlink())
    except FileNotFoundError:
        return []


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _in_use(folder: Path) -> bool:
    """Whether an attempt that lives has this folder, as far as locks tell."""
    try:
        with (folder / _LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            return time.time() - folder.stat().st_mtime < _YOUNG_SECONDS
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a filesystem that cannot sync folders
            raise
    finally:
        os.close(descriptor)
