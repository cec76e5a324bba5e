"""`download --kind adapter`: the allow-listed files of a foreign adapter, brought into one folder (contracts, section 7a)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from graftwork_store.digest import REQUIRED_FILES, WEIGHTS_FILE
from graftwork_store.errors import DiskFull, FileNotAllowed, SourceInvalid, SourceNotFound

LIMIT_VARIABLE = "GRAFTWORK_IMPORT_MAX_BYTES"
LIMIT_BYTES = 16 << 30
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
KINDS = "s3://<bucket>/<prefix>, hf://<owner>/<repository>[/<folder>][@<revision>], https://<host>/<folder>/ or https://<host>/<archive>.tar.gz"
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Resolved:
    """What a source turned out to be: its URI without the revision, and the commit or etag that was read, "" where there is none."""

    source: str
    revision: str


def download_adapter(uri: str, to: Path, facts: Path | None, env: Mapping[str, str] | None = None) -> Resolved:
    """Download an adapter to `to`, of which everything that lay there is removed; `facts` is written last.

    Raises:
        StoreError: SourceInvalid, SourceNotFound, RevisionNotFound, SourceDenied, SourceGated, SourceUnreachable, FileNotAllowed or DiskFull.
    """
    env = os.environ if env is None else env
    limit = limit_bytes(env)
    scheme = urlsplit(uri).scheme
    empty(to)
    if scheme == "s3":
        from graftwork_agent.source_s3 import fetch
    elif scheme == "hf":
        from graftwork_agent.source_hub import fetch
    elif scheme == "https":
        from graftwork_agent.source_https import fetch
    else:
        raise SourceInvalid(f"source {uri!r}: must be {KINDS}; store:// sources need no import")
    resolved = fetch(uri, to, env, limit)
    if facts:
        facts.write_text(json.dumps(asdict(resolved)))
    return resolved


def limit_bytes(env: Mapping[str, str]) -> int:
    """Return how many bytes an adapter may have."""
    text = env.get(LIMIT_VARIABLE, "")
    if not text:
        return LIMIT_BYTES
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SourceInvalid(f"{LIMIT_VARIABLE}={text!r}: must be a whole number of bytes of at least 1")
    return int(text)


def check_names(uri: str, names: Collection[str]) -> None:
    """Say what is wrong with a source that lacks a required file; `names` are those of its folder.

    Raises:
        FileNotAllowed: the weights are a pickle.
        SourceNotFound: there is no adapter.
    """
    missing = [name for name in REQUIRED_FILES if name not in names]
    pickles = sorted(name for name in names if name.endswith(PICKLE_SUFFIXES))
    if WEIGHTS_FILE in missing and pickles:
        raise FileNotAllowed(
            f"{uri}: {pickles[0]} is a pickle, which can run code when it is read, and there is no {WEIGHTS_FILE}; convert it with the library "
            f"safetensors (safetensors.torch.save_file(torch.load({pickles[0]!r}, weights_only=True), {WEIGHTS_FILE!r})) and upload the result"
        )
    if missing:
        shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
        found = f"found {len(names)} files: {shown}{', …' * (len(names) > _NAMES_SHOWN)}" if names else "nothing lies there"
        raise SourceNotFound(f"{uri}: no {' and no '.join(missing)} ({found}); an adapter is a folder that has both: upload it or correct the source")


def check_size(uri: str, size: int, limit: int, to: Path) -> None:
    """Refuse what is larger than the limit (SourceInvalid) or than the room that is left (DiskFull)."""
    if size > limit:
        raise too_large(uri, size, limit)
    free = shutil.disk_usage(to).free
    if size > free:
        raise DiskFull(f"{uri}: {size} bytes to download, {free} bytes free in {to}; give the volume at least {size - free} bytes more")


def too_large(uri: str, size: int, limit: int) -> SourceInvalid:
    """Return the error for a source that has `size` bytes, or more than that."""
    return SourceInvalid(f"{uri}: {size} bytes or more, the limit of an adapter is {limit}; name the adapter's own folder, or raise {LIMIT_VARIABLE}")


def empty(folder: Path) -> None:
    """Make the folder, or remove what a run before left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
