"""What the fuzz tests of the guard share: a trap in the engine's place that remembers what reached it, and who may reach what.

The lists below are written from the issue and from what vLLM 0.32 was seen to serve, not from the guard's own table; what the guard allows is taken
from that table only to be held against them.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from graftwork_guard.asgi import Headers, Message, Receive, Scope, Send
from graftwork_guard.middleware import Guard
from graftwork_guard.routes import AGENT_ONLY, ALLOWED
from graftwork_guard.routing import parse
from graftwork_guard.settings import Settings
from hypothesis import settings

from tests.unit.guard.fakes import BASE, ENGINE, ROUTING, TOKEN

# `GRAFTWORK_FUZZ=long` looks for hours instead of seconds, each time elsewhere; CI looks at the same examples each time.
LONG = os.environ.get("GRAFTWORK_FUZZ") == "long"


def fuzz(examples: int) -> settings:
    """Return how long a test searches."""
    return settings(max_examples=examples * (200 if LONG else 1), derandomize=not LONG, deadline=None, database=None)


# vLLM's routes that change or tell what is none of a client's business, and every other one whose `model` nobody could map.
ADMINISTRATIVE = [
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/adapters",
    "/adapters/x",
    "/invocations",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/v1/chat/completions/render",
    "/v1/completions/render",
    "/v1/chat/completions/derender",
    "/inference/v1/generate",
    "/inference/v1/abort_requests",
    "/abort_requests",
    "/start_profile",
    "/stop_profile",
    "/fault_tolerance/apply",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/collective_rpc",
    "/server_info",
    "/sleep",
    "/wake_up",
    "/release_kv_cache_memory",
    "/is_sleeping",
    "/pause",
    "/resume",
    "/is_paused",
    "/init_weight_transfer_engine",
    "/update_weights",
    "/get_world_size",
    "/tokenizer_info",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/kv_event_sources",
]
GUARDED = ["/graftwork/engine", "/graftwork/routing"]  # the guard answers these itself, for the agent
INFERENCE = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/score",
    "/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/classify",
    "/pooling",
    "/tokenize",
    "/detokenize",
]
READS = ["/v1/models", "/metrics", "/health", "/ping", "/version", "/load"]
PUBLIC = frozenset(path for path, route in ALLOWED.items() if route.kind not in AGENT_ONLY)
SANE = frozenset({200, 204, 400, 401, 403, 404, 405, 411, 413, 415, 417, 422, 431, 503})
MULTIPART = ("/v1/audio/",)  # the model is in a form field there

BREACH = b"administrative route reached"


@dataclass
class Reached:
    """A request as it came to the engine."""

    method: str
    path: str
    headers: Headers
    body: bytes


def canonical(path: str) -> str:
    """Return the path as the laxest router would read it: decoded again and again, without case, parameters, doubled slashes and dots."""
    for _ in range(4):
        path = unquote(path)
    path = path.lower().replace("\\", "/").split("?")[0].split("#")[0].split(";")[0].split("\0")[0].strip()
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


@dataclass
class Trap:
    """An engine that answers everything, and says so where it should never have been asked."""

    reached: list[Reached] = field(default_factory=list)
    answered: list[tuple[int, bytes, list[bytes]]] = field(default_factory=list)  # status, content type, parts; else what a router would say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            self.reached.append(Reached(scope["type"], scope["path"], list(scope["headers"]), b""))
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.reached.append(Reached(scope["method"], scope["path"], list(scope["headers"]), body))
        status, kind, parts = self.answered.pop(0) if self.answered else (200, b"application/json", [_answer(scope["path"])])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        for number, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts) - 1})

    def breaches(self) -> list[str]:
        """Return what came through that must not; empty is good. For requests without the agent's token."""
        return [f"{found.method} {found.path!r}: {why}" for found in self.reached for why in _faults(found)]


def _answer(path: str) -> bytes:
    return b'{"model":"x"}' if canonical(path) in PUBLIC else b'"' + BREACH + b'"'


def _faults(found: Reached) -> list[str]:
    faults = []
    if found.path not in PUBLIC:
        faults.append("not on the public list")
    if canonical(found.path) in ADMINISTRATIVE + GUARDED:
        faults.append("a lax router would take it for an administrative route")
    faults += [f"header {name!r}" for name, _ in found.headers if name == b"x-graftwork-token" or name.startswith(b"x-amzn-sagemaker-")]
    if found.method == "POST" and found.path in ALLOWED and ALLOWED[found.path].kind.value == "inference" and not found.path.startswith(MULTIPART):
        faults += ["more than one model"] * (len(models_in(found.body)) > 1)
        faults += [f"model {model!r}" for model in models_in(found.body) if isinstance(model, str) and model not in ("", BASE, ENGINE)]
    return faults


def models_in(body: bytes) -> list[Any]:
    """Return every value of `model` that some reader of this JSON could take: whichever of several keys of the name counts for it."""
    try:
        document = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return []  # the engine reads it with the same parser, and refuses it
    return [value for key, value in document if key == "model"] if isinstance(document, _Pairs) else []


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all its keys, doubled ones too."""


def guarded(trap: Trap, run_dir: Path) -> Guard:
    """Return a guard with its map around a trap."""
    (run_dir / "token").write_bytes(TOKEN)
    guard = Guard(trap, Settings(run_dir=run_dir, served_name=BASE, drain_seconds=3600.0))
    guard.state.route(parse(ROUTING, BASE))
    return guard


@dataclass
class Outcome:
    """What a client got, and whether it was a proper answer."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


async def ask(guard: Guard, scope: Scope, parts: list[bytes]) -> Outcome:
    """Send one request with its body in these parts; whatever the guard raises is the test's."""
    outcome = Outcome()
    left = list(parts) or [b""]
    answered = asyncio.Event()

    async def receive() -> Message:
        if left:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not outcome.status, "an answer began twice"
            outcome.status, outcome.headers = message["status"], dict(message.get("headers", []))
            return
        assert message["type"] == "http.response.body", message
        assert outcome.status, "a body before its start"
        assert not outcome.complete, "more after the end"
        outcome.body += message.get("body", b"")
        if not message.get("more_body", False):
            outcome.complete = True
            answered.set()

    await asyncio.wait_for(guard(scope, receive, send), 10)
    return outcome
