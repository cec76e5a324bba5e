"""The real guard around a minimal vLLM, served over HTTP: where the agent and the guard, written apart, have to agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from graftwork_guard.asgi import Message, Receive, Scope, Send
from graftwork_guard.middleware import Guard
from graftwork_guard.settings import Settings

from tests.unit.agent.stub_engine import SERVED


class MiniVllm:
    """Adapter routes, the list of models, and chat answers that wait for `gate`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.asked: list[str] = []
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        document = json.loads(body) if body else {}
        if scope["path"] == "/v1/models":
            await self._json(send, {"object": "list", "data": [{"id": name, "object": "model"} for name in [SERVED, *self.loaded]]})
        elif scope["path"] == "/v1/load_lora_adapter":
            self.loaded.append(document["lora_name"])
            await self._json(send, "Success")
        elif scope["path"] == "/v1/unload_lora_adapter":
            self.loaded.remove(document["lora_name"])
            self.unloaded.append(document["lora_name"])
            await self._json(send, "Success")
        else:
            self.asked.append(document["model"])
            self.arrived.set()
            await self.gate.wait()
            await self._json(send, {"object": "chat.completion", "model": document["model"], "choices": []})

    async def _json(self, send: Send, document: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})


class GuardedEngine:
    """One process: guard and engine behind one port."""

    def __init__(self, run_dir: Path, *, keys_required: bool = False) -> None:
        self.vllm = MiniVllm()
        self.guard = Guard(self.vllm, Settings(run_dir=run_dir, served_name=SERVED, keys_required=keys_required))
        self.port = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until the guard's state fulfils a condition."""
        state = self.guard.state
        async with asyncio.timeout(seconds):
            while not condition():
                await state.changed(str(state.version))

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        body, answer = await request.read(), web.Response()
        parts: list[bytes] = []
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.set_status(message["status"])
                for name, value in message["headers"]:
                    if name.lower() != b"content-length":
                        answer.headers[name.decode()] = value.decode()
            else:
                parts.append(message.get("body", b""))

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "raw_path": request.raw_path.encode(),
            "query_string": request.query_string.encode(),
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "client": None,
        }
        await self.guard(scope, receive, send)
        answer.body = b"".join(parts)
        return answer
