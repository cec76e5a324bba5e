"""Progress that a person can follow in a terminal and in a CI log: plain lines, each with the seconds since the start."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO


class Progress:
    """Print one line per step, e.g. `[  12s] node-a: Ready`. Safe to use from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._start = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Return the seconds since this progress began."""
        return time.monotonic() - self._start

    def __call__(self, text: str) -> None:
        with self._lock:
            print(f"[{self.seconds:4.0f}s] {text}", file=self._stream, flush=True)


class ClusterError(Exception):
    """What a person must know and do; printed without a traceback."""
