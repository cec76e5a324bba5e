"""How far a fill is, how fast, and how long it will take; and who waits to hear of it (contracts, section 7d)."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

API_VERSION = "graftwork.dev/fill-progress/v1"
LONGEST_WAIT_SECONDS = 60.0
TICK_SECONDS = 1.0
_WINDOW_SECONDS = 10.0
_SURE_SECONDS = 3.0
"""Of less than this no speed is told: the first connections say nothing about the rest."""


class FillProgress:
    """The state of a fill: counted by the threads that download, made a document once a second, read by the HTTP threads."""

    def __init__(self, key: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._total = total
        self._clock = clock
        self._changed = threading.Condition()
        self._process = secrets.token_hex(4)
        self._number = 0
        self._phase = "Listing"
        self._kept = 0
        self._fetched = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._told = self._state()

    def enter(self, phase: str) -> None:
        """Begin a phase; whoever waits is told at once."""
        with self._changed:
            self._phase = phase
            if phase == "Downloading" and not self._samples:
                self._samples.append((self._clock(), self._fetched))
        self.tick()

    def found(self, kept: int, total: int) -> None:
        """Set how many bytes there are in all, and how many lay there already."""
        with self._changed:
            self._kept, self._total = kept, total

    def fetched(self, done: int) -> None:
        """Set how many bytes came since the beginning of the download."""
        with self._changed:
            self._fetched = done

    def tick(self) -> None:
        """Take the speed, and tell whoever waits if anything changed; called once a second while the fill runs."""
        with self._changed:
            if self._samples:
                self._samples.append((self._clock(), self._fetched))
                while len(self._samples) > 2 and self._samples[1][0] <= self._samples[-1][0] - _WINDOW_SECONDS:
                    self._samples.popleft()
            state = self._state()
            if state != self._told:
                self._told = state
                self._number += 1
                self._changed.notify_all()

    def wait(self, since: str, seconds: float) -> dict[str, Any]:
        """Return the document as soon as its version differs from `since`, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._version() != since, max(0.0, min(seconds, LONGEST_WAIT_SECONDS)))
            return {"apiVersion": API_VERSION, "version": self._version(), **self._told}

    def _version(self) -> str:
        return f"{self._process}.{self._number}"

    def _state(self) -> dict[str, Any]:
        speed = self._speed()
        done = min(self._kept + self._fetched, self._total)
        eta = math.ceil((self._total - done) / speed) if speed and self._phase == "Downloading" else None
        return {
            "key": self._key,
            "phase": self._phase,
            "bytesDone": done,
            "bytesTotal": self._total,
            "bytesPerSecond": round(speed, 1),
            "etaSeconds": eta,
        }

    def _speed(self) -> float:
        if self._phase != "Downloading" or len(self._samples) < 2:
            return 0.0
        (began, before), (ended, after) = self._samples[0], self._samples[-1]
        return max(0.0, (after - before) / (ended - began)) if ended - began >= _SURE_SECONDS else 0.0
