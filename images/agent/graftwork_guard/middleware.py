"""The transport: one ASGI application around vLLM's. It classifies, asks the pure parts, and moves bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TypeVar

from graftwork_guard import bodies, reply, requests
from graftwork_guard.access import Access, Visit
from graftwork_guard.asgi import (
    App,
    ClientGoneError,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    TooLargeError,
    headers_size,
    read_body,
    send_json,
    with_body,
)
from graftwork_guard.choice import session_of
from graftwork_guard.control import TOKEN_HEADER, Control, Token
from graftwork_guard.drain import Drain
from graftwork_guard.forms import FormError
from graftwork_guard.heads import bound_heads
from graftwork_guard.metrics import ABANDONED, ANSWERED, FAILED, REFUSED, Metrics
from graftwork_guard.routes import AGENT_ONLY, SCRAPED, Kind, Route, classify
from graftwork_guard.routing import Refusal, Target, decide, error_document
from graftwork_guard.settings import LOG, Settings
from graftwork_guard.state import EngineState

DRAIN_CHECK_SECONDS = 0.2
# uvicorn begins to listen a few turns of the loop after the application says that it has started.
LISTENING_DELAY_SECONDS = 0.05

_T = TypeVar("_T")

_CLOSE = (b"connection", b"close")
_DRAINING = Refusal(503, "ServiceUnavailableError", "This replica is being taken down; try again, another one answers.", retry_after_seconds=1)
_NO_BACKGROUND = Refusal(
    400, "BadRequestError", "`background` is not served: answers are not stored. Send `background: false`, or stream.", "background"
)
_OTHER_ROUTERS = b"x-amzn-sagemaker-"  # headers by which the engine's SageMaker layer chooses an adapter
_NOT_FOUND = {"detail": "Not Found"}


class Guard:
    """vLLM's `--middleware graftwork_guard.Guard`: built once per API server process, with nothing but the application it wraps."""

    def __init__(self, app: App, settings: Settings | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.app = app
        self.settings = settings or Settings.from_env()
        self.state = EngineState(clock)
        self.metrics = Metrics()
        self.access = Access(required=self.settings.keys_required, clock=clock)
        self._drain = Drain(self.settings.run_dir, self.settings.drain_seconds)
        self._token = Token(self.settings.run_dir / "token")
        self._control = Control(self.state, self.metrics, self.settings, self.access)
        self._watcher: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of any kind that ASGI knows."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "websocket":  # no public route has one; closing before accepting answers 403
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def look_for_drain(self) -> bool:
        """Return whether the pod is being taken down, as of this moment; who waits for it is told."""
        if self._drain.requested:
            self.state.drain()
        return self.state.draining

    @property
    def closed(self) -> bool:
        """Whether new inference requests are refused."""
        return self._drain.closed

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def started(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._watcher = asyncio.create_task(self._watch())

        bound_heads(scope, self.settings.max_header_bytes)
        try:
            await self.app(scope, receive, started)
        finally:
            if self._watcher is not None:
                self._watcher.cancel()

    async def _watch(self) -> None:
        """Say that HTTP listens, then look for the drain file, for those who wait and ask nothing."""
        await asyncio.sleep(LISTENING_DELAY_SECONDS)
        try:
            (self.settings.run_dir / "serving").touch()
        except OSError as error:
            LOG.error("the marker for the entrypoint cannot be made: %s", error)
        while not self.look_for_drain():  # noqa: ASYNC110 - the file is made by another process, and the standard library has no inotify
            await asyncio.sleep(DRAIN_CHECK_SECONDS)

    def is_agent(self, scope: Scope) -> bool:
        """Whether the pod's own agent asks."""
        return self._token.matches(scope)

    async def control(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one of the guard's own routes."""
        await self._control.answer(kind, scope, receive, send)


class _Exchange:
    """One HTTP request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._reply = reply.Reply(send, self._last)
        self._arrived = monotonic()
        self._in_engine = False
        self._client_gone = False

    async def run(self) -> None:
        """Answer. What goes wrong in the engine's code is the engine's to handle; what goes wrong here is a 500 and a line in the log."""
        try:
            await self._dispatch()
        except ClientGoneError:
            return
        except TooLargeError:
            limit = self._guard.settings.max_body_bytes
            await self._refuse(Refusal(413, "BadRequestError", f"The request's body is larger than {limit} bytes."), (_CLOSE,))
        except FormError as error:
            await self._refuse(Refusal(400, "BadRequestError", f"{error}."))
        except bodies.TooDeepError:
            await self._refuse(Refusal(400, "BadRequestError", "The request's JSON is nested too deeply."))
        except Exception:
            if self._in_engine:
                raise
            LOG.exception("the guard failed at %s %s", self._scope.get("method"), self._scope.get("path"))
            if not self._reply.started:
                await self._refuse(Refusal(500, "InternalServerError", "Internal server error."))

    async def _dispatch(self) -> None:
        scope, guard = self._scope, self._guard
        guard.state.connections.arrived(scope)
        guard.look_for_drain()
        if headers_size(scope) > guard.settings.max_header_bytes:
            text = f"The request's headers are larger than {guard.settings.max_header_bytes} bytes."
            await self._refuse(Refusal(431, "BadRequestError", text), (_CLOSE,))
            return
        route = classify(scope["method"], scope["path"])
        kind = route.kind
        if kind is Kind.UNKNOWN or (kind in AGENT_ONLY and not guard.is_agent(scope)):
            await send_json(self._reply, 404, _NOT_FOUND)
        elif kind is Kind.WRONG_METHOD:
            await send_json(self._reply, 405, {"detail": "Method Not Allowed"}, [(b"allow", ", ".join(route.methods).encode())])
        elif kind is Kind.INFERENCE:
            await self._enter(route)
        elif kind is Kind.READ:
            await self._read(route)
        elif kind is Kind.MODELS:
            await self._models(route)
        elif kind in SCRAPED and not guard.is_agent(scope) and (refusal := guard.access.scrape(scope["headers"])):
            await self._refuse(refusal)
        elif kind is Kind.METRICS:
            base = guard.state.routing.base if guard.state.routing else guard.settings.served_name
            # Without these two the engine answers in Prometheus' text format, uncompressed.
            await self._engine(
                reply.metrics_reply(self._reply, base, guard.metrics.render() + guard.access.render()), drop=(b"accept", b"accept-encoding")
            )
        elif kind is Kind.AGENT:
            await self._change_adapters()
        else:
            await guard.control(kind, scope, self._receive, self._reply)

    def _last(self) -> bool:
        """Whether this answer ends its connection, asked when it begins."""
        return self._guard.look_for_drain() or self._guard.state.connections.lets_go(self._scope)

    async def _change_adapters(self) -> None:
        """Pass a load or an unload on. In the engine's last seconds it would never return and block the process's end, so then it is refused."""
        if self._guard.state.draining:
            await self._refuse(_DRAINING)
        else:
            await self._engine(self._reply)

    async def _read(self, route: Route) -> None:
        key = None if route.keyless else self._guard.access.know(self._scope["headers"])
        if isinstance(key, Refusal):
            await self._refuse(key)
        else:
            await self._engine(self._reply)

    async def _models(self, route: Route) -> None:
        guard = self._guard
        if guard.is_agent(self._scope):
            await self._engine(self._reply)
            return
        key = guard.access.know(self._scope["headers"])
        if isinstance(key, Refusal):
            await self._refuse(key, messages_api=route.messages_api)
            return
        await self._engine(reply.models_reply(self._reply, guard.state.routing, guard.settings.served_name, Visit(key).may))

    async def _enter(self, route: Route) -> None:
        """Look at the key before the body is read: who may not ask costs nothing."""
        guard = self._guard
        if guard.closed:
            await self._refuse_counted(_DRAINING, route, (_CLOSE,))
            return
        visit = guard.access.enter(self._scope["headers"], guard.state.routing)
        if isinstance(visit, Refusal):
            await self._refuse_counted(visit, route)
            return
        self._reply.told = visit.headers
        try:
            await self._infer(route, visit)
        finally:
            visit.leave()

    async def _infer(self, route: Route, visit: Visit) -> None:
        guard, scope = self._guard, self._scope
        if route.unsalted and visit.key:
            await self._refuse_counted(_no_salt(route), route)
            return
        body = await read_body(scope["headers"], self._receive, guard.settings.max_body_bytes)
        request = await _aside(partial(requests.parse, route, scope["headers"], body), len(body))
        if route.background and request.document is not None and request.document.get("background"):
            await self._refuse_counted(_NO_BACKGROUND, route)
            return
        # From here to enter() nothing awaits: whoever replaces the map afterwards sees this request counted.
        target = decide(guard.state.routing, request.model, lambda: session_of(scope["headers"], request.user))
        target = visit.permits(guard.state.routing, request.model, target)
        if isinstance(target, Refusal):
            await self._refuse_counted(target, route)
            return
        guard.state.enter(target.engine)
        await self._ask(request, route, visit, target)

    async def _ask(self, request: requests.Request, route: Route, visit: Visit, target: Target) -> None:
        """Have the engine answer a request that was counted in, and count how it ends."""
        guard = self._guard
        series = guard.metrics.of(target)
        series.requests += 1
        series.in_flight += 1
        answer, outcome = None, FAILED
        try:
            sent = requests.outgoing(request, route, visit, target)
            body = await _aside(sent.encode, len(request.body))
            answer = reply.InferenceReply(
                self._reply, route, target, series, self._arrived, visit=visit, hide_usage=sent.hide_usage, wanted=sent.wanted
            )
            await self._engine(answer, body)
            outcome = FAILED if answer.failed or not self._reply.finished else ANSWERED
        except bodies.TooDeepError:  # found when it is written, and answered with 400
            series.failed(400)
            outcome = ANSWERED
            raise
        except Exception:
            if not self._client_gone:  # who answers, the engine's outer handlers or `run`, is past what counts here
                if self._reply.started:
                    series.stream_failed()
                else:
                    series.failed(500)
            raise
        finally:
            if self._client_gone:
                if answer:
                    answer.cut_short(len(request.body))
                outcome = FAILED if answer and answer.failed else ABANDONED
            series.ended[outcome] += 1
            series.in_flight -= 1
            guard.state.leave(target.engine, self._reply.finished and not self._client_gone)

    async def _engine(self, send: Send, body: bytes | None = None, drop: tuple[bytes, ...] = ()) -> None:
        """Let the engine answer; with a body, that one is what it reads first."""
        hidden = (TOKEN_HEADER, *drop, *self._guard.access.hidden_headers)
        headers = [(name, value) for name, value in self._scope["headers"] if name not in hidden and not name.startswith(_OTHER_ROUTERS)]
        receive: Receive = self._receive_noting_disconnect
        if body is not None:
            headers, receive = with_body(headers, body), _replay(body, receive)
        self._in_engine = True
        await self._guard.app({**self._scope, "headers": headers}, receive, send)
        self._in_engine = False

    async def _receive_noting_disconnect(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._reply.finished:
            self._client_gone = True
        return message

    async def _refuse_counted(self, refusal: Refusal, route: Route, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        series = self._guard.metrics.of(REFUSED)
        series.requests += 1
        series.failed(refusal.status)
        series.ended[FAILED if refusal.status >= 500 else ANSWERED] += 1
        await self._refuse(refusal, headers, route.messages_api)

    async def _refuse(self, refusal: Refusal, headers: tuple[tuple[bytes, bytes], ...] = (), messages_api: bool = False) -> None:
        extra: Headers = [*headers, *refusal.headers, *reply.retry_after(refusal)]
        await send_json(self._reply, refusal.status, error_document(refusal, messages_api), extra)


def _no_salt(route: Route) -> Refusal:
    text = f"This route is not served where API keys are required: the engine takes no cache_salt there. {route.unsalted}."
    return Refusal(400, "BadRequestError", text)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body once and is the real one from then on: handlers wait there for the client to leave."""
    replayed = False

    async def replaying() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying


async def _aside(function: Callable[[], _T], size: int) -> _T:
    """Call at once for a small body, in a thread for a large one."""
    return await asyncio.to_thread(function) if size > bodies.LARGE_BYTES else function()
