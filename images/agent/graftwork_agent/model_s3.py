"""A model below an s3:// prefix: its listing and parts of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import obstore
from graftwork_store.clients import s3_client
from graftwork_store.errors import SourceNotFound, translated
from graftwork_store.sources import Downloaded, Progress, download_files, parse_s3, under_prefix

from graftwork_agent.model_files import ModelFile, check_format, listing_digest


class BucketModel:
    """The objects below a prefix; their revision is the digest of the listing, since a bucket has no commits."""

    def __init__(self, uri: str, env: Mapping[str, str] | None = None) -> None:
        bucket, self._prefix = parse_s3(uri)
        self.uri = uri
        with translated(uri, source=True):
            self._client = s3_client(bucket, "", env, read_timeout="60s", attempts=6)
            found = under_prefix(self._client, uri, self._prefix)
        if not found:
            raise SourceNotFound(f"{uri}: nothing lies there; upload the model or correct the name")
        check_format(uri, [file.name for file in found])
        self._listed = {file.name: file for file in found}
        self.files = tuple(ModelFile(file.name, file.size, file.e_tag or file.modified.isoformat()) for file in found)
        self.revision = listing_digest(self.files)

    def read(self, file: ModelFile, start: int, length: int) -> bytes:
        """Return a part of an object, of the version that was listed."""
        length = min(length, file.size - start)
        if length <= 0:
            return b""
        with translated(f"{self.uri}/{file.path}", source=True):
            return bytes(obstore.get_range(self._client, f"{self._prefix}/{file.path}", start=start, length=length))

    def fetch(self, files: Sequence[ModelFile], to: Path, whole: Callable[[ModelFile, Path], None], progress: Progress | None = None) -> None:
        """Bring objects to an empty folder in parts, each of the version that was listed."""
        wanted = {file.path: file for file in files}
        download_files(
            self._client,
            self.uri,
            [self._listed[path] for path in wanted],
            to,
            progress=progress,
            whole=lambda name: whole(wanted[name], to / name),
        )

    def download(self, to: Path, progress: Progress | None = None) -> Downloaded:
        """Bring all objects to a folder; each appears when it is whole, so that a killed run keeps what it had done."""
        return download_files(self._client, self.uri, list(self._listed.values()), to, progress=progress)
