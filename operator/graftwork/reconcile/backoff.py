"""The one rule for how long to wait after failures."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubling delays with jitter: `first` after the first failure, never above `most`; each delay is drawn from its upper half."""

    first: float = 1.0
    most: float = 60.0
    failures: int = 0
    random: random.Random = field(default_factory=random.Random, repr=False)

    def next_delay(self) -> float:
        """Count one more failure and return how many seconds to wait after it."""
        whole = min(self.most, self.first * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return whole * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Forget the failures."""
        self.failures = 0
