"""ASGI's types and the small things that every answer needs; no decision is made here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEADER_OVERHEAD = 32  # bytes; so the limit on headers bounds their number too
JSON_TYPE = b"application/json"


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete; there is nobody to answer."""


class TooLargeError(Exception):
    """The request's body is larger than the limit."""


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the value of the first header of that (lower-case) name, or nothing."""
    return next((value for key, value in headers if key == name), b"")


def headers_size(scope: Scope) -> int:
    """Return how many bytes the request's target and headers have, each header with what it takes to hold it (as HTTP/2 counts)."""
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return size + sum(len(name) + len(value) + HEADER_OVERHEAD for name, value in scope["headers"])


def with_body(headers: Headers, body: bytes) -> Headers:
    """Return the headers with the length of this body, and without what contradicts it."""
    kept = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(len(body)).encode())]


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """Return the whole body; raise TooLargeError beyond `limit` bytes (at once if the header says so) and ClientGoneError."""
    declared = header(headers, b"content-length")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):  # Python reads no number of thousands of digits
        raise TooLargeError
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_body(send: Send, status: int, body: bytes, headers: Headers | None = None, content_type: bytes = JSON_TYPE) -> None:
    """Answer with a complete body."""
    start = with_body([(b"content-type", content_type), *(headers or [])], body)
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, status: int, document: object, headers: Headers | None = None) -> None:
    """Answer with a JSON document in the engine's own compact form."""
    await send_body(send, status, json.dumps(document, separators=(",", ":")).encode(), headers)
