"""How long to wait before something is tried again."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0


def delay(attempts: int) -> float:
    """Return seconds to wait after the given number of failures: doubled each time, with a fifth of jitter so that pods do not march in step."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempts - 1, 16)) * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
