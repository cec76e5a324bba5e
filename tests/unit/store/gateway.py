"""A real S3 server (versitygw over a folder) for tests, when its binary can be found."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret"
BUCKET = "bucket"
MISSING = "versitygw binary not built (make cluster builds it)"


def find_binary() -> Path | None:
    """Return the binary: GRAFTWORK_VERSITYGW, the cluster's cache, or a scratch build."""
    cache = Path(os.environ.get("GRAFTWORK_CACHE") or Path.home() / ".cache" / "graftwork")
    named = os.environ.get("GRAFTWORK_VERSITYGW")
    candidates = [Path(named)] if named else [*sorted(cache.glob("bin/versitygw-*/versitygw")), Path("/tmp/gwbin/versitygw")]
    return next((path for path in candidates if path.is_file()), None)


@contextmanager
def running_gateway(folder: Path) -> Iterator[dict[str, str]]:
    """Run versitygw with one bucket below `folder`; yields the environment that a pod would have. Skips without a binary."""
    binary = find_binary()
    if binary is None:
        pytest.skip(MISSING)
    (folder / BUCKET).mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        str(binary),
        "--port",
        f"127.0.0.1:{port}",
        "--access",
        ACCESS_KEY,
        "--secret",
        SECRET_KEY,
        "--quiet",
        "--keep-alive",
        "posix",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_http(f"http://127.0.0.1:{port}/")
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": "us-east-1",
                "GRAFTWORK_STORE_URL": f"s3://{BUCKET}/store",
            }
        finally:
            process.kill()


def _await_http(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1)
        except urllib.error.HTTPError:
            return  # it answers, that is enough
        except OSError:
            continue
        return
    raise AssertionError(f"{url} does not answer")
