"""An adapter below an s3:// prefix: the allow-listed objects at its top, no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import obstore
from graftwork_store.clients import ObjectStore, s3_client
from graftwork_store.digest import ALLOWED_FILES
from graftwork_store.errors import translated
from graftwork_store.sources import download_files, parse_s3, source_file

from graftwork_agent.adapter_sources import Resolved, check_names, check_size


def fetch(uri: str, to: Path, env: Mapping[str, str], limit: int) -> Resolved:
    """Download the adapter; a prefix has no revision."""
    bucket, prefix = parse_s3(uri)
    with translated(uri, source=True):
        client = s3_client(bucket, "", env, read_timeout="60s", attempts=6)
    return fetch_from(client, uri, prefix, to, limit)


def fetch_from(client: ObjectStore, uri: str, prefix: str, to: Path, limit: int) -> Resolved:
    """Do `fetch` with a client that is open already."""
    with translated(uri, source=True):
        listed = {item["path"].removeprefix(f"{prefix}/"): item for item in obstore.list_with_delimiter(client, prefix)["objects"]}
    check_names(uri, listed)
    files = [source_file(uri, listed[name], name) for name in ALLOWED_FILES if name in listed]
    check_size(uri, sum(file.size for file in files), limit, to)
    download_files(client, uri, files, to)
    return Resolved(uri, "")
