"""The pod's engine over loopback: the guard's agent routes and vLLM's adapter routes (contracts, section 5)."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from graftwork_agent.desired import ENGINE_NAME

TOKEN_HEADER = "X-Graftwork-Token"  # noqa: S105 - a name
_QUICK_SECONDS = 5.0
_MESSAGE_CHARACTERS = 500
_KEEP_SECONDS = 2.0  # less than the 5 s after which vLLM closes an idle connection: no request meets a connection that is being closed
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# What vLLM says about an adapter that it will refuse again, whenever it is sent.
_FINAL = (
    (re.compile(r"LoRA rank \d+ is greater than max_lora_rank"), "RankTooHigh"),
    (re.compile(r"does not yet support DoRA|bias is not supported|does not support LoRA bias|does not support init_lora_weights"), "Unsupported"),
    (re.compile(r"only supports modules_to_save|is unsupported LoRA weight|expected target modules in|layer_replication"), "Unsupported"),
    (re.compile(r"Missing required configuration fields"), "ConfigInvalid"),
)

_ANSWER = "Worker failed with error"  # the engine's own process tells of an adapter that it refused: it lives


class EngineGone(Exception):  # noqa: N818 - it says what was seen
    """Nothing listens, or the connection broke: the engine is starting or has ended."""


class EngineOdd(Exception):  # noqa: N818 - it says what was seen
    """The engine answers, but not as agreed, or not in time."""


class EngineOther(Exception):  # noqa: N818 - it says what was seen
    """Another engine process answers than the one that was meant."""


class LoadRefused(Exception):  # noqa: N818 - it is a verdict
    """The engine did not load (or unload) an adapter; `final` says that it never will, `odd` that nothing says whether the engine lives."""

    def __init__(self, reason: str, message: str, *, final: bool = False, odd: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.final = final
        self.odd = odd


@dataclass(frozen=True)
class View:
    """What `GET /graftwork/engine` says."""

    instance: str
    version: str
    started_at: str
    draining: bool
    ready: bool
    inflight: Mapping[str, int]


class EngineClient:
    """One engine address. Methods raise EngineGone or EngineOdd when there is no answer that can be used."""

    def __init__(self, url: str, run_dir: Path, *, load_seconds: float = 120.0) -> None:
        self._url = url.rstrip("/")
        self._token_path = run_dir / "token"
        self._load_seconds = load_seconds
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_SECONDS))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def view(self, since: str = "", wait: float = 0.0) -> View:
        """Ask the guard; with `since` and `wait` the answer comes when something has changed."""
        params = {"since": since, "wait": str(int(wait))} if since else {}
        status, text = await self._call("GET", "/graftwork/engine", _QUICK_SECONDS + wait, params=params)
        body = _object(status, text, "/graftwork/engine")
        try:
            started = str(body.get("startedAt", ""))
            return View(
                instance=str(body["instance"]),
                version=str(body["version"]),
                started_at=started if _TIME.fullmatch(started) else "",
                draining=bool(body["draining"]),
                ready=bool(body["ready"]),
                inflight={str(name): int(count) for name, count in body["inflight"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineOdd(f"GET /graftwork/engine: {type(error).__name__}: {error} in {text[:200]!r}") from None

    async def adapters(self) -> frozenset[str]:
        """Return the names of the engine's models that are called like our adapters."""
        status, text = await self._call("GET", "/v1/models", _QUICK_SECONDS)
        try:
            names = [str(card["id"]) for card in _object(status, text, "/v1/models")["data"]]
        except (KeyError, TypeError) as error:
            raise EngineOdd(f"GET /v1/models: {type(error).__name__}: {error} in {text[:200]!r}") from None
        return frozenset(name for name in names if ENGINE_NAME.fullmatch(name))

    async def route(self, body: Mapping[str, Any]) -> str:
        """Give the guard its whole map; returns the instance that took it. Raises EngineOther when it was meant for another."""
        status, text = await self._call("PUT", "/graftwork/routing", _QUICK_SECONDS, json=body)
        if status == 409:
            raise EngineOther(f"/graftwork/routing: {_message(text)}")
        return str(_object(status, text, "/graftwork/routing").get("instance", ""))

    async def give_keys(self, body: Mapping[str, Any]) -> str:
        """Give the guard all API keys; returns the instance that took them."""
        status, text = await self._call("PUT", "/graftwork/keys", _QUICK_SECONDS, json=body)
        return str(_object(status, text, "/graftwork/keys").get("instance", ""))

    async def load(self, name: str, path: Path) -> None:
        """Load an adapter under a name; "already loaded" is fine. Raises LoadRefused."""
        body = {"lora_name": name, "lora_path": os.path.abspath(path)}  # noqa: ASYNC240 - asks no disk; vLLM takes a relative path for a repository of a hub
        try:
            status, text = await self._call("POST", "/v1/load_lora_adapter", self._load_seconds, json=body)
        except EngineOdd as error:
            raise LoadRefused("LoadFailed", str(error), odd=True) from None
        message = _message(text)
        if status == 200 or (status == 400 and "has already been loaded" in message):
            return
        for pattern, reason in _FINAL:
            if pattern.search(message):
                raise LoadRefused(reason, f"vLLM answered {status}: {message}", final=True)
        raise LoadRefused("LoadFailed", f"vLLM answered {status}: {message}", odd=status >= 500 and _ANSWER not in message)

    async def unload(self, name: str) -> None:
        """Take an adapter out; one that the engine does not know is out. Raises LoadRefused."""
        try:
            status, text = await self._call("POST", "/v1/unload_lora_adapter", _QUICK_SECONDS, json={"lora_name": name})
        except EngineOdd as error:
            raise LoadRefused("LoadFailed", str(error)) from None
        if status not in (200, 404):
            raise LoadRefused("LoadFailed", f"vLLM answered {status} to the unload: {_message(text)}")

    async def _call(self, method: str, path: str, seconds: float, **options: Any) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=2.0)
        try:
            headers = {TOKEN_HEADER: self._token_path.read_text().strip()}
            async with self._session.request(method, self._url + path, headers=headers, timeout=timeout, **options) as answer:
                return answer.status, await answer.text(errors="replace")
        except TimeoutError:
            raise EngineOdd(f"{method} {path}: no answer within {seconds:g} s") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.IncompleteReadError) as error:
            raise EngineGone(f"{method} {path}: {error or type(error).__name__}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineOdd(f"{method} {path}: {type(error).__name__}: {error}") from None


def _object(status: int, text: str, path: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if status != 200 or not isinstance(body, dict):
        raise EngineOdd(f"{path}: answered {status} {text[:200]!r}; is the guard installed in this engine?")
    return body


def _message(text: str) -> str:
    """Return the message of an error in OpenAI's shape, or the text itself, shortened."""
    try:
        body = json.loads(text)
        error = body.get("error", body)
        text = str(error.get("message", text)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARACTERS else f"{text[: _MESSAGE_CHARACTERS - 1]}…"
