"""Keeps a fill's progress up to date, and serves it, beside its download threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from graftwork_store import progress_server

from graftwork_agent.fill_progress import TICK_SECONDS, FillProgress


@contextlib.contextmanager
def serving(progress: FillProgress, port: int) -> Iterator[int]:
    """Serve and keep `progress` up to date while the block runs; yields the port (0: any). A port that is taken costs the progress, not the fill."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK_SECONDS):
            progress.tick()

    threading.Thread(target=tick, name="ticks", daemon=True).start()
    server: progress_server.Server | None = None
    try:
        server = progress_server.serve(progress, port, poll_seconds=0.1)
    except OSError as error:
        print(f"progress is not served: port {port}: {error.strerror}", flush=True)
    try:
        yield server.server_address[1] if server else 0
    finally:
        ended.set()
        if server:
            server.shutdown()
            server.server_close()
