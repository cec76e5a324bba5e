"""A model of a hub, by the hub's own library: its listing at one commit, parts of its files, and all of them in a folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from graftwork_store.errors import DigestMismatch, DiskFull, SourceFileTooLarge, SourceInvalid, SourceUnreachable
from graftwork_store.sources import Downloaded, Progress

from graftwork_agent import source_hub
from graftwork_agent.hub_counter import Counter
from graftwork_agent.model_files import ModelFile, check_content, check_format, served

_STAGING = ".graftwork-hub"
_PARALLEL_FILES = 4
_ATTEMPTS = 2
_GIT_HASH = re.compile(r"[0-9a-f]{40}")


class HubModel:
    """The model at the commit that its revision names at this moment."""

    def __init__(self, uri: str, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env
        source = source_hub.parse(uri)
        if source.folder:
            raise SourceInvalid(f"source {uri!r}: a model is a whole repository, hf://<owner>/<repository>; it has no folder {source.folder!r}")
        self._given = uri
        self._repository = source.repository
        self._hub = source_hub.library(self._env)
        self._endpoint, self._token = self._env.get("HF_ENDPOINT") or None, self._env.get("HF_TOKEN") or False
        with source_hub.translated(uri, self._env, self._hub):
            info = self._hub.HfApi(endpoint=self._endpoint, token=self._token).model_info(
                source.repository, revision=source.revision, files_metadata=True, timeout=source_hub.SECONDS
            )
        self.uri = source.uri
        self.revision = str(info.sha)
        self._listed: dict[str, Any] = {item.rfilename: item for item in info.siblings or []}
        check_format(f"{self.uri}@{self.revision}", self._listed)
        self.files = tuple(_file(self._listed[path]) for path in served(self._listed))
        self._check_sizes()

    def _check_sizes(self) -> None:
        limit = int(self._hub.constants.MAX_HTTP_DOWNLOAD_SIZE)
        largest = max(self.files, key=lambda file: file.size)
        if largest.size > limit:
            raise SourceFileTooLarge(
                f"{self.uri}@{self.revision}: {largest.path} has {largest.size} bytes, and over plain HTTP the hub's files may have {limit}; split "
                "the weights into smaller shards (save_pretrained with max_shard_size), or copy the model to s3:// or pvc:// and name that"
            )

    def read(self, file: ModelFile, start: int, length: int) -> bytes:
        """Return a part of a file, by a range request."""
        length = min(length, file.size - start)
        if length <= 0:
            return b""
        utils = self._hub.utils
        url = self._hub.hf_hub_url(self._repository, file.path, revision=self.revision, endpoint=self._endpoint)
        headers = utils.build_hf_headers(token=self._token, headers={"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"})
        with (
            source_hub.translated(self._given, self._env, self._hub),
            utils.http_stream_backoff("GET", url, headers=headers, max_retries=_ATTEMPTS) as response,
        ):
            utils.hf_raise_for_status(response)
            if response.status_code != 206 and start:  # whatever answers whole files would be read from their beginning
                raise SourceUnreachable(f"{self.uri}: {file.path} is not sent in parts (HTTP {response.status_code}); tell the keeper of the hub")
            found = b""
            for chunk in response.iter_bytes():
                found += chunk
                if len(found) >= length:
                    break
        if len(found) < length:
            raise SourceUnreachable(f"{self.uri}: {file.path} ended after {start + len(found)} of {file.size} bytes; it is read again")
        return found[:length]

    def download(self, to: Path, progress: Progress | None = None) -> Downloaded:
        """Bring the files to a folder, several at once; each appears when it is whole and checked, so that a killed run keeps what it had done."""
        staging = to / _STAGING
        to.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        missing = [file for file in self.files if not _is_there(to, file)]
        total = sum(file.size for file in self.files)
        kept = total - sum(file.size for file in missing)
        self._check_room(to, total - kept)
        try:
            self.fetch(missing, staging, lambda file, path: _move(path, to / file.path), lambda done, _: progress and progress(kept + done, total))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Downloaded(tuple(file.path for file in self.files), total, kept)

    def fetch(self, files: Sequence[ModelFile], to: Path, whole: Callable[[ModelFile, Path], None], progress: Progress | None = None) -> None:
        """Bring files to an empty folder, several at once; one that is not the listed one is fetched a second time before it is refused."""
        counter = Counter(sum(file.size for file in files), progress)
        pool = ThreadPoolExecutor(_PARALLEL_FILES)
        try:
            for future in as_completed([pool.submit(self._fetch, file, to, whole, counter) for file in files]):
                future.result()
        except BaseException:
            counter.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch(self, file: ModelFile, to: Path, whole: Callable[[ModelFile, Path], None], counter: Counter) -> None:
        with source_hub.translated(self._given, self._env, self._hub):
            for attempt in range(1, _ATTEMPTS + 1):
                path = Path(
                    self._hub.hf_hub_download(
                        self._repository,
                        file.path,
                        revision=self.revision,
                        endpoint=self._endpoint,
                        token=self._token,
                        local_dir=to,
                        etag_timeout=source_hub.SECONDS,
                        force_download=attempt > 1,
                        tqdm_class=counter.bar(file.path, file.size),
                    )
                )
                try:
                    check_content(f"{self.uri}@{self.revision}", file, path)
                    break
                except DigestMismatch:
                    if attempt == _ATTEMPTS:
                        raise
        counter.whole(file.path, file.size)
        whole(file, path)

    def _check_room(self, to: Path, size: int) -> None:
        free = shutil.disk_usage(to).free
        if size > free:
            raise DiskFull(f"{self.uri}: {size} bytes to download, {free} bytes free in {to}; give the volume at least {size - free} bytes more")


def _file(listed: Any) -> ModelFile:
    large = listed.lfs
    path = listed.rfilename
    if "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise SourceInvalid(f"the hub lists {path!r}, which is no file name below a folder; rename it in the repository")
    size = int(listed.size or (large.size if large else 0) or 0)
    if large:
        return ModelFile(path, size, str(large.sha256), "sha256")
    mark = str(listed.blob_id or "")
    return ModelFile(path, size, mark, "git" if _GIT_HASH.fullmatch(mark) else "etag")


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, to)


def _is_there(to: Path, file: ModelFile) -> bool:
    """Whether a run before a restart has finished this file: it gets its name only when it is checked."""
    try:
        return (to / file.path).stat().st_size == file.size
    except OSError:
        return False
