"""What the guard answers itself: readiness, its metrics, and what the agent tells it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from pathlib import Path
from urllib.parse import parse_qs

from graftwork_guard.access import Access
from graftwork_guard.asgi import Receive, Scope, Send, header, read_body, send_body, send_json
from graftwork_guard.keys import KeysError
from graftwork_guard.keys import parse as parse_keys
from graftwork_guard.metrics import CONTENT_TYPE, Metrics
from graftwork_guard.routes import Kind
from graftwork_guard.routing import RoutingError, parse
from graftwork_guard.settings import LOG, Settings
from graftwork_guard.state import EngineState

TOKEN_HEADER = b"x-graftwork-token"
MAX_WAIT_SECONDS = 60.0
DRAINING_WAIT_SECONDS = 1.0  # a hanging answer would hold up the end of the process
_TOKEN_MIN_LENGTH = 32


class Token:
    """The pod's secret, by which its own agent is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = b""

    def matches(self, scope: Scope) -> bool:
        """Whether the request is the agent's. Without a readable token nobody is the agent."""
        given = header(scope["headers"], TOKEN_HEADER)
        return bool(given) and bool(self._read()) and hmac.compare_digest(given, self._token)

    def _read(self) -> bytes:
        if not self._token:
            try:
                text = self._path.read_bytes().strip()
            except OSError as error:
                LOG.error("the agent's token cannot be read: %s", error)
                return b""
            if len(text) < _TOKEN_MIN_LENGTH:
                LOG.error("the agent's token in %s is shorter than %d characters; it is not used", self._path, _TOKEN_MIN_LENGTH)
                return b""
            self._token = text
        return self._token


class Control:
    """The guard's own routes over one process's state."""

    def __init__(self, state: EngineState, metrics: Metrics, settings: Settings, access: Access) -> None:
        self._access = access
        self._state = state
        self._metrics = metrics
        self._settings = settings

    async def answer(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to one of the guard's own routes; who may ask was decided before."""
        if kind is Kind.READY:
            await self._ready(send)
        elif kind is Kind.GUARD_METRICS:
            await send_body(send, 200, self._metrics.render() + self._access.render(), content_type=CONTENT_TYPE)
        elif kind is Kind.ENGINE:
            await self._engine(scope, receive, send)
        elif kind is Kind.KEYS:
            await self._replace_keys(scope, receive, send)
        else:
            await self._replace_routing(scope, receive, send)

    async def _ready(self, send: Send) -> None:
        reason = self._state.not_ready_reason
        if reason:
            await send_json(send, 503, {"ready": False, "reason": reason})
        else:
            await send_json(send, 200, {"ready": True})

    async def _engine(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        since = query.get("since", [""])[0]
        wait_seconds = _seconds(query.get("wait", ["0"])[0])
        if self._state.draining:
            wait_seconds = min(wait_seconds, DRAINING_WAIT_SECONDS)
        if since and wait_seconds > 0:
            await _first_of(self._state, since, receive, wait_seconds)
        await send_json(send, 200, self._state.document())

    async def _replace_routing(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope["headers"], receive, self._settings.max_body_bytes)
        try:
            routing = parse(json.loads(body), self._settings.served_name)
        except (ValueError, RecursionError) as error:
            await send_json(send, 400, {"error": f"the body is not JSON: {error}"})
            return
        except RoutingError as error:
            await send_json(send, 400, {"error": str(error)})
            return
        if routing.instance not in ("", self._state.instance):
            text = f"instance is {routing.instance!r}; this engine process is {self._state.instance!r}: ask GET /graftwork/engine again"
            await send_json(send, 409, {"error": text, "instance": self._state.instance})
            return
        self._state.route(routing)
        self._metrics.routed(routing)
        version, counts = self._state.version, (len(routing.aliases), len(routing.candidates), len(routing.unavailable))
        LOG.info("routing %d: %d aliases, %d candidates, %d unavailable, ready: %s", version, *counts, self._state.ready)
        await send_json(send, 200, {"instance": self._state.instance, "version": version})

    async def _replace_keys(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope["headers"], receive, self._settings.max_body_bytes)
        try:
            document = json.loads(body)
            keyring = parse_keys(document)
        except KeysError as error:
            await send_json(send, 400, {"error": str(error)})
            return
        except (ValueError, RecursionError):  # without the parser's words, which may quote what it read
            await send_json(send, 400, {"error": "the body is not JSON"})
            return
        if (meant := document.get("instance")) not in (None, "", self._state.instance):
            text = f"instance is {meant!r}; this engine process is {self._state.instance!r}"
            await send_json(send, 409, {"error": text, "instance": self._state.instance})
            return
        self._access.replace(keyring)
        LOG.info("keys: %d", len(keyring.by_name))
        await send_json(send, 200, {"instance": self._state.instance, "keys": len(keyring.by_name)})


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), MAX_WAIT_SECONDS)
    except ValueError:
        return 0.0


async def _first_of(state: EngineState, since: str, receive: Receive, wait_seconds: float) -> None:
    """Return when the state changes, the client leaves or the time is over."""
    waiters = {asyncio.ensure_future(state.changed(since)), asyncio.ensure_future(_gone(receive))}
    try:
        await asyncio.wait(waiters, timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiter


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
