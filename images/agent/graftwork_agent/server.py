"""The agent's HTTP: /status, /alive, /ready, /metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from graftwork_agent.metrics import Metrics
from graftwork_agent.status import StatusBoard

MAX_WAIT_SECONDS = 60.0


def make_app(board: StatusBoard, metrics: Metrics, is_ready: Callable[[], bool]) -> web.Application:
    """Return the application; `is_ready` says whether the agent knows what is desired."""

    async def status(request: web.Request) -> web.Response:
        try:
            wait = min(MAX_WAIT_SECONDS, max(0.0, float(request.query.get("wait", "0"))))
        except ValueError:
            return web.json_response(
                {"error": f"wait={request.query['wait']!r} must be a number of seconds, at most {MAX_WAIT_SECONDS:g}"}, status=400
            )
        return web.json_response(await board.wait(request.query.get("since", ""), wait))

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def ready(_: web.Request) -> web.Response:
        known = is_ready()
        return web.json_response({"ready": known, "reason": "" if known else "NoAdaptersFile"}, status=200 if known else 503)

    async def render(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/status", status), web.get("/alive", alive), web.get("/ready", ready), web.get("/metrics", render)])
    return app
