"""Serves a fill's progress over HTTP beside its download threads: standard library only, so that it costs next to no memory."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from graftwork_agent.fill_progress import TICK_SECONDS, FillProgress


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /progress (hanging) and GET /alive."""

    protocol_version = "HTTP/1.1"
    timeout = 75  # seconds; longer than the longest wait, so that an idle connection does not hold a thread for good
    progress: FillProgress

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
        """Say nothing: the log is the fill's."""


class _Server(ThreadingHTTPServer):
    """A server whose threads die with the process and whose clients may hang up in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: the operator closes its hanging GETs whenever it likes."""


@contextlib.contextmanager
def serving(progress: FillProgress, port: int) -> Iterator[int]:
    """Serve and keep `progress` up to date while the block runs; yields the port (0: any). A port that is taken costs the progress, not the fill."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK_SECONDS):
            progress.tick()

    threading.Thread(target=tick, name="ticks", daemon=True).start()
    server: _Server | None = None
    try:
        server = _Server(("", port), type("_FillHandler", (_Handler,), {"progress": progress}))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="progress", daemon=True).start()
    except OSError as error:
        print(f"progress is not served: port {port}: {error.strerror}", flush=True)
    try:
        yield server.server_address[1] if server else 0
    finally:
        ended.set()
        if server:
            server.shutdown()
            server.server_close()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
