"""What the ConfigMap of a deployment told the agents last of one alias."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """Engine names: in which order they are preferred, and the candidate with its share in percent."""

    prefer: tuple[str, ...]
    candidate: str = ""
    weight: int = 0
