"""Where things lie that outlive one run: everything is outside the source tree, and build results are named by the hash of their inputs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"


def cache_root(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of all that may be kept: GRAFTWORK_CACHE, else XDG_CACHE_HOME/graftwork, else ~/.cache/graftwork."""
    env = os.environ if environ is None else environ
    if own := env.get("GRAFTWORK_CACHE"):
        return Path(own).absolute()
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".cache")
    return Path(base).absolute() / "graftwork"


def cluster_root(environ: Mapping[str, str] | None = None) -> Path:
    """Return the state folder of the cluster: GRAFTWORK_CLUSTER, else <cache>/cluster."""
    env = os.environ if environ is None else environ
    if own := env.get("GRAFTWORK_CLUSTER"):
        return Path(own).absolute()
    return cache_root(env) / "cluster"


def digest_of(parts: Iterable[bytes | str]) -> str:
    """Return 16 hex digits over the parts; lengths are hashed too, so that moving a byte from one part to the next changes the result."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()[:16]


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path` while the block runs; a second process waits for the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    beside.replace(path)
