"""Serves a program's progress over HTTP beside its work: standard library only, so that it listens at once and costs next to no memory."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit


class Watched(Protocol):
    """What is served."""

    def wait(self, since: str, seconds: float) -> dict[str, Any]:
        """Return the document as soon as its version differs from `since`, or after `seconds`."""
        ...


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /progress (hanging) and GET /alive."""

    protocol_version = "HTTP/1.1"
    timeout = 75  # seconds; longer than the longest wait, so that an idle connection does not hold a thread for good
    progress: Watched

    def do_GET(self) -> None:
        """Answer one request; the name is http.server's."""
        address = urlsplit(self.path)
        if address.path == "/alive":
            self._answer(200, {"alive": True})
        elif address.path != "/progress":
            self._answer(404, {"error": f"no such path {address.path[:100]!r}: this is GET /progress?since=&wait="})
        else:
            query = parse_qs(address.query)
            seconds = _number(query.get("wait", ["0"])[0])
            if not math.isfinite(seconds):
                self._answer(400, {"error": "wait must be a number of seconds from 0 to 60"})
                return
            since = query.get("since", [""])[0]
            self._answer(200, self.progress.wait(since, seconds if since else 0.0))

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the log is the program's."""


class Server(ThreadingHTTPServer):
    """A server whose threads die with the process and whose clients may hang up in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: the operator closes its hanging GETs whenever it likes."""


def serve(progress: Watched, port: int, *, poll_seconds: float = 0.5) -> Server:
    """Serve `progress` on `port` (0: any) from a thread; the caller may shut the returned server down, which takes up to `poll_seconds`.

    Raises:
        OSError: the port is taken.
    """
    server = Server(("", port), type("_ProgressHandler", (_Handler,), {"progress": progress}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": poll_seconds}, name="progress", daemon=True).start()
    return server


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
