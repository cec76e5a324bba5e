"""Errors of the store and of sources; each has a reason of the closed list (contracts, section 10) and says whether a retry can help."""
# ruff: noqa: N818 - a class is called like the reason that it stands for

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

# A store's own words for "these credentials are not known": versitygw answers an unknown access key with 404.
_DENIED_CODES = ("XAdminUserNotFound", "InvalidAccessKeyId", "AccessDenied", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_NO_BUCKET = "NoSuchBucket"
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")


_MESSAGE_LIMIT = 2000


def printable(message: str) -> str:
    """Return a message as every reader can have it: what it quotes of a file can be of any length, and be no UTF-8 (half of a surrogate pair)."""
    text = message if len(message) <= _MESSAGE_LIMIT else f"{message[:_MESSAGE_LIMIT]}…"
    return text.encode("utf-8", "replace").decode()


class StoreError(Exception):
    """Something about the store, a source or an adapter's files is not as it must be."""

    reason = "StoreUnreachable"
    transient = False

    def __init__(self, message: str) -> None:
        self.message = printable(message)
        super().__init__(self.message)


class StoreUnreachable(StoreError):
    """The store does not answer; trying again can help."""

    reason = "StoreUnreachable"
    transient = True


class StoreDenied(StoreError):
    """The store refused the credentials; they may be replaced, so it is tried again."""

    reason = "StoreDenied"
    transient = True


class StoreNotConfigured(StoreError):
    """GRAFTWORK_STORE_URL is missing or not of a kind that is served."""

    reason = "StoreNotConfigured"


class StoreShared(StoreError):
    """Several installations use the store, and each would remove what it does not know."""

    reason = "StoreShared"


class SourceInvalid(StoreError):
    """A source is not a URI of a kind that is served."""

    reason = "SourceInvalid"


class SourceNotFound(StoreError):
    """Nothing lies at the source; a publish may still come, so the agent tries again."""

    reason = "SourceNotFound"
    transient = True


class SourceDenied(StoreError):
    """The source refused the credentials."""

    reason = "SourceDenied"


class CredentialsMissing(StoreError):
    """The Secret that is named is not there, or has no key that is read; it may still come, as the resources of one commit come in any order."""

    reason = "CredentialsMissing"
    transient = True


class SourceGated(SourceDenied):
    """The hub gives the files only to those who accepted the repository's terms."""

    reason = "SourceGated"


class RevisionNotFound(StoreError):
    """The repository is there and has no such branch, tag or commit."""

    reason = "RevisionNotFound"


class SourceFileTooLarge(StoreError):
    """The hub serves a file of this size by its own protocol only."""

    reason = "SourceFileTooLarge"


class UnsupportedFormat(StoreError):
    """The weights are in no file that is served."""

    reason = "UnsupportedFormat"


class SourceUnreachable(StoreError):
    """The source does not answer; trying again can help."""

    reason = "SourceUnreachable"
    transient = True


class SourceChanged(StoreError):
    """Other files lie at the source than when it was inspected."""

    reason = "SourceChanged"


class ModelInvalid(StoreError):
    """What lies at the source is not a model in Hugging Face layout."""

    reason = "ModelInvalid"


class DiskFull(StoreError):
    """The volume has no room."""

    reason = "DiskFull"
    transient = True


class CacheFailed(StoreError):
    """Something that Graftwork did not put there has the place of a model in a cache."""

    reason = "CacheFailed"


class FillFailed(StoreError):
    """The volume of a cache does not take what is written to it, or lost it."""

    reason = "FillFailed"
    transient = True


class DigestMismatch(StoreError):
    """The files are not the ones that were published."""

    reason = "DigestMismatch"


class FileNotAllowed(StoreError):
    """Not a regular file of the allow-list."""

    reason = "FileNotAllowed"


class ConfigInvalid(StoreError):
    """adapter_config.json or the manifest cannot be read."""

    reason = "ConfigInvalid"


def short(error: BaseException) -> str:
    """Return the first line of an object-store error without its debug dump, with the store's own error code in front when it gave one."""
    text = str(error)
    code = _CODE.search(text)
    line = text.split("\n", 1)[0].split(": <?xml", 1)[0].strip()
    return f"{code.group(1)}: {line}" if code else line or type(error).__name__


@contextlib.contextmanager
def translated(what: str, *, source: bool = False) -> Iterator[None]:
    """Turn errors of obstore and of the file system inside the block into ours.

    Args:
        what: the object or folder in question, as a URI.
        source: True where a user's `source` is read (SourceDenied...), False where the store is (StoreDenied...).
    """
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise _classify(error, what, source=source) from None


def _classify(error: Exception, what: str, *, source: bool) -> StoreError:
    denied: type[StoreError] = SourceDenied if source else StoreDenied
    unreachable: type[StoreError] = SourceUnreachable if source else StoreUnreachable
    text = str(error)
    refused = isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError))
    result: StoreError
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        result = DiskFull(f"{what}: no room left on the volume; give it a larger size or remove what is not needed")
    elif refused or any(code in text for code in _DENIED_CODES):
        result = denied(f"{what}: the credentials were refused ({short(error)}); check the keys in the Secret and what they are allowed to read")
    elif _NO_BUCKET in text:
        result = SourceNotFound(f"{what}: the bucket does not exist; create it or correct the name")
    elif isinstance(error, FileNotFoundError):
        result = SourceNotFound(f"{what}: nothing lies there; publish it or correct the name")
    elif isinstance(error, PreconditionError):
        result = unreachable(f"{what}: changed while it was being read; it is read again")
    else:
        result = unreachable(f"{what}: does not answer ({short(error)}); check AWS_ENDPOINT_URL and that the network lets the pod reach it")
    return result
