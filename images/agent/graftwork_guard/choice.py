"""Which of an alias's two versions answers a request: the candidate gets `weight` of a hundred. Pure, but for the draw."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256

from graftwork_guard.asgi import Headers, header

SESSION_HEADER = b"x-session-id"

Draw = Callable[[], int]


def draw_number() -> int:
    """Return a random number from 0 to 99, for requests that belong to no session."""
    return secrets.randbelow(100)


def session_of(headers: Headers, user: object) -> bytes:
    """Return what tells a session apart, or nothing: the header, else the body's `user` if that is text."""
    return header(headers, SESSION_HEADER) or (user.encode("utf-8", "surrogatepass") if isinstance(user, str) else b"")


def session_number(alias: str, session: bytes) -> int:
    """Return the number from 0 to 99 that a session keeps for one alias, in every pod; another alias gives it another one.

    It is compared with a weight, so a session that is on the candidate stays there while the weight grows.
    """
    return int.from_bytes(sha256(alias.encode() + b"\0" + session).digest()[:8], "big") % 100


def takes_candidate(weight: int, alias: str, session: bytes, draw: Draw) -> bool:
    """Whether the candidate answers; an empty `session` is none."""
    if weight in (0, 100):
        return weight == 100
    return (session_number(alias, session) if session else draw()) < weight
