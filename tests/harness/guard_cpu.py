"""What a request costs the guard itself: processor time in this process, around an application that answers at once with what an engine would.

A throughput of whole pods is told apart from noise only after hours on a machine whose cores the engine fills; this is told within a second.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork_guard.asgi import App, Message, Receive, Scope, Send
from graftwork_guard.middleware import Guard
from graftwork_guard.settings import Settings

from tests.harness import records
from tests.harness.bench_stage import Stage

BASE, ALIAS, ENGINE = "support", "medical", "medical--0123456789ab"
TOKENS = 16
REQUESTS = 1000
ROUNDS = 5
WARM = 100
MICROSECONDS = 1_000_000
_CHOICE = {"index": 0, "logprobs": None, "finish_reason": None, "stop_reason": None}
_COMMON = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1_700_000_000, "model": ENGINE}
_USAGE = {"prompt_tokens": 5, "total_tokens": 5 + TOKENS, "completion_tokens": TOKENS, "prompt_tokens_details": None}
ANSWER = json.dumps({**_COMMON, "choices": [{**_CHOICE, "text": "a word " * TOKENS}], "usage": _USAGE}).encode()
EVENTS = [f"data: {json.dumps({**_COMMON, 'choices': [{**_CHOICE, 'text': 'a word '}], 'usage': None})}\n\n".encode()] * TOKENS + [
    b"data: [DONE]\n\n"
]


async def _engine(_: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, with a stream if one is asked for."""
    asked = json.loads((await receive())["body"])
    kind, pieces = (b"text/event-stream; charset=utf-8", EVENTS) if asked.get("stream") else (b"application/json", [ANSWER])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _call(app: App, method: str, path: str, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> list[Message]:
    sent: list[Message] = []
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not pending:
            await asyncio.Event().wait()  # the client stays until the answer is there
        return pending.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    named = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or {}).items()]
    address: dict[str, Any] = {"client": ("192.0.2.1", 1), "server": ("192.0.2.2", 8000), "query_string": b"", "raw_path": path.encode()}
    await app({"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": path, "headers": named, **address}, receive, send)
    return sent


async def _seconds(app: App, model: str, *, stream: bool) -> float:
    """Return the processor seconds of one request."""
    body = json.dumps({"model": model, "prompt": "The secret word is", "max_tokens": TOKENS, "temperature": 0, "stream": stream}).encode()
    for _ in range(WARM):
        assert (await _call(app, "POST", "/v1/completions", body))[0]["status"] == 200
    began = time.process_time()
    for _ in range(REQUESTS):
        await _call(app, "POST", "/v1/completions", body)
    return (time.process_time() - began) / REQUESTS


async def _measure(folder: Path) -> dict[str, list[float]]:
    token = "t" * 40
    (folder / "token").write_text(token)
    guard = Guard(_engine, Settings.from_env({"GRAFTWORK_RUN_DIR": str(folder), "GRAFTWORK_SERVED_NAME": BASE}))
    routing = {"apiVersion": "graftwork.dev/routing/v1", "base": BASE, "aliases": {ALIAS: ENGINE}, "unavailable": {}, "ready": True}
    told = await _call(guard, "PUT", "/graftwork/routing", json.dumps(routing).encode(), {b"x-graftwork-token": token.encode()})
    assert told[0]["status"] == 200, told
    added: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for what, stream in ((f"a whole answer of {TOKENS} tokens", False), (f"a stream of {TOKENS} events", True)):
            more = await _seconds(guard, ALIAS, stream=stream) - await _seconds(_engine, ENGINE, stream=stream)
            added.setdefault(what, []).append(more)
    return added


def guard_cpu(stage: Stage) -> None:
    """Record the processor time that the guard adds, per kind of answer: the median of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        added = asyncio.run(_measure(Path(folder)))
    for what, rounds in added.items():
        samples = [round(MICROSECONDS * each, 1) for each in rounds]
        figure = f"guard: processor time of its own for {what}, without an engine"
        stage.save(records.Figure(figure, statistics.median(samples), "us", None, samples))
