"""An ASGI application that behaves like vLLM 0.32 where the guard depends on it, and a client for it without a network."""

from __future__ import annotations

import asyncio
import email
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message as Message_
from pathlib import Path
from time import monotonic
from typing import Any

from graftwork_guard.asgi import App, Headers, Message, Receive, Scope, Send
from graftwork_guard.middleware import Guard
from graftwork_guard.settings import Settings

TOKEN = b"5f" * 32
BASE = "support"
ENGINE = "medical--3f2a9c41d0e7"
OTHER = "legal--aa00bb11cc22"
ENGINE_NAME = re.compile(r"[a-z]+--[0-9a-f]{12}")
ROUTING: dict[str, Any] = {
    "apiVersion": "graftwork.dev/routing/v1",
    "base": BASE,
    "aliases": {"medical": ENGINE},
    "unavailable": {"legal": {"reason": "AdapterLoading", "retryAfterSeconds": 5}},
    "ready": True,
}
VECTORS = bytes(range(8))
AGENT: Headers = [(b"x-graftwork-token", TOKEN)]
METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="support"} 1.0
# HELP vllm:lora_requests_info Running stats on lora requests.
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.763740000e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="medical--3f2a9c41d0e7,legal--aa00bb11cc22",waiting_lora_adapters=""} 1.7637400021e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="legal--aa00bb11cc22",waiting_lora_adapters="legal--aa00bb11cc22"} 1.7637400013e+09
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 38.0
"""


@dataclass
class Seen:
    """A request as the engine got it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeEngine:
    """`gate` holds streams after `held` events; `cut` is how many bytes one message of a stream has (0: one event each)."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Seen] = field(default_factory=list)
    cut: int = 0
    held: int = 1
    fail: Exception | None = None
    gone: set[str] = field(default_factory=set)
    force_usage: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = await _read(receive)
        seen = Seen(scope["method"], scope["path"], dict(scope["headers"]), body)
        self.seen.append(seen)
        if self.fail is not None:
            raise self.fail
        await self._answer(seen, receive, send)

    async def _answer(self, seen: Seen, receive: Receive, send: Send) -> None:
        if seen.path == "/v1/models":
            await _json(send, 200, {"object": "list", "data": [_card(BASE, "/models/base", None), _card(ENGINE, "/graftwork/adapters/m", BASE)]})
        elif seen.path == "/metrics":
            assert not {b"accept", b"accept-encoding"} & set(seen.headers), "the engine would compress, or answer in another format"
            await _send(send, 200, METRICS, b"text/plain; version=0.0.4; charset=utf-8")
        elif seen.method == "GET" or seen.path.endswith("_lora_adapter") or seen.path == "/ping":
            await _send(send, 200, b"Success", None)
        else:
            await self._infer(seen, receive, send)

    async def _infer(self, seen: Seen, receive: Receive, send: Send) -> None:
        try:
            request = form_fields(seen) if seen.path.startswith("/v1/audio/") else json.loads(seen.body)
            if not isinstance(request, dict):
                raise ValueError("no object")
            if not isinstance(request.get("model", ""), str | None):
                raise ValueError("model is no text")
        except ValueError:
            await _json(send, 400, {"error": {"message": "JSON decode error", "code": 400}})
            return
        model = request.get("model") or BASE
        if model in self.gone or (model != BASE and not ENGINE_NAME.fullmatch(model)):
            await _json(send, 404, {"error": {"message": f"The model `{model}` does not exist. Valid aliases: {BASE}.", "code": 404}})
        elif request.get("explode"):
            status = 500 if request["explode"] == 500 else 400
            await _json(send, status, {"error": {"message": f"bad request for {model}", "type": "BadRequestError", "param": None, "code": status}})
        elif str(request.get("encoding_format")).startswith("bytes"):
            await _send(send, 200, VECTORS, b"application/octet-stream", metadata(model) if request["encoding_format"] == "bytes" else [])
        elif request.get("stream"):
            await self._stream(events(seen.path, model, request, self.force_usage), receive, send)
        else:
            await _json(send, 200, answer(model, request))

    async def _stream(self, stream: list[bytes], receive: Receive, send: Send) -> None:
        """Like Starlette: one task sends, one waits for the client to leave; the first that ends cancels the other."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]})
        writing = asyncio.ensure_future(self._write(stream, send))
        listening = asyncio.ensure_future(_disconnect(receive))
        await asyncio.wait({writing, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            self.aborted.set()
        for task in (writing, listening):
            task.cancel()
        await asyncio.gather(writing, listening, return_exceptions=True)

    async def _write(self, stream: list[bytes], send: Send) -> None:
        joined = b"".join(stream)
        parts = [joined[i : i + self.cut] for i in range(0, len(joined), self.cut)] if self.cut else stream
        for number, part in enumerate([*parts, b""]):
            if number == self.held:
                self.streaming.set()
                await self.gate.wait()
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})


def form_fields(seen: Seen) -> dict[str, Any]:
    """Return a form's fields as another parser reads them; what is a file has its bytes."""
    message = email.message_from_bytes(b"content-type: " + seen.headers[b"content-type"] + b"\r\n\r\n" + seen.body)
    parts = message.get_payload()
    if not isinstance(parts, list):
        raise ValueError("no form")
    return {str(part.get_param("name", header="content-disposition")): _value(part) for part in parts if isinstance(part, Message_)}


