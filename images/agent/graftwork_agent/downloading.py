"""`download`: fills a folder from a source, as an init container; the last word of a failed one is a termination message."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from graftwork_store import results
from graftwork_store.errors import ModelInvalid, StoreError
from graftwork_store.fingerprint import read_base
from graftwork_store.sources import Downloaded, download

_LINE_SECONDS = 5.0


def run(source: str, to: Path, digest: str = "") -> int:
    """Download and return the exit code; a model is checked to be one before the engine wastes minutes on it.

    With the digest of a listing (contracts, section 7c) nothing but the files of exactly that listing comes.
    """
    started = time.monotonic()
    try:
        done = _model(source, to, digest) if digest or source.startswith("hf://") else download(source, to, progress=progress_lines())
        if "config.json" in done.files and len(done.files) > 1:
            facts = read_base(to)
            print(f"{facts.architecture}: {facts.parameters} parameters, {facts.weights_bytes} bytes of weights, {facts.fingerprint}", flush=True)
    except StoreError as error:
        return _failed(error.reason, error.message)
    except OSError as error:
        return _failed(ModelInvalid.reason if to.is_dir() else "SourceInvalid", f"{to}: {error}")
    seconds = max(time.monotonic() - started, 0.001)
    fetched = done.size_bytes - done.kept_bytes
    print(f"{len(done.files)} files, {done.size_bytes} bytes, {fetched / seconds / 2**20:.1f} MiB/s", flush=True)
    return results.EXIT_OK


def _model(source: str, to: Path, digest: str) -> Downloaded:
    from graftwork_agent.inspecting import open_model
    from graftwork_agent.model_files import check_listing

    model = open_model(source, os.environ)
    if digest:
        check_listing(model, digest)
    return model.download(to, progress_lines())


def run_adapter(source: str, to: Path, facts: Path | None) -> int:
    """Download an adapter from wherever it is and return the exit code; what it is worth is judged by `import`."""
    from graftwork_agent.adapter_sources import download_adapter

    try:
        resolved = download_adapter(source, to, facts)
    except StoreError as error:
        return _failed(error.reason, error.message)
    except OSError as error:
        return _failed("SourceUnreachable", f"{to}: {error}; it is tried again")
    size = sum(path.stat().st_size for path in to.iterdir())
    print(f"{resolved.source} {resolved.revision}: {len(list(to.iterdir()))} files, {size} bytes", flush=True)
    return results.EXIT_OK


def progress_lines(clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Return a callback that prints a line every few seconds and one at the end."""
    last = clock()

    def show(done: int, total: int) -> None:
        nonlocal last
        if done >= total or clock() - last >= _LINE_SECONDS:
            last = clock()
            print(f"{done} of {total} bytes ({100 * done // max(total, 1)} %)", flush=True)

    return show


def _failed(reason: str, message: str) -> int:
    result = results.build("Failed", reason, message)
    print(f"{reason}: {message}", flush=True)
    results.write(result)
    return results.exit_code(result)
