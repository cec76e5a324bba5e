"""A small client of the API server, standard library only: enough to wait for readiness and to create the cluster's own objects."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

from tests.cluster.layout import API_PORT, HOST_ADDRESS, Layout
from tests.cluster.progress import ClusterError

JsonObject = dict[str, Any]

WATCH_EVENTS = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
AGAIN_SECONDS = 0.1


class Api:
    """Requests to the API server as the administrator."""

    def __init__(self, layout: Layout) -> None:
        self._tls = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self._tls.load_cert_chain(str(layout.pki / "admin.crt"), str(layout.pki / "admin.key"))

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(HOST_ADDRESS, API_PORT, timeout=timeout, context=self._tls)

    def request(self, method: str, path: str, body: JsonObject | None = None, timeout: float = 10) -> tuple[int, bytes]:
        """Send one request; return status and body. Raises OSError if nobody answers."""
        connection = self._connect(timeout)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> JsonObject:
        """Return the object or list at `path`."""
        status, body = self.request("GET", path)
        if status != 200:
            raise ClusterError(f"API server: GET {path}: {status}: {body.decode(errors='replace')[:300]}")
        found: JsonObject = json.loads(body)
        return found

    def create(self, path: str, body: JsonObject) -> None:
        """Create an object; one that exists is left as it is."""
        status, answer = self.request("POST", path, body)
        if status not in {200, 201, 409}:
            raise ClusterError(f"API server: POST {path}: {status}: {answer.decode(errors='replace')[:300]}")

    def ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz", timeout=2)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def watch(self, path: str, seconds: float) -> Iterator[JsonObject]:
        """Yield the watch events of a collection, existing objects first, for at most `seconds`.

        An API server that has just started may refuse a watch, or end it with an event of type ERROR, whose object is a Status: then it begins again.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for event in self._watch_once(path, left):
                if event.get("type") not in WATCH_EVENTS:
                    break
                yield event
            time.sleep(min(left, AGAIN_SECONDS))  # whatever ended it says nothing when it is over

    def _watch_once(self, path: str, seconds: float) -> Iterator[JsonObject]:
        deadline = time.monotonic() + seconds
        connection = self._connect(seconds)
        try:
            connection.request("GET", f"{path}?watch=true&timeoutSeconds={int(seconds) + 1}", headers={"Accept": "application/json"})
            answer = connection.getresponse()
            while (left := deadline - time.monotonic()) > 0:
                if connection.sock:
                    connection.sock.settimeout(left)
                line = answer.readline()
                if not line:
                    return
                yield json.loads(line)
        except TimeoutError:
            return
        finally:
            connection.close()
