"""A client that keeps its connection and retries nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

JSON = {"Content-Type": "application/json"}


class Kept:
    """One kept-alive connection. After an error it is closed, and the next request opens another."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout)
        self._headers = {**JSON, **(headers or {})}

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body; errors of the connection are the caller's (OSError, http.client.HTTPException)."""
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def word(self, model: str, question: str) -> tuple[int, str]:
        """Ask for a word at temperature 0; return the status and the text (of the answer, or of the error)."""
        body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0}
        status, raw = self.send("POST", "/v1/chat/completions", json.dumps(body).encode())
        if status != 200:
            return status, raw.decode(errors="replace")
        answer: dict[str, Any] = json.loads(raw)
        return status, answer["choices"][0]["message"]["content"] or ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
