"""Serves the run's progress over HTTP beside the training thread: standard library only, so that it listens at once."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from graftwork_trainer.progress import Progress


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /progress (hanging) and GET /alive."""

    protocol_version = "HTTP/1.1"
    timeout = 75  # seconds; longer than the longest wait, so that an idle connection does not hold a thread for good
    progress: Progress

    def do_GET(self) -> None:
        """Answer one request; the name is http.server's."""
        address = urlsplit(self.path)
        if address.path == "/alive":
            self._answer(200, {"alive": True})
        elif address.path != "/progress":
            self._answer(404, {"error": f"no such path {address.path[:100]!r}: this is GET /progress?since=&wait="})
        else:
            query = parse_qs(address.query)
            try:
                seconds = float(query.get("wait", ["0"])[0])
            except ValueError:
                seconds = math.nan
            if not math.isfinite(seconds):
                self._answer(400, {"error": "wait must be a number of seconds from 0 to 60"})
                return
            since = query.get("since", [""])[0]
            self._answer(200, self.progress.wait(since, seconds) if since else self.progress.snapshot())

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the log is the training's."""


class _Server(ThreadingHTTPServer):
    """A server whose threads die with the process and whose clients may hang up in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: the operator closes its hanging GETs whenever it likes."""


def serve(progress: Progress, port: int) -> _Server:
    """Serve `progress` on `port` (0: any) from a thread; the caller may shut the returned server down."""
    handler = type("_RunHandler", (_Handler,), {"progress": progress})
    server = _Server(("", port), handler)
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
