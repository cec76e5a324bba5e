"""Waiting for a condition that nothing announces."""

from __future__ import annotations

import select
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float, wake: int | None = None) -> bool:
    """Ask `condition` every 50 ms until it holds; return early with False when the process of handle `wake` has ended."""
    deadline = time.monotonic() + seconds
    poller = select.poll()
    if wake is not None:
        poller.register(wake, select.POLLIN)
    while not condition():
        if time.monotonic() > deadline or poller.poll(50):
            return condition()
    return True
