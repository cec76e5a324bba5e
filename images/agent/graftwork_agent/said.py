"""What the engine last said of importance while it starts, as the entrypoint writes it down (contracts, section 2)."""

from __future__ import annotations

from pathlib import Path

NAME = "said"
MESSAGE_LENGTH = 1000
_MOST_BYTES = 8192


def read_said(run_dir: Path) -> str:
    """Return it on one line and without control characters; empty when there is nothing, or nothing that can be read."""
    try:
        with (run_dir / NAME).open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError:
        return ""
    text = "".join(letter if letter.isprintable() else " " for letter in data.decode("utf-8", "replace"))
    return " ".join(text.split())[:MESSAGE_LENGTH]
