"""A serving pod's folders and its agent, running in the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from graftwork_agent.agent import Agent
from graftwork_agent.settings import Settings
from graftwork_agent.status import StatusBoard
from graftwork_store.fingerprint import base_fingerprint
from graftwork_store.store import Published, Store

from tests.unit.agent.stub_engine import SERVED, TOKEN
from tests.unit.store.seeds import fields, make_adapter, make_base

SCHEMAS = Path(__file__).parents[3] / "docs/design/schemas"
STATUS_SCHEMA = json.loads((SCHEMAS / "agent-status.schema.json").read_text())
ADAPTERS_SCHEMA = json.loads((SCHEMAS / "adapters.schema.json").read_text())


class CheckedBoard(StatusBoard):
    """A board that lets nothing pass that the contract does not allow."""

    def show(self, document: dict[str, Any]) -> None:
        jsonschema.validate({**document, "version": self.version}, STATUS_SCHEMA)
        super().show(document)


def engine_name(published: Published) -> str:
    alias = published.source.split("/")[3]
    return f"{alias}--{published.digest.removeprefix('sha256:')[:12]}"


def entry(published: Published, *, required: bool = False, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Return one adapter of adapters.json."""
    alias = published.source.split("/")[3]
    return {
        "name": f"{alias}-{version}",
        "alias": alias,
        "version": version,
        "engineName": engine_name(published),
        "digest": published.digest,
        "source": published.source,
        "rank": 4,
        "baseFingerprint": "",
        "required": required,
        **changes,
    }


def adapters_json(
    adapters: list[dict[str, Any]],
    aliases: dict[str, list[str]] | None = None,
    *,
    max_rank: int = 16,
    deadline: int = 120,
    candidates: dict[str, tuple[str, int]] | None = None,
    **more: Any,
) -> bytes:
    """Return the canonical file; by default each alias prefers its adapters in the order given. `candidates` are (engine name, weight) by alias."""
    if aliases is None:
        aliases = {}
        for item in adapters:
            aliases.setdefault(item["alias"], []).append(item["engineName"])
    body: dict[str, Any] = {
        "apiVersion": "graftwork.dev/adapters/v1",
        "deployment": {"namespace": "ml", "name": "support"},
        "servedName": SERVED,
        "maxRank": max_rank,
        "requiredDeadlineSeconds": deadline,
        "adapters": sorted(adapters, key=lambda item: item["engineName"]),
        "aliases": [{"alias": alias, "prefer": prefer} for alias, prefer in sorted(aliases.items())],
        **more,
    }
    for item in body["aliases"]:
        if item["alias"] in (candidates or {}):
            item["candidate"], item["weight"] = (candidates or {})[item["alias"]]
    jsonschema.validate(body, ADAPTERS_SCHEMA)
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _write_volume(folder: Path, name: str, data: bytes) -> str:
    """Write a file as the kubelet does: a new folder, then one rename of the link ..data."""
    found = hashlib.sha256(data).hexdigest()
    version = folder / f"..{found[:16]}"
    if not version.exists():
        version.mkdir()
        (version / name).write_bytes(data)
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(version.name)
    link.rename(folder / "..data")
    if not (folder / name).is_symlink():
        (folder / name).symlink_to(f"..data/{name}")
    return found


@dataclass
class Pod:
    """One pod: folders below `root`, a store, a stub engine. `serve()` runs an agent in it."""

    root: Path
    store: Store
    engine: Any  # a StubEngine, or a GuardedEngine
    fingerprint: str

    @classmethod
    def make(cls, root: Path, store: Store, engine: Any) -> Pod:
        for name in ("config", "podinfo", "run", "adapters"):
            (root / name).mkdir(parents=True)
        (root / "run" / "token").write_text(TOKEN)
        base = make_base(root / "base")
        return cls(root, store, engine, base_fingerprint(base))

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "config_dir": self.root / "config",
            "podinfo_dir": self.root / "podinfo",
            "adapters_dir": self.root / "adapters",
            "run_dir": self.root / "run",
            "base_dir": self.root / "base",
            "keys_dir": self.root / "keys",
            "engine_url": self.engine.url,
            "port": 0,
            "pod": "support-abc",
            "load_seconds": 20.0,
            "connect_seconds": 0.02,
            "check_seconds": 0.2,
        }
        return Settings(**(values | changes))

    def publish(self, alias: str, *, seed: int = 1, rank: int = 4, fingerprint: str = "", manifest_rank: int = 0, **adapter: Any) -> Published:
        folder = make_adapter(self.root / "trained" / f"{alias}-{seed}-{rank}", seed=seed, rank=rank, **adapter)
        return self.store.publish(folder, "ml", alias, fields(fingerprint or self.fingerprint, manifest_rank or rank))

    def desire(self, data: bytes) -> str:
        """Change the mounted file as the kubelet does."""
        return _write_volume(self.root / "config", "adapters.json", data)

    def give_keys(self, data: bytes) -> None:
        """Mount the Secret of keys, or change it."""
        (self.root / "keys").mkdir(exist_ok=True)
        _write_volume(self.root / "keys", "keys.yaml", data)

    def on_disk(self) -> list[str]:
        return sorted(path.name for path in (self.root / "adapters").iterdir())

    @asynccontextmanager
    async def serve(self, store: Store | None = None, **changes: Any) -> AsyncIterator[Seen]:
        agent = Agent(self.settings(**changes), lambda: store or self.store)
        agent.board = CheckedBoard()
        task = asyncio.create_task(agent.run())
        try:
            yield Seen(agent, task)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@dataclass
class Seen:
    """What the operator would see of a running agent."""

    agent: Agent
    task: asyncio.Task[None]

    @property
    def status(self) -> dict[str, Any]:
        return self.agent.board.current()

    def adapter(self, name: str) -> dict[str, Any]:
        return next((row for row in self.status.get("adapters", []) if row["engineName"] == name), {})

    def state(self, name: str) -> str:
        return str(self.adapter(name).get("state", ""))

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait for a condition over the status, woken by its changes only."""

        async def wait() -> None:
            while not condition():
                if self.task.done():
                    self.task.result()
                await self.agent.board.wait(self.agent.board.version, 1.0)

        try:
            await asyncio.wait_for(wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; status {json.dumps(self.status, indent=1)}") from None
