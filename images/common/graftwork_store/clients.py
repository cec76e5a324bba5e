"""Object-store clients made from the environment that the pod's Secret gives (contracts, section 2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from obstore.store import LocalStore, S3Store

from graftwork_store.errors import StoreNotConfigured

if TYPE_CHECKING:  # names of the type stubs only
    from obstore.store import ClientConfig, S3Config

ObjectStore = S3Store | LocalStore

_CHAIN_VARIABLES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def own_authority(env: Mapping[str, str]) -> bytes:
    """Return the certificates that are trusted beside the system's: what SOURCE_CA_FILE names, nothing where the Secret has no such key."""
    name = env.get("SOURCE_CA_FILE", "")
    return Path(name).read_bytes() if name and Path(name).exists() else b""


def s3_client(bucket: str, prefix: str, env: Mapping[str, str] | None = None, *, read_timeout: str = "30s", attempts: int = 3) -> S3Store:
    """Make a client for a bucket, path-style, http allowed when the endpoint says http.

    Connections are kept between requests. Without keys at an endpoint of its own, requests are not signed (public buckets); without both, the
    cloud's own chain of credentials is used. SOURCE_CA_FILE names certificates that are trusted beside the system's.
    """
    env = os.environ if env is None else env
    endpoint = env.get("AWS_ENDPOINT_URL", "").rstrip("/")
    config: S3Config = {"region": env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1", "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if env.get("AWS_ACCESS_KEY_ID"):
        config["access_key_id"] = env["AWS_ACCESS_KEY_ID"]
        config["secret_access_key"] = env.get("AWS_SECRET_ACCESS_KEY", "")
        if env.get("AWS_SESSION_TOKEN"):
            config["session_token"] = env["AWS_SESSION_TOKEN"]
    elif endpoint and not any(env.get(name) for name in _CHAIN_VARIABLES):
        config["skip_signature"] = True
    client: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": "3s",
        "read_timeout": read_timeout,
        "timeout": "6h",
        "pool_idle_timeout": "10m",
    }
    authority = own_authority(env)
    if authority:
        client["root_certificate"] = authority
    retry: Any = {
        "max_retries": attempts - 1,
        "retry_timeout": timedelta(seconds=30),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
    }
    return S3Store(bucket, prefix=prefix or None, config=config, client_options=client, retry_config=retry)


def open_url(url: str, env: Mapping[str, str] | None = None) -> ObjectStore:
    """Open GRAFTWORK_STORE_URL: `s3://<bucket>/<prefix>` or `file:///<folder>`.

    Raises:
        StoreNotConfigured: the URL is empty or of another kind.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return s3_client(parts.netloc, unquote(parts.path).strip("/"), env)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return LocalStore(unquote(parts.path), mkdir=True, automatic_cleanup=True)
    raise StoreNotConfigured(
        f"GRAFTWORK_STORE_URL={url!r}: must be s3://<bucket>/<prefix> or file:///<folder>; set the store in the operator's configuration"
    )
