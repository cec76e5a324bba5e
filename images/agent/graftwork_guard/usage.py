"""Having every answer report its tokens: the engine is asked to, and what the client did not ask for is taken out again. Pure.

vLLM 0.32 reports the usage of a chat or completion stream in a last event of its own, and only with `stream_options.include_usage`. The streams of
`/v1/responses` and `/v1/messages` always have it. An answer in bytes has it in a header, unless the body asks for `bytes_only`: the same without it.
What is cut short before it could report is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# How the engine's own parser (pydantic) reads a truth value. Asking "is it true" as Python does would let `include_usage: "no"` switch counting off.
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})

# One text's share of an engine. Who leaves without having read anything is charged by the time that was spent, and most engines make fewer.
TOKENS_PER_SECOND = 100


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


def asked_in_bytes(document: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a request for bytes with the header that has their usage, and whether the client wanted to be spared it."""
    if document.get("encoding_format") != "bytes_only":
        return document, False
    return {**document, "encoding_format": "bytes"}, True


COMPLETION_TOKENS = 16  # what vLLM makes of /v1/completions without max_tokens (entrypoints/openai/completion/protocol.py)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much a whole answer may be: how many texts, and how many tokens each has at most, where the request says so."""

    texts: int
    most: int | None

    def tokens(self, seconds: float) -> int:
        """Return an estimate of what was made in that time, whose answer nobody has seen."""
        made = int(seconds * TOKENS_PER_SECOND)
        return self.texts * (made if self.most is None else min(made, self.most))


def wanted(document: dict[str, Any], bounds: tuple[str, ...]) -> Wanted | None:
    """Return what a request wants whose answer comes as a whole; None for a stream, which is measured by its events.

    `bounds` are the fields that may limit the tokens; the first that is there counts, as in the engine.
    """
    if truth(document.get("stream")):
        return None
    given = next((document[name] for name in bounds if document.get(name) is not None), None)
    if given is None and "prompt" in document and bounds[0] not in document:
        given = COMPLETION_TOKENS
    texts = (_whole(document.get("n")) or 1) * max(_many(document.get("prompt")), _many(document.get("messages")))
    return Wanted(max(1, texts), _whole(given))


def _many(value: object) -> int:
    """Return how many prompts or conversations there are: a list of numbers or of messages is one."""
    return len(value) if isinstance(value, list) and value and isinstance(value[0], (str, list)) else 1


def _whole(value: object) -> int | None:
    """Return a number of the request as the engine's parser reads it, None where it reads none."""
    try:
        return max(0, int(value)) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None
