"""Having every stream report its tokens: the engine is asked to, and what the client did not ask for is taken out again. Pure.

vLLM 0.32 reports the usage of a chat or completion stream in a last event of its own, and only with `stream_options.include_usage`. The streams of
`/v1/responses` and `/v1/messages` always have it.
"""

from __future__ import annotations

from typing import Any

# How the engine's own parser (pydantic) reads a truth value. Asking "is it true" as Python does would let `include_usage: "no"` switch counting off.
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})


def truth(value: object) -> bool | None:
    """Return what the engine makes of a value where it wants a truth value; None if it refuses it. Absent and null are false."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        text = value.lower()
        return True if text in _TRUE else False if text in _FALSE else None
    return None


def asked(document: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a stream's request with its usage asked for, and whether the client had not done so itself.

    What is not a stream, or is wrong in a way that the engine refuses, stays as it is.
    """
    options = document.get("stream_options")
    if not truth(document.get("stream")) or not isinstance(options, dict | None):
        return document, False
    options = options or {}
    if truth(options.get("include_usage")) is not False:
        return document, False
    # continuous_usage_stats counts only with include_usage: left alone, it would now put numbers into every event
    return {**document, "stream_options": {**options, "include_usage": True, "continuous_usage_stats": False}}, True
