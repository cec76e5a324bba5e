"""`fill`: brings one revision of a model to a cache's claim and removes what nobody needs there (contracts, section 7d)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from graftwork_store import results
from graftwork_store.errors import DigestMismatch, DiskFull, FillFailed, StoreError

from graftwork_agent.downloading import progress_lines
from graftwork_agent.fill_instructions import Instructions
from graftwork_agent.fill_progress import FillProgress
from graftwork_agent.fill_server import serving
from graftwork_agent.filled import MANIFEST, Claim, failed
from graftwork_agent.inspecting import open_model
from graftwork_agent.model_files import ModelFile, ModelSource, check_content, check_listing
from graftwork_agent.refusal import Refusal

_TERMINATED = 128 + signal.SIGTERM
_MOST_PRUNED = 100
_PARALLEL_FILES = 4


def main() -> int:
    """Run as the container's only process: it ends at SIGTERM, and what it writes belongs to the group too, since another user may fill next."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))  # the next attempt keeps what is whole, so nothing has to be put away
    os.umask(0o002)
    return run()


def run(env: Mapping[str, str] | None = None) -> int:
    """Fill and return the exit code; the termination message tells the same in full."""
    env = os.environ if env is None else env
    fill: Fill | None = None
    try:
        wanted = Instructions.parse(env.get("GRAFTWORK_FILL", ""))
        fill = Fill(wanted, env)
        with serving(fill.progress, wanted.port):
            result = _succeeded(fill, fill.run())
    except (Refusal, StoreError) as error:
        result = _failed(fill, error.reason, error.message)
    except OSError as error:
        told = _told(error)
        result = _failed(fill, told.reason, told.message)
    print(f"{result['reason']}: {result['message'] or result.get('filled')}", flush=True)
    results.write(result)
    return results.exit_code(result)


class Fill:
    """One attempt."""

    def __init__(self, wanted: Instructions, env: Mapping[str, str]) -> None:
        self.claim = Claim(wanted.to, wanted.key)
        self.progress = FillProgress(wanted.key, wanted.size_bytes)
        self.pruned: list[str] = []
        self._wanted = wanted
        self._env = env
        self._lock = threading.Lock()
        self._fetched_bytes = 0

    def run(self) -> dict[str, Any]:
        """Bring the model to the claim, and remove what is no longer needed; returns what the result says of it."""
        began = time.monotonic()
        files = self._complete()
        if files is None:
            try:
                self._bring()
            except (StoreError, OSError):
                if self._complete() is None:
                    raise
                print("another fill of the same model was faster", flush=True)  # and its files are as good as ours
            files = self._complete()
            if files is None:
                raise FillFailed(f"models/{self._wanted.key} on claim {self._wanted.claim} lost files as soon as it was there; it is filled again")
        self.progress.enter("Pruning")
        self._prune()
        self.claim.open_compiled()
        return {
            "key": self._wanted.key,
            "files": len(files),
            "bytes": sum(size for _, size in files),
            "fetchedBytes": self._fetched_bytes,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _complete(self) -> list[tuple[str, int]] | None:
        return self.claim.complete(self._wanted.place, self._wanted.revision)

    def _bring(self) -> None:
        self.claim.reopen(self._wanted.place, self._wanted.revision)
        model = open_model(self._wanted.source, self._env)
        check_listing(model, self._wanted.digest)
        files = [file for file in model.files if file.path != MANIFEST]  # a bucket may hold a copy of a cached model
        try:
            with self.claim.attempt() as scratch:
                self._bring_files(model, files, scratch)
        except OSError as error:
            told = _told(error)
            raise self._full(files, told.message) if isinstance(told, DiskFull) else told from None
        except DiskFull as error:
            raise self._full(files, error.message) from None

    def _bring_files(self, model: ModelSource, files: list[ModelFile], scratch: Path) -> None:
        try:
            self._fetch(model, files, scratch)
            self.claim.publish(self._wanted.place, self._wanted.revision, files, scratch)
        except (StoreError, OSError):
            if scratch.is_dir():
                raise
            raise FillFailed(f"another fill removed what this one was fetching to claim {self._wanted.claim}; it is tried again") from None

    def _fetch(self, model: ModelSource, files: list[ModelFile], scratch: Path) -> None:
        total = sum(file.size for file in files)
        missing = self._missing(model, files, total)
        need = sum(file.size for file in missing)
        if need > self.claim.free_bytes():
            self.progress.enter("Pruning")
            self._prune()
        if need > self.claim.free_bytes():
            raise DiskFull("")
        self.progress.enter("Downloading")
        show = progress_lines()

        def tell(done: int, _: int) -> None:
            self.progress.fetched(done)
            show(total - need + done, total)
            if done >= need:
                self.progress.enter("Verifying")

        model.fetch(missing, scratch, self._place, tell)

    def _place(self, file: ModelFile, path: Path) -> None:
        self.claim.place(file.path, path)
        with self._lock:
            self._fetched_bytes += file.size

    def _missing(self, model: ModelSource, files: list[ModelFile], total: int) -> list[ModelFile]:
        """Return the files that no attempt before has brought."""
        self.progress.enter("Verifying")
        missing, here = [], 0
        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            for file, is_here in zip(files, pool.map(lambda file: self._is_here(model, file), files), strict=True):
                here += file.size if is_here else 0
                self.progress.found(here, total)
                if not is_here:
                    missing.append(file)
        return missing

    def _is_here(self, model: ModelSource, file: ModelFile) -> bool:
        """Whether an attempt before has brought this file; it is read again where the source tells its hash."""
        path = self.claim.filling / file.path
        try:
            check_content(model.uri, file, path)
        except FileNotFoundError:
            return False
        except DigestMismatch as error:
            print(f"what lies on the claim is fetched again: {error.message}", flush=True)
            path.unlink(missing_ok=True)
            return False
        return True

    def _full(self, files: list[ModelFile], cause: str) -> DiskFull:
        here = sum(file.size for file in files if (self.claim.filling / file.path).is_file())
        need, free = sum(file.size for file in files) - here, self.claim.free_bytes()
        compiled = self.claim.compiled_bytes()
        spare = f"; what engines compiled has {compiled} bytes there, and any folder in compile/ may be deleted" if compiled else ""
        more = f"at least {need - free} bytes more" if need > free else "more room"
        return DiskFull(
            f"claim {self._wanted.claim}: {need} bytes of {self._wanted.source} are to be written, {free} bytes are free{cause and f' ({cause})'}; "
            f"give the claim {more} (cache.size), or keep fewer revisions (cache.keep){spare}. What is on it stays"
        )

    def _prune(self) -> None:
        self.pruned += self.claim.prune(self._wanted.keep)


def _told(error: OSError) -> StoreError:
    return failed(error, Path(error.filename).name if isinstance(error.filename, (str, os.PathLike)) else "a file")


def _succeeded(fill: Fill, filled: dict[str, Any]) -> dict[str, Any]:
    return _built(fill, "Succeeded", "ModelCached", filled=filled)


def _failed(fill: Fill | None, reason: str, message: str) -> dict[str, Any]:
    return _built(fill, "Failed", reason, message)


def _built(fill: Fill | None, outcome: str, reason: str, message: str = "", **fields: Any) -> dict[str, Any]:
    result = results.build(outcome, reason, message, api_version=results.FILL_API_VERSION, **fields)
    if fill is not None:
        result["pruned"] = fill.pruned[:_MOST_PRUNED]
        try:
            result["freeBytes"] = fill.claim.free_bytes()
        except OSError as error:
            print(f"the claim's free room cannot be read: {error.strerror}", flush=True)
    return result
