"""Puts files into a bucket: how examples, tests and the demo bring a model or a dataset to S3."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from graftwork_store import clients
from graftwork_store.errors import SourceInvalid, translated
from obstore.store import S3Store


def put_file(path: Path, url: str) -> None:
    """Put one file at `s3://<bucket>/<key>`; the bucket is made if it does not exist."""
    client, key = _open(url)
    put_all(client, {key: path}, url)


def put_folder(folder: Path, url: str) -> None:
    """Put every file of `folder` under `s3://<bucket>/<prefix>`; the bucket is made if it does not exist."""
    client, prefix = _open(url)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    put_all(client, {f"{prefix.strip('/')}/{path.relative_to(folder)}": path for path in files}, url)


def put_all(client: S3Store, files: dict[str, Path], url: str) -> None:
    """Put each file at its key; raises StoreError."""
    with translated(url, source=True):
        try:
            _put(client, files)
        except Exception as error:
            if "NoSuchBucket" not in str(error):
                raise
            _make_bucket(client)
            _put(client, files)
    print(f"put {len(files)} {'file' if len(files) == 1 else 'files'} to {url}", file=sys.stderr, flush=True)


def _put(client: S3Store, files: dict[str, Path]) -> None:
    for key, path in files.items():
        obstore.put(client, key, path)


def _open(url: str) -> tuple[S3Store, str]:
    parts = urlsplit(url)
    key = unquote(parts.path).strip("/")
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise SourceInvalid(f"{url!r}: must be s3://<bucket>/<key>")
    return clients.s3_client(parts.netloc, ""), key


def _make_bucket(client: S3Store) -> None:
    """Make the client's bucket: S3's PUT of the bucket's own address, which obstore can sign although it has no call for it."""
    address = obstore.sign(client, "PUT", "", timedelta(minutes=5))
    request = urllib.request.Request(address, method="PUT")  # noqa: S310 - the address is the configured endpoint's
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code != 409:  # 409: somebody else made it meanwhile
            raise OSError(f"making the bucket: HTTP {error.code} {error.read(2000).decode(errors='replace')}") from error
