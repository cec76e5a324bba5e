"""An adapter of a hub that speaks the Hugging Face API, by its own library; hf://<owner>/<repository>[/<folder>][@<revision>].

The library is imported only here: it is large, and the sidecar never needs it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_store.digest import ALLOWED_FILES, file_sha256
from graftwork_store.errors import (
    CredentialsMissing,
    DigestMismatch,
    DiskFull,
    RevisionNotFound,
    SourceDenied,
    SourceGated,
    SourceInvalid,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
)

from graftwork_agent.adapter_sources import Resolved, check_names, check_size
from graftwork_agent.trust import secret_is_missing, ssl_context

DEFAULT_REVISION = "main"
SECONDS = 60.0
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_ENVIRONMENT = {
    "HF_HUB_DISABLE_XET": "1",  # plain HTTP only: one protocol, and no large native client in a small container
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_VERBOSITY": "error",  # its warnings quote URLs that carry signatures
}


@dataclass(frozen=True)
class HubSource:
    """The parts of a hf:// source; `folder` is "" for the repository's top."""

    repository: str
    folder: str
    revision: str

    @property
    def uri(self) -> str:
        """The source without its revision."""
        return "/".join(part for part in (f"hf://{self.repository}", self.folder) if part)

    def path(self, name: str) -> str:
        """Where a file of the adapter lies in the repository."""
        return f"{self.folder}/{name}" if self.folder else name


def parse(uri: str) -> HubSource:
    """Parse a hf:// source; raises SourceInvalid."""
    place, at, revision = uri.removeprefix("hf://").partition("@")
    owner, _, rest = place.partition("/")
    repository, _, folder = rest.rstrip("/").partition("/")
    parts = [owner, repository, *(folder.split("/") if folder else [])]
    if not uri.startswith("hf://") or not all(_PART.fullmatch(part) for part in parts):
        raise SourceInvalid(f"source {uri!r}: must be hf://<owner>/<repository>[/<folder>][@<revision>]; parts are letters, digits, '.', '_' and '-'")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise SourceInvalid(f"source {uri!r}: revision {revision!r} must be a branch, a tag or a commit; leave out @ for {DEFAULT_REVISION}")
    return HubSource(f"{owner}/{repository}", folder, revision or DEFAULT_REVISION)


def fetch(uri: str, to: Path, env: Mapping[str, str], limit: int) -> Resolved:
    """Download the adapter's files of the one commit that the revision names now."""
    source = parse(uri)
    hub = library(env)
    endpoint, token = env.get("HF_ENDPOINT") or None, env.get("HF_TOKEN") or False
    staging = to.parent / f".{to.name}-hub"
    with translated(uri, env, hub):
        info = hub.HfApi(endpoint=endpoint, token=token).model_info(source.repository, revision=source.revision, files_metadata=True, timeout=SECONDS)
        files = _files(source, info)
        check_names(f"{source.uri}@{info.sha}", files)
        wanted = [name for name in ALLOWED_FILES if name in files]
        check_size(uri, sum(files[name].size or 0 for name in wanted), limit, to)
        try:
            for name in wanted:
                path = hub.hf_hub_download(
                    source.repository, source.path(name), revision=info.sha, endpoint=endpoint, token=token, local_dir=staging, etag_timeout=SECONDS
                )
                check_file(f"{source.uri}@{info.sha}/{name}", Path(path), files[name])
                os.replace(path, to / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Resolved(source.uri, str(info.sha))


def library(env: Mapping[str, str]) -> Any:
    """Import huggingface_hub with its settings, which it reads at import, and give it our certificates and time limits."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import httpx2  # the client that the library is built on
    import huggingface_hub

    context = ssl_context(env)
    timeout = httpx2.Timeout(SECONDS, connect=10.0)
    huggingface_hub.set_client_factory(lambda: httpx2.Client(verify=context, follow_redirects=True, timeout=timeout))
    return huggingface_hub


def _files(source: HubSource, info: Any) -> dict[str, Any]:
    """Return what lies directly in the source's folder, by name."""
    prefix = f"{source.folder}/" if source.folder else ""
    names = {item.rfilename.removeprefix(prefix): item for item in info.siblings or [] if item.rfilename.startswith(prefix)}
    return {name: item for name, item in names.items() if "/" not in name}


def check_file(what: str, path: Path, listed: Any) -> None:
    """Check that a file has the size that the hub lists, and the hash if it lists one (large files)."""
    size = path.stat().st_size
    if listed.size is not None and size != listed.size:
        raise DigestMismatch(f"{what}: {size} bytes, the hub lists {listed.size}; fetch it again")
    if listed.lfs is not None and listed.lfs.sha256 != (found := file_sha256(path)):
        raise DigestMismatch(f"{what}: sha256 {found}, the hub lists {listed.lfs.sha256}; upload the file again")


@contextlib.contextmanager
def translated(uri: str, env: Mapping[str, str], hub: Any) -> Iterator[None]:
    """Turn the library's errors into ours; their texts are not quoted, for they can have URLs that carry signatures."""
    import httpx2

    try:
        yield
    except StoreError:
        raise
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise _classify(uri, env, hub, error) from None


def _classify(uri: str, env: Mapping[str, str], hub: Any, error: Exception) -> StoreError:
    errors = hub.errors
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what the request for the file's facts met
    status = getattr(getattr(error, "response", None), "status_code", 0)
    where = f"{uri} at {env.get('HF_ENDPOINT') or 'the public hub'}"
    known = "HF_TOKEN of credentialsSecret" if env.get("HF_TOKEN") else "no HF_TOKEN in credentialsSecret"
    result: StoreError
    if status in (401, 403, 404) and secret_is_missing(env, "HF_TOKEN"):
        result = CredentialsMissing(
            f"{where}: refused (HTTP {status}), and the Secret of credentialsSecret is not there, or has no key HF_TOKEN; create it, or correct "
            "the name"
        )
    elif isinstance(error, errors.GatedRepoError):
        result = SourceGated(
            f"{where}: the repository is gated (HTTP {status}, {known}); accept its terms on the hub and set key HF_TOKEN of credentialsSecret to "
            "a token of the account that did"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        result = RevisionNotFound(f"{where}: the repository has no such revision; name a branch, a tag or a full commit")
    elif status in (401, 403):
        result = SourceDenied(
            f"{where}: refused (HTTP {status}, {known}); the repository does not exist, is private, or the token is not valid: correct the name or "
            "set key HF_TOKEN of credentialsSecret to a token that may read it"
        )
    elif status in (404, 410):
        result = SourceNotFound(f"{where}: no such repository or file ({known}); correct the name, or set HF_TOKEN if the repository is private")
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        result = DiskFull(f"{uri}: no room left on the volume; give it a larger size")
    elif isinstance(error, (errors.HFValidationError, errors.BadRequestError)):
        result = SourceInvalid(f"{where}: the hub or its library takes no such name or revision; correct the source")
    else:
        cause = f"HTTP {status}" if status else type(error).__name__
        result = SourceUnreachable(
            f"{where}: does not answer as a hub ({cause}); check HF_ENDPOINT, ca.crt, and that the network lets the pod reach it"
        )
    return result
