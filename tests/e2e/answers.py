"""Clients that listen for words: what each answer said, and when it began and ended."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.service import QUESTION

STREAM_END = "[DONE]"


@dataclass(frozen=True)
class Said:
    """One answer; times are time.monotonic()."""

    status: int
    text: str
    models: frozenset[str]
    began: float
    ended: float


def events_of(raw: str) -> list[dict[str, Any]]:
    """Return the JSON events of a stream; AssertionError when it has no end."""
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    assert lines, f"not a stream: {raw[:200]}"
    assert lines[-1] == STREAM_END, f"a stream that was cut after {len(lines)} events"
    return [json.loads(line) for line in lines[:-1]]


def ask_once(connection: http.client.HTTPConnection, model: str, *, stream: bool, headers: Mapping[str, str] | None = None) -> Said:
    """Ask for the word on a connection that may be kept; connection errors are the caller's."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0, "stream": stream}
    began = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    raw = response.read().decode(errors="replace")
    ended = time.monotonic()
    if response.status != 200:
        return Said(response.status, raw, frozenset(), began, ended)
    if not stream:
        parsed = json.loads(raw)
        return Said(200, parsed["choices"][0]["message"]["content"] or "", frozenset({parsed["model"]}), began, ended)
    events = events_of(raw)
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    return Said(200, text, frozenset(event["model"] for event in events), began, ended)


@dataclass
class Listener:
    """Two clients, one that keeps its connection and one that opens one per request, in turns with and without streaming; from `with` to its end."""

    host: str
    port: int
    model: str
    answers: list[Said] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._progress = threading.Condition()
        self._threads = [threading.Thread(target=self._client, args=(keep,), daemon=True) for keep in (True, False)]

    def __enter__(self) -> Listener:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)

    def wait_for(self, more: int, timeout: float = 60) -> None:
        """Wait until so many more answers have come."""
        with self._progress:
            target = len(self.answers) + more
            arrived = self._progress.wait_for(lambda: len(self.answers) >= target or self.failures, timeout)
        assert arrived, f"only {len(self.answers)} of {target} answers after {timeout:.0f} s"
        assert self.failures == []

    def _client(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        stream = False
        while not self._stop.is_set():
            stream = not stream
            try:
                said = ask_once(connection, self.model, stream=stream)
            except (OSError, http.client.HTTPException, AssertionError, ValueError, KeyError) as error:
                self._note(None, f"{type(error).__name__}: {error}")
                connection.close()
                continue
            self._note(said, "")
            if not keep:
                connection.close()
        connection.close()

    def _note(self, said: Said | None, failure: str) -> None:
        with self._progress:
            if said:
                self.answers.append(said)
            else:
                self.failures.append(failure)
            self._progress.notify_all()


class LongAnswer(threading.Thread):
    """One streamed completion of a known length, read in a thread of its own."""

    def __init__(self, host: str, port: int, model: str, tokens: int, choices: int = 1, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.ended_at = 0.0
        self.failure = ""
        self.tokens = 0
        self._address = (host, port)
        self._headers = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
        self._body = {
            "model": model,
            "prompt": "The secret word is",
            "max_tokens": tokens,
            "n": choices,
            "ignore_eos": True,
            "temperature": 1,  # several choices without chance would be refused
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def run(self) -> None:
        """Ask, and read to the end."""
        connection = http.client.HTTPConnection(*self._address, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps(self._body), self._headers)
            response = connection.getresponse()
            first = response.readline()
            self.begun.set()
            raw = (first + response.read()).decode(errors="replace")
            self.ended_at = time.monotonic()
            assert response.status == 200, f"HTTP {response.status}: {raw[:300]}"
            self.tokens = next((event["usage"]["completion_tokens"] for event in reversed(events_of(raw)) if event.get("usage")), 0)
        except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self.begun.set()
            connection.close()
