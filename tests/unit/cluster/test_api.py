from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cluster.api import Api

NODE = {"type": "ADDED", "object": {"metadata": {"name": "node-a"}, "status": {"conditions": []}}}
EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410}}
FORBIDDEN = {"kind": "Status", "status": "Failure", "code": 403}


class Watches(ThreadingHTTPServer):
    """Answers each watch with the next list of lines."""

    daemon_threads = True
    answers: list[list[dict[str, Any]]]


class _Handler(BaseHTTPRequestHandler):
    server: Watches

    def do_GET(self) -> None:
        lines = self.server.answers.pop(0) if self.server.answers else []
        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(json.dumps(line) + "\n" for line in lines).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watches]:
    with Watches(("127.0.0.1", 0), _Handler) as watches:
        threading.Thread(target=watches.serve_forever, daemon=True).start()
        port = watches.server_address[1]
        monkeypatch.setattr(Api, "__init__", lambda self: None)
        monkeypatch.setattr(Api, "_connect", lambda self, timeout: http.client.HTTPConnection("127.0.0.1", port, timeout=timeout))
        yield watches
        watches.shutdown()


@pytest.mark.parametrize("first", [[EXPIRED], [FORBIDDEN], []])
def test_a_watch_that_the_server_ends_begins_again(server: Watches, first: list[dict[str, Any]]) -> None:
    server.answers = [first, [NODE]]
    api = Api()  # type: ignore[call-arg]  # the fixture takes its keys away
    assert next(iter(api.watch("/api/v1/nodes", 10))) == NODE


def test_a_watch_ends_in_time_when_nothing_comes(server: Watches) -> None:
    server.answers = []
    api = Api()  # type: ignore[call-arg]
    assert list(api.watch("/api/v1/nodes", 0.5)) == []
