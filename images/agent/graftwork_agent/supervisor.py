"""Keeps the agent running inside its container.

A sidecar container that restarts makes its whole pod unready for a moment, and takes an engine that is in perfect health out of its Service. An agent
that crashes is therefore started again here; the kubelet sees a restart only when that does not help. Standard library only, so that it stays small.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

LOG = logging.getLogger("graftwork_agent.supervisor")
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 30.0
"""An agent that ran so long did start; its end begins a new count."""
GIVE_UP_AFTER = 10
"""Ends in a row without a healthy run: from then on it is the kubelet's turn, with its own backoff and its own report."""
_PR_SET_PDEATHSIG = 1


@dataclass
class Restarts:
    """How long to wait before the next start, and when to give up."""

    failures: int = 0
    pauses: tuple[float, float] = field(default=(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))

    def after(self, ran_seconds: float) -> float | None:
        """Return the seconds to wait after a run of this length, None to give up."""
        self.failures = 1 if ran_seconds >= HEALTHY_SECONDS else self.failures + 1
        if self.failures > GIVE_UP_AFTER:
            return None
        first, longest = self.pauses
        return float(min(longest, first * 2 ** (self.failures - 1)))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(command: list[str], restarts: Restarts | None = None) -> int:
    """Run the command again whenever it ends by itself; SIGTERM and SIGINT are passed on and end both. Returns the exit code."""
    restarts = restarts or Restarts()
    stopping = threading.Event()
    child: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _frame: object) -> None:
        stopping.set()
        if child and child[0].poll() is None:
            child[0].send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while True:
        began = time.monotonic()
        process = subprocess.Popen(command, preexec_fn=_die_with_parent)  # noqa: PLW1509  # no thread has been started
        child[:] = [process]
        if stopping.is_set():  # the signal came between the last look and the start
            process.terminate()
        code = process.wait()
        if stopping.is_set():
            return max(code, 0)
        pause = restarts.after(time.monotonic() - began)
        if pause is None:
            LOG.error("the agent ended with %d, %d times in a row; giving up", code, GIVE_UP_AFTER)
            return code if code > 0 else 70
        LOG.error("the agent ended with %d; starting it again in %.1f s", code, pause)
        if stopping.wait(pause):
            return 0


def main() -> int:
    """Supervise `serve --supervised`."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return run([sys.executable, "-m", "graftwork_agent", "serve", "--supervised"])
