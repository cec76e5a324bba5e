"""The engine's answers on their way out: held until they are whole where they have to be, passed event by event where they stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from time import monotonic

from graftwork_guard.access import ANYBODY, BYTES_PER_TOKEN, Visit
from graftwork_guard.asgi import JSON_TYPE, Headers, Message, Send, header, with_body
from graftwork_guard.bodies import (
    LARGE_BYTES,
    Usage,
    adapter_is_gone,
    answer_usage,
    public_answer,
    public_metadata,
    public_models,
    without_engine_name,
)
from graftwork_guard.exposition import public_metrics
from graftwork_guard.metrics import Series
from graftwork_guard.routes import Route
from graftwork_guard.routing import Refusal, Routing, Target, adapter_gone, error_document
from graftwork_guard.settings import LOG
from graftwork_guard.streams import EventStream
from graftwork_guard.usage import Wanted

# Takes an answer's body and status; returns the status, the body and what headers come to it.
Rewrite = Callable[[bytes, int], tuple[int, bytes, Headers]]

_FAILED = b'{"error":{"message":"Internal server error.","type":"InternalServerError","param":null,"code":500}}'


class Reply:
    """What every answer passes last: says whether it has begun and ended, and ends the connection where it is not to be kept."""

    def __init__(self, send: Send, last: Callable[[], bool]) -> None:
        self._send = send
        self._last = last
        self.told: Callable[[], Headers] = list  # headers of the guard's own, as they are when the answer begins
        self.started = False
        self.finished = False

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.started = True
            if told := self.told():
                message = {**message, "headers": [*message.get("headers", []), *told]}
            if self._last():
                headers = [(name, value) for name, value in message.get("headers", []) if name.lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True


class Whole:
    """Holds an answer until it is complete, then sends what `rewrite` makes of its body."""

    def __init__(self, send: Send, rewrite: Rewrite) -> None:
        self._send = send
        self._rewrite = rewrite
        self._start: Message = {}
        self._parts: list[bytes] = []
        self.broken = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the engine's answer."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body, status, headers = b"".join(self._parts), self._start["status"], list(self._start.get("headers", []))
        try:
            status, body, more = await asyncio.to_thread(self._rewrite, body, status) if len(body) > LARGE_BYTES else self._rewrite(body, status)
        except Exception:  # noqa: BLE001 - a fault of ours must not surface inside the engine's handlers
            LOG.exception("an answer could not be rewritten")
            self.broken = True
            status, body, more = 500, _FAILED, []
        await self._send({**self._start, "status": status, "headers": with_body([*headers, *more], body)})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class InferenceReply:
    """An answer of an inference route, given its public name and counted."""

    def __init__(
        self,
        send: Send,
        route: Route,
        target: Target,
        series: Series,
        arrived: float,
        *,
        visit: Visit = ANYBODY,
        hide_usage: bool = False,
        wanted: Wanted | None = None,
    ) -> None:
        """`wanted`: how much a whole answer may be, for when its client leaves before it comes."""
        self._wanted = wanted
        self._send = send
        self._visit = visit
        self._hide_usage = hide_usage
        self._route = route
        self._target = target
        self._series = series
        self._arrived = arrived
        self._asked = monotonic()
        self._whole: Whole | None = None
        self._events: EventStream | None = None
        self._reported = False
        self.failed = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the engine's answer."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._whole is not None:
            await self._whole(message)
            if self._whole.broken and not self.failed:
                self._note(500)
        elif self._events is not None and message["type"] == "http.response.body":
            await self._pass_events(self._events, message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        status = message["status"]
        kind = header(message.get("headers", []), b"content-type")
        if kind.startswith(b"text/event-stream"):
            self._events = EventStream(self._route, self._target, hide_usage=self._hide_usage, measured=self._visit.key is not None)
        elif kind.startswith(JSON_TYPE) or (status >= 400 and kind.startswith(b"text/")):
            self._whole = Whole(self._send, self._rewrite)
            await self._whole(message)
            return
        self._note(status)
        await self._send(self._in_bytes(message) if self._route.bytes_usage else message)

    def _in_bytes(self, message: Message) -> Message:
        """Return the start of an answer in bytes, whose usage and model's name are in a header."""
        headers: Headers = []
        for name, value in message.get("headers", []):
            if name.lower() != b"metadata":
                headers.append((name, value))
                continue
            if (usage := answer_usage(value)) is not None:
                self._used(usage)
            if not self._hide_usage:
                headers.append((name, public_metadata(value, self._target)))
        return {**message, "headers": headers}

    def _note(self, status: int) -> None:
        """Count an error status."""
        if status >= 400:
            self._series.failed(status)
        self.failed = self.failed or status >= 500

    def cut_short(self, body_bytes: int) -> None:
        """Note that the client left before the answer had ended."""
        events = self._events
        if events and events.usage and events.usage_is_last:  # it was all made, and the engine has said how much that is
            self._used(events.usage)
        elif events:
            self._visit.cut_short(events.usage, max(events.contents, events.content_bytes // BYTES_PER_TOKEN), body_bytes)
        else:
            self._visit.cut_short(None, self._wanted.tokens(monotonic() - self._asked) if self._wanted else 0, body_bytes)

    def _used(self, usage: Usage) -> None:
        if self._reported:
            return
        self._reported = True
        self._series.used(usage)
        self._visit.used(usage)

    def _rewrite(self, body: bytes, status: int) -> tuple[int, bytes, Headers]:
        if adapter_is_gone(body, status, self._target):
            refusal = adapter_gone(self._target.public)
            self._series.failed(refusal.status)  # and not `failed`: that somebody unloaded it says nothing of this version's files
            document = error_document(refusal, self._route.messages_api)
            return refusal.status, json.dumps(document, separators=(",", ":")).encode(), retry_after(refusal)
        self._note(status)
        if status < 400 and (usage := answer_usage(body)) is not None:
            self._used(usage)
        return status, public_answer(body, status, self._target), []

    async def _pass_events(self, events: EventStream, message: Message) -> None:
        more = message.get("more_body", False)
        begun, failed = events.content_seen, events.failed
        body = _renamed(events, message.get("body", b""), more, self._target)
        if events.content_seen and not begun:
            self._series.first_token(monotonic() - self._arrived)
        if events.failed and not failed:
            self._series.stream_failed()
            self.failed = True
        if not more and events.usage is not None:
            self._used(events.usage)
        if body or not more:
            await self._send({**message, "body": body})


def retry_after(refusal: Refusal) -> Headers:
    """Return the header that says when to come again, where a refusal knows it."""
    seconds = refusal.retry_after_seconds
    return [] if seconds is None else [(b"retry-after", str(seconds).encode())]


def _renamed(events: EventStream, data: bytes, more: bool, target: Target) -> bytes:
    """Return the events that are complete; a fault of ours costs their rewriting, never the stream."""
    try:
        return events.feed(data) if more else events.feed(data) + events.flush()
    except Exception:  # noqa: BLE001 - whatever it is, the client gets its stream
        LOG.exception("an event could not be rewritten")
        return without_engine_name(data, target)


def models_reply(send: Send, routing: Routing | None, served_name: str, may: Callable[[str], bool] = lambda _: True) -> Whole:
    """Return what turns the engine's list of models into the public one."""

    def rewrite(body: bytes, status: int) -> tuple[int, bytes, Headers]:
        if status == 200:
            body = json.dumps(public_models(json.loads(body), routing, served_name, may), separators=(",", ":")).encode()
        return status, body, []

    return Whole(send, rewrite)


def metrics_reply(send: Send, base: str, own: bytes) -> Whole:
    """Return what gives the engine's metrics their public names, and puts the guard's `own` behind them."""
    return Whole(send, lambda body, status: (status, public_metrics(body, base, own) if status == 200 else body, []))
