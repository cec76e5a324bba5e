"""Whether the pod is being taken down: the file that preStop makes, and its age."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Drain:
    """`requested` from the moment the file exists; `closed` once it is as old as preStop waits, when no new request can be meant for this pod.

    The entrypoint dates the file back when SIGTERM arrives without preStop, which closes at once: the engine takes no request after it.
    """

    def __init__(self, run_dir: Path, wait_seconds: float) -> None:
        self._path = run_dir / "drain"
        self._wait_seconds = wait_seconds
        self._requested = False

    @property
    def requested(self) -> bool:
        """Whether answers have to end their connections. One stat of a memory file system, and none once it was seen."""
        if not self._requested:
            self._requested = self._made_at() is not None
        return self._requested

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        if not self.requested:
            return False
        made_at = self._made_at()
        return made_at is not None and time.time() - made_at >= self._wait_seconds

    def _made_at(self) -> float | None:
        try:
            return os.stat(self._path).st_mtime
        except OSError:
            return None
