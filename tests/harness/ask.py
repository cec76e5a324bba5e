"""A client of the served API: one request, an answer or a clear failure, no retries."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the engine said."""

    status: int
    model: str
    text: str
    body: dict[str, Any]
    headers: dict[str, str]


def chat(
    host: str,
    port: int,
    model: str,
    question: str,
    *,
    max_tokens: int = 12,
    timeout: float = 60,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answer:
    """Ask one question at temperature 0; connection errors are the caller's."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0, **more}
    return post(host, port, "/v1/chat/completions", body, headers=headers, timeout=timeout)


def post(host: str, port: int, path: str, body: object, *, headers: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
    """Post JSON on a connection of its own; `text` is what a chat said, "" elsewhere."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", "Connection": "close", **(headers or {})})
        response = connection.getresponse()
        raw = response.read()
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = {"raw": raw.decode(errors="replace")}
        if not isinstance(parsed, dict):
            parsed = {"raw": parsed}
        text = parsed["choices"][0].get("message", {}).get("content") or "" if parsed.get("choices") else ""
        return Answer(response.status, str(parsed.get("model", "")), text, parsed, dict(response.getheaders()))
    finally:
        connection.close()


def get(host: str, port: int, path: str, timeout: float = 30, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return status and body of a GET."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
