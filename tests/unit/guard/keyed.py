"""A guard that requires keys, its clock in the test's hand, and the keys of two tenants."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from graftwork_guard.asgi import Headers
from graftwork_guard.middleware import Guard
from graftwork_guard.settings import Settings

from tests.unit.guard.fakes import AGENT, BASE, Answer, World

A, B = "gw-aaaaaaaaaaaaaaaa", "gw-bbbbbbbbbbbbbbbb"


def entry(name: str, key: str, *models: str, **limits: int) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "models": list(models), "limits": limits}


def bearer(key: str) -> Headers:
    return [(b"authorization", b"Bearer " + key.encode())]


class KeyedWorld(World):
    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.now = 1000.0
        settings = Settings(run_dir=run_dir, served_name=BASE, drain_seconds=3600.0, keys_required=True)
        self.guard = Guard(self.engine, settings, clock=lambda: self.now)

    async def keys(self, *entries: dict[str, Any], **more: Any) -> Answer:
        return await self.call("PUT", "/graftwork/keys", {"apiVersion": "graftwork.dev/keys/v1", "keys": list(entries), **more}, AGENT)

    async def ask(self, key: str, document: object = None, path: str = "/v1/chat/completions", method: str = "POST") -> Answer:
        return await self.call(method, path, document if method == "GET" else document or {}, bearer(key))
