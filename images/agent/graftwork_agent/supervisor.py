"""Keeps the agent running inside its container.

A sidecar container that restarts makes its whole pod unready for a moment, and takes an engine that is in perfect health out of its Service. An agent
that crashes is therefore started again here; the kubelet sees a restart only when that does not help. Imports almost nothing, because every serving
pod has one of these: with logging, subprocess and argparse it had 14.4 MB instead of 9.
"""

from __future__ import annotations

import os
import signal
import sys
import time

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 30.0
"""An agent that ran so long did start; its end begins a new count."""
GIVE_UP_AFTER = 10
"""Ends in a row without a healthy run: from then on it is the kubelet's turn, with its own backoff and its own report."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_CANNOT_START = 127


class Restarts:
    """How long to wait before the next start, and when to give up; `pauses` are the first and the longest, in seconds."""

    def __init__(self, pauses: tuple[float, float] = (FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)) -> None:
        self.failures = 0
        self.pauses = pauses

    def after(self, ran_seconds: float) -> float | None:
        """Return the seconds to wait after a run of this length, None to give up."""
        self.failures = 1 if ran_seconds >= HEALTHY_SECONDS else self.failures + 1
        if self.failures > GIVE_UP_AFTER:
            return None
        first, longest = self.pauses
        return float(min(longest, first * 2 ** (self.failures - 1)))


class _Child:
    """The running process, and the signals that it and its supervisor are sent."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._pid = 0
        self.stopping = False
        for number in _SIGNALS:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: object) -> None:
        self.stopping = True
        if self._pid:
            os.kill(self._pid, number)

    def run(self) -> int:
        """Start the command and wait for its end; returns its exit code, or minus the signal that ended it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal waits until it is known whom to pass it to
        if self.stopping:  # it came before the start
            return 0
        self._pid = os.fork()
        if not self._pid:
            self._become()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: until here a signal cannot reach a stranger of the same number
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _become(self) -> None:
        try:
            import ctypes  # here, so that only the child pays for it

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.execvp(self._command[0], self._command)  # noqa: S606  # no shell is wanted
        except OSError as error:
            _say(f"{self._command[0]}: {error}")
        finally:
            os._exit(_CANNOT_START)

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not self.stopping and signal.sigtimedwait(_SIGNALS, seconds):
            self.stopping = True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR {text}", file=sys.stderr, flush=True)


def run(command: list[str], restarts: Restarts | None = None) -> int:
    """Run the command again whenever it ends by itself; SIGTERM and SIGINT are passed on and end both. Returns the exit code."""
    restarts = restarts or Restarts()
    child = _Child(command)
    while True:
        began = time.monotonic()
        code = child.run()
        if child.stopping:
            return max(code, 0)
        pause = restarts.after(time.monotonic() - began)
        if pause is None:
            _say(f"the agent ended with {code}, {GIVE_UP_AFTER} times in a row; giving up")
            return code if code > 0 else 70
        _say(f"the agent ended with {code}; starting it again in {pause:.1f} s")
        child.pause(pause)
        if child.stopping:
            return 0


def main() -> int:
    """Supervise `serve --supervised`."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return run([sys.executable, "-m", "graftwork_agent", "serve", "--supervised"])
