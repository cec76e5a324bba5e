"""/healthz, /readyz and /metrics. Healthy means making progress, not merely running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from graftwork.clock import Clock
from graftwork.cluster import metrics

TICK_SECONDS = 1.0
STALL_SECONDS = 10.0

Check = Callable[[], str]
"""A check returns what is wrong, or an empty string."""


class Health:
    """Holds the checks and serves them. While the process waits for the Lease it is healthy and ready: it is a stand-by."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._ticked = clock.monotonic()
        self._runner: web.AppRunner | None = None
        self.add_live("event loop", self._stalled)

    def add_live(self, name: str, check: Check) -> None:
        """Add a check of /healthz; failing it gets the container restarted."""
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        """Add a check of /readyz."""
        self._ready[name] = check

    def problems(self, *, ready: bool = False) -> dict[str, str]:
        """Return what is wrong by check; /readyz asks the liveness checks too."""
        checks = {**self._live, **self._ready} if ready else self._live
        found = {name: check() for name, check in checks.items()}
        return {name: problem for name, problem in found.items() if problem}

    async def serve(self, port: int) -> int:
        """Listen on the port (0: any); return the port."""
        app = web.Application()
        app.router.add_get("/healthz", lambda _: self._answer(ready=False))
        app.router.add_get("/readyz", lambda _: self._answer(ready=True))
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, None, port)
        await site.start()
        return int(min(self._runner.addresses, key=len)[1])  # with port 0 IPv4 (the shorter address) and IPv6 get different ones

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    async def tick(self) -> None:
        """Measure the event loop's lag, until cancelled."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(TICK_SECONDS)
            self._ticked = self._clock.monotonic()
            metrics.LOOP_LAG.set(max(self._ticked - before - TICK_SECONDS, 0.0))

    def _stalled(self) -> str:
        age = self._clock.monotonic() - self._ticked
        return f"no tick for {age:.0f} s" if age > STALL_SECONDS else ""

    async def _answer(self, *, ready: bool) -> web.Response:
        problems = self.problems(ready=ready)
        return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)


async def _metrics(_: web.Request) -> web.Response:
    body = await asyncio.to_thread(generate_latest)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
