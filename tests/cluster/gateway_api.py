"""The Gateway API's CRD of HTTPRoute, as its project publishes it: a file of a Go module, of which nothing is built."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.progress import ClusterError
from tests.cluster.toolchain import Say, environment, need_go

MODULE = "sigs.k8s.io/gateway-api"
VERSION = "v1.4.0"
SUM = "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ="
HTTP_ROUTE = "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"
NAME = "httproutes.gateway.networking.k8s.io"


def http_route_crd(say: Say = print) -> Path:
    """Return the file, downloaded into Go's own cache if it is not there; ClusterError if it is not the pinned one."""
    go = need_go(say)
    with tempfile.TemporaryDirectory() as folder:  # outside of any module: only this one is downloaded, not what it would be built from
        command = [go.path, "mod", "download", "-json", f"{MODULE}@{VERSION}"]
        done = subprocess.run(command, cwd=folder, env={**environment(), "GOSUMDB": "off"}, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or "{}")
    if done.returncode != 0:
        raise ClusterError(f"{MODULE} {VERSION} cannot be downloaded: {found.get('Error') or done.stderr.strip()}")
    if found["Sum"] != SUM:
        raise ClusterError(f"{MODULE} {VERSION} has the sum {found['Sum']}, not {SUM}: it is not what was pinned")
    return Path(found["Dir"]) / HTTP_ROUTE
