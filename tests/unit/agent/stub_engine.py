"""An engine with the guard's contract (section 5) that can be told to misbehave; vLLM's answers are those of version 0.32."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from aiohttp import web

_SCHEMAS = Path(__file__).parents[3] / "docs/design/schemas"
ROUTING_SCHEMA = json.loads((_SCHEMAS / "routing.schema.json").read_text())
KEYS_SCHEMA = json.loads((_SCHEMAS / "keys.schema.json").read_text())
TOKEN = "0123456789abcdef" * 4
SERVED = "support"


@dataclass
class Faults:
    """What goes wrong, by engine name."""

    hang: set[str] = field(default_factory=set)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)  # loads that are answered 200 and do nothing
    breaks: set[str] = field(default_factory=set)  # loads during which the process ends
    dies: set[str] = field(default_factory=set)  # loads that are answered 500, as all that come next, until the process ends a moment later
    models_status: int = 200
    routing_status: int = 200
    keys_status: int = 200


class StubEngine:
    """One address at which engine processes come and go."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.loaded: list[str] = []
        self.inflight: dict[str, int] = {}
        self.routing: dict[str, Any] | None = None
        self.ready = False
        self.draining = False
        self.dying = False
        self.instance = ""
        self.version = 0
        self.log: list[tuple[str, str]] = []  # ("load" | "unload" | "route" | "ready" (a route that grants it) | "keys" | "other", engine name or "")
        self.routings: list[dict[str, Any]] = []
        self.keys: list[dict[str, Any]] = []
        self.bad: list[str] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start a new process: nothing is loaded, nothing is routed."""
        self.instance = secrets.token_hex(8)
        self.version = 1
        self.loaded, self.inflight, self.routing, self.ready, self.draining, self.dying = [], {}, None, False, False, False
        app = web.Application(middlewares=[self._token])
        app.add_routes(
            [
                web.get("/graftwork/engine", self._engine),
                web.put("/graftwork/routing", self._route),
                web.put("/graftwork/keys", self._keys),
                web.get("/v1/models", self._models),
                web.post("/v1/load_lora_adapter", self._load),
                web.post("/v1/unload_lora_adapter", self._unload),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.change()

    async def stop(self) -> None:
        """End the process; every connection breaks."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()
        self.change()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def bump(self) -> None:
        """Change the version, so that the hanging GET answers."""
        self.version += 1
        self.change()

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait until a condition holds; it is looked at after every request."""

        async def wait() -> None:
            while not condition():
                await self._changed.wait()

        try:
            await asyncio.wait_for(wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; log {self.log}, loaded {self.loaded}, routing {self.routing}") from None

    def count(self, kind: str, name: str = "") -> int:
        return sum(1 for entry in self.log if entry == (kind, name))

    @web.middleware
    async def _token(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if request.headers.get("X-Graftwork-Token") != TOKEN:
            self.bad.append(f"{request.path} without the token")
            self.change()
            return web.Response(status=404)
        answer: web.StreamResponse = await handler(request)
        asyncio.get_running_loop().call_soon(self.change)
        return answer

    async def _engine(self, request: web.Request) -> web.Response:
        since, wait = request.query.get("since"), float(request.query.get("wait", "0"))
        if since == str(self.version):
            try:
                async with asyncio.timeout(wait):
                    while since == str(self.version):
                        await self._changed.wait()
            except TimeoutError:
                pass
        return web.json_response(
            {
                "instance": self.instance,
                "version": self.version,
                "startedAt": "2026-11-21T13:00:00.123456Z",
                "draining": self.draining,
                "ready": self.ready,
                "inflight": self.inflight,
            }
        )

    async def _route(self, request: web.Request) -> web.Response:
        body = await request.json()
        try:
            jsonschema.validate(body, ROUTING_SCHEMA)
        except jsonschema.ValidationError as error:
            self.bad.append(str(error))
        if self.faults.routing_status != 200:
            return web.Response(status=self.faults.routing_status)
        if body.get("instance", self.instance) != self.instance:
            self.log.append(("other", ""))
            return web.json_response({"error": "another instance", "instance": self.instance}, status=409)
        for alias, name in _targets(body):
            if name not in self.loaded:
                self.bad.append(f"{alias} routed to {name}, which is not loaded")
        self.log.append(("ready" if body["ready"] else "route", ""))
        self.routings.append(body)
        self.routing = body
        self.ready = self.ready or body["ready"]
        self.version += 1
        self.change()
        return web.json_response({"instance": self.instance, "version": self.version})

    async def _keys(self, request: web.Request) -> web.Response:
        body = await request.json()
        try:
            jsonschema.validate(body, KEYS_SCHEMA)
        except jsonschema.ValidationError as error:
            self.bad.append(str(error))
        if body.get("instance") != self.instance:
            return web.json_response({"error": "another process", "instance": self.instance}, status=409)
        if self.faults.keys_status != 200:
            self.log.append(("keys-refused", ""))
            return web.Response(status=self.faults.keys_status)
        self.log.append(("keys", ""))
        self.keys.append(body)
        return web.json_response({"instance": self.instance, "keys": len(body["keys"])})

    async def _models(self, _: web.Request) -> web.Response:
        if self.faults.models_status != 200:
            return web.Response(status=self.faults.models_status, text="Internal Server Error")
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in [SERVED, *self.loaded]]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], Path(body["lora_path"])
        self.log.append(("load", name))
        self.change()
        if set(body) != {"lora_name", "lora_path"} or not path.is_absolute():
            self.bad.append(f"load body {body}")
        if name in self.faults.hang:
            await asyncio.Event().wait()
        if name in self.faults.breaks:
            if request.transport:
                request.transport.abort()
            asyncio.get_running_loop().create_task(self.restart())
            await asyncio.Event().wait()
        if name in self.faults.dies and not self.dying:
            self.dying = True
            loop = asyncio.get_running_loop()
            loop.call_later(0.2, lambda: loop.create_task(self.restart()))
        if self.dying:
            return web.json_response({"error": {"message": "EngineCore encountered an issue. See stack trace (above).", "code": 500}}, status=500)
        if name in self.faults.errors:
            status, message = self.faults.errors[name]
            return web.json_response({"error": {"message": message, "type": "InternalServerError", "code": status}}, status=status)
        if not (path / "adapter_config.json").is_file():
            return web.json_response({"error": {"message": f"Loading lora {name} failed: No adapter found for {path}"}}, status=404)
        if name in self.loaded:
            return web.json_response({"error": {"message": f"The lora adapter '{name}' has already been loaded. If you want to load"}}, status=400)
        if name not in self.faults.lies:
            self.loaded.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.log.append(("unload", name))
        if self.inflight.get(name):
            self.bad.append(f"{name} unloaded with requests in flight")
        if self.routing and name in [target for _, target in _targets(self.routing)]:
            self.bad.append(f"{name} unloaded while it is routed")
        if name not in self.loaded:
            return web.json_response({"error": {"message": f"The lora adapter '{name}' cannot be found."}}, status=404)
        self.loaded.remove(name)
        return web.Response(text="removed")


def _targets(routing: dict[str, Any]) -> list[tuple[str, str]]:
    """Every alias with every engine adapter that its requests are sent to."""
    return [*routing["aliases"].items(), *((alias, item["engine"]) for alias, item in routing.get("candidates", {}).items())]
