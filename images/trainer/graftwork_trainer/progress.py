"""What a run is doing right now, and who waits to hear of it (docs/design/contracts.md, section 7)."""

from __future__ import annotations

import math
import secrets
import threading
from typing import Any

API_VERSION = "graftwork.dev/progress/v1"
LONGEST_WAIT_SECONDS = 60.0


def known(value: float | None) -> float | None:
    """Return `value`, or None where it is not a finite number: JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


class Progress:
    """The run's live state: written by the training thread, read by the HTTP threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._process = secrets.token_hex(4)
        self._number = 0
        self._state: dict[str, Any] = {
            "phase": "Preparing",
            "step": None,
            "steps": None,
            "epoch": None,
            "tokensPerSecond": None,
            "etaSeconds": None,
            "loss": None,
            "evalLoss": None,
            "dataset": None,
        }

    def update(self, **fields: Any) -> None:
        """Set some of the state's fields (contract names) and wake whoever waits, if anything changed."""
        with self._changed:
            state = self._state | {name: known(value) if isinstance(value, float) else value for name, value in fields.items()}
            if state != self._state:
                self._state = state
                self._number += 1
                self._changed.notify_all()

    def snapshot(self) -> dict[str, Any]:
        """Return the document as it is now."""
        with self._changed:
            return self._document()

    def wait(self, since: str, seconds: float) -> dict[str, Any]:
        """Return the document as soon as its version differs from `since`, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._version() != since, max(0.0, min(seconds, LONGEST_WAIT_SECONDS)))
            return self._document()

    def _version(self) -> str:
        return f"{self._process}.{self._number}"

    def _document(self) -> dict[str, Any]:
        return {"apiVersion": API_VERSION, "version": self._version(), **self._state}
