"""A client of the served API: one request, an answer or a clear failure, no retries."""

from __future__ import annotations

import http.client
import json
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


def chat(host: str, port: int, model: str, question: str, *, max_tokens: int = 12, timeout: float = 60, **more: Any) -> Answer:
    """Ask one question at temperature 0; connection errors are the caller's."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0, **more}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        raw = response.read()
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = {"raw": raw.decode(errors="replace")}
        text = parsed["choices"][0]["message"]["content"] or "" if "choices" in parsed else ""
        return Answer(response.status, str(parsed.get("model", "")), text, parsed, dict(response.getheaders()))
    finally:
        connection.close()


def get(host: str, port: int, path: str, timeout: float = 30) -> tuple[int, str]:
    """Return status and body of a GET."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