def _value(part: Message_) -> bytes | str:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data if part.get_filename() else data.decode()


def answer(model: str, request: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return {"id": "chatcmpl-1", "created": 1, "model": model, "choices": [{"message": {"content": request.get("say", "hi")}}], "usage": usage}


def events(path: str, model: str, request: dict[str, Any], force_usage: bool = False) -> list[bytes]:
    """The events of one stream, as each API writes them."""
    if path == "/v1/responses":
        response = {"id": "r", "error": None, "metadata": request.get("metadata"), "model": model}
        done = {**response, "usage": {"input_tokens": 5, "output_tokens": 2}}
        return [
            _named("response.created", {"type": "response.created", "response": response}),
            _named("response.in_progress", {"type": "response.in_progress", "response": response}),
            _named("response.output_text.delta", {"type": "response.output_text.delta", "delta": "hi"}),
            _named("response.completed", {"type": "response.completed", "response": done}),
        ]
    if path == "/v1/messages":
        return [
            _named(
                "message_start", {"type": "message_start", "message": {"id": "m", "model": model, "usage": {"input_tokens": 5, "output_tokens": 0}}}
            ),
            _named("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
            _named("message_delta", {"type": "message_delta", "usage": {"input_tokens": 5, "output_tokens": 2}}),
            _named("message_stop", {"type": "message_stop"}),
        ]
    chunk: dict[str, Any] = {"id": "c", "created": 1, "model": model, "choices": [{"delta": {"content": request.get("say", "hi")}}]}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    if force_usage:
        chunk["usage"] = usage
    stream = [_data(chunk), b": keep-alive\n\n", _data(chunk)]
    if request.get("break"):
        stream.append(_data({"error": {"message": f"engine lost {model}", "code": 500}}))
    elif (request.get("stream_options") or {}).get("include_usage") or request.get("stream_include_usage") == "true":
        stream.append(_data({**chunk, "choices": [], "usage": usage}))
    return [*stream, b"data: [DONE]\n\n"]


def metadata(model: str) -> Headers:
    """What vLLM says beside vectors that are answered as bytes."""
    document = {"id": "embd-1", "model": model, "data": [{"index": 0, "shape": [2]}], "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    return [(b"metadata", json.dumps(document).encode())]


def _data(document: object) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def _named(event: str, document: object) -> bytes:
    return f"event: {event}\n".encode() + _data(document)


def _card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": root, "parent": parent, "max_model_len": 2048, "permission": []}


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, body: bytes, kind: bytes | None, more: Headers | None = None) -> None:
    headers = [(b"content-length", str(len(body)).encode())] + ([(b"content-type", kind)] if kind else []) + (more or [])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _json(send: Send, status: int, document: object) -> None:
    await _send(send, status, json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(), b"application/json")


@dataclass
class Answer:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def event_documents(self) -> list[Any]:
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: {")]
        return [json.loads(line) for line in lines]


class Call:
    """One request from outside. `leave` closes the client's side."""

    def __init__(
        self,
        app: App,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Headers | None = None,
        query: bytes = b"",
        pieces: int = 1,
        content_type: bytes = b"application/json",
    ) -> None:
        self.answer = Answer()
        self._gone = asyncio.Event()
        size = max(1, -(-len(body) // pieces))
        self._body = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        self.delegated = 0
        sent: Headers = [(b"content-type", content_type), *(headers or [])]
        if pieces == 1:
            sent.append((b"content-length", str(len(body)).encode()))
        self._scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": sent,
            "client": None,
        }
        self._app = app

    async def run(self) -> Answer:
        await self._app(self._scope, self._receive, self._send)
        return self.answer

    def leave(self) -> None:
        self._gone.set()

    async def _receive(self) -> Message:
        if self._body:
            part = self._body.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._body)}
        self.delegated += 1
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not self.answer.status, "an answer began twice"
            self.answer.status = message["status"]
            self.answer.headers = dict(message["headers"])
            return
        assert self.answer.status, "a body before its start"
        assert not self.answer.complete, "a body after its end"
        self.answer.parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            self.answer.complete = True
            self._gone.set()  # uvicorn says so too once the answer is complete


class World:
    """A guard around a fake engine, with the pod's run directory."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = monotonic, **limits: int) -> None:
        (run_dir / "token").write_bytes(TOKEN + b"\n")
        self.run_dir = run_dir
        self.engine = FakeEngine()
        self.guard = Guard(self.engine, Settings(run_dir=run_dir, served_name=BASE, drain_seconds=3600.0, **limits), clock)

    async def call(self, method: str, path: str, document: object = None, headers: Headers | None = None, query: bytes = b"") -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        return await Call(self.guard, method, path, body, headers, query).run()

    async def post(self, document: object, path: str = "/v1/chat/completions") -> Answer:
        return await self.call("POST", path, document)

    async def route(self, **changes: object) -> Answer:
        return await self.call("PUT", "/graftwork/routing", {**ROUTING, **changes}, AGENT)

    async def engine_state(self, query: bytes = b"") -> Any:
        return (await self.call("GET", "/graftwork/engine", headers=AGENT, query=query)).json

    async def metric(self, text: str) -> float:
        lines = (await self.call("GET", "/graftwork/metrics", headers=AGENT)).body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(text)), 0.0)
