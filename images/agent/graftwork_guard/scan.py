"""Finding one value in JSON text without parsing the rest, so that an answer changes in nothing but its model name. Pure."""

from __future__ import annotations

import json
import re

_BLANKS = b" \t\n\r"
_IN_CONTAINER = re.compile(rb'["{}\[\]]')
_AFTER_SCALAR = re.compile(rb"[,}\]\s]")


class _MalformedError(Exception):
    """The text is not JSON."""


def find_value(data: bytes, path: tuple[str, ...]) -> tuple[int, int] | None:
    """Return where the value at `path` (keys of objects, from the top) begins and ends, or None if there is none or the text is no JSON object.

    The search ends at the first such key: what follows is not looked at, which makes it cheap for answers that name the model early.
    """
    try:
        return _in_object(data, _blank(data, 0), path)
    except (_MalformedError, IndexError):
        return None


def replace_text(data: bytes, path: tuple[str, ...], text: str) -> bytes:
    """Return the JSON text with the value at `path` replaced by a string; unchanged if the path is absent or its value is not a string."""
    span = find_value(data, path)
    if span is None or data[span[0]] != ord('"'):
        return data
    return data[: span[0]] + json.dumps(text, ensure_ascii=False).encode() + data[span[1] :]


def load_value(data: bytes, path: tuple[str, ...]) -> object:
    """Return the parsed value at `path`, or None."""
    span = find_value(data, path)
    if span is None:
        return None
    try:
        value: object = json.loads(data[span[0] : span[1]])
    except (ValueError, RecursionError):
        return None
    return value


def _in_object(data: bytes, at: int, path: tuple[str, ...]) -> tuple[int, int] | None:
    """`at` is where the object ought to begin."""
    if data[at] != ord("{"):
        return None
    at = _blank(data, at + 1)
    while data[at] == ord('"'):
        key_end = _string_end(data, at)
        key = data[at + 1 : key_end - 1]
        at = _blank(data, key_end)
        if data[at] != ord(":"):
            raise _MalformedError
        at = _blank(data, at + 1)
        if key == path[0].encode():
            return (at, _value_end(data, at)) if len(path) == 1 else _in_object(data, at, path[1:])
        at = _blank(data, _value_end(data, at))
        if data[at] != ord(","):
            return None
        at = _blank(data, at + 1)
    return None


def _blank(data: bytes, at: int) -> int:
    """Return the first position from `at` on that is not blank."""
    while data[at] in _BLANKS:
        at += 1
    return at


def _string_end(data: bytes, at: int) -> int:
    """Return the position behind the string that begins at `at`. The search for quotes runs in C: strings are what is long."""
    end = at
    while True:
        end = data.find(b'"', end + 1)
        if end < 0:
            raise _MalformedError
        backslashes = end
        while data[backslashes - 1] == ord("\\"):
            backslashes -= 1
        if (end - backslashes) % 2 == 0:
            return end + 1


def _value_end(data: bytes, at: int) -> int:
    """Return the position behind the value that begins at `at`."""
    if data[at] == ord('"'):
        return _string_end(data, at)
    if data[at] not in b"{[":
        match = _AFTER_SCALAR.search(data, at)
        if match is None:
            raise _MalformedError
        return match.start()
    depth = 0
    while True:
        match = _IN_CONTAINER.search(data, at)
        if match is None:
            raise _MalformedError
        mark = match.group()
        if mark == b'"':
            at = _string_end(data, match.start())
            continue
        depth += 1 if mark in b"{[" else -1
        at = match.end()
        if depth == 0:
            return at
