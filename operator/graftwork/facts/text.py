"""Cutting what programs wrote down to what fits into a status."""

from __future__ import annotations

MESSAGE_LENGTH = 600
_NOISE = ("resource_tracker", "warnings.warn(", "leaked semaphore", "leaked shared_memory")


def clip(text: str, length: int = MESSAGE_LENGTH) -> str:
    """Return the text on one line, cut in its middle if it is longer than `length` characters."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = length // 3
    return f"{line[: length - tail - 3]} … {line[-tail:]}"


def last_line(text: str) -> str:
    """Return the last line that says something; Python's resource tracker speaks after the error that matters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not any(noise in line for noise in _NOISE)]
    return clip((telling or lines or [""])[-1])
