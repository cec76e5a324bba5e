"""Runs programs whose output a person may want to follow, and ends them when the build is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster.progress import ClusterError

TAIL_LINES = 25


class Processes:
    """The running programs of one build. After `stop` none is left and none is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, what: str, command: list[str], log: Path, each_line: Callable[[str], None], environment: Mapping[str, str] | None = None) -> None:
        """Run `command`, append its output to `log`, hand each line on; an exit code other than 0 is an error that shows the end of the output."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as out:
            out.write(f"$ {' '.join(command)}\n")
            with self._lock:
                if self._stopped:
                    raise ClusterError(f"{what}: interrupted")
                env = {**os.environ, **(environment or {})}
                # In a session of its own, a program and all that it started get the same signal, once, from here.
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env, start_new_session=True
                )
                self._running.add(process)
            tail: list[str] = []
            assert process.stdout is not None
            for line in process.stdout:
                out.write(line)
                tail = [*tail[-TAIL_LINES:], line.rstrip()]
                each_line(line.rstrip())
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code != 0:
            end = "\n".join("    " + line for line in tail)
            raise ClusterError(f"{what}: `{' '.join(command[:2])} …` ended with {code}; the whole output is in {log}\n{end}")

    def stop(self) -> None:
        """End all that runs and refuse to start more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
