"""`serve`: the sidecar's process - HTTP, agent, signals."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys

from aiohttp import web

from graftwork_agent.agent import Agent
from graftwork_agent.server import make_app
from graftwork_agent.settings import Settings

LOG = logging.getLogger("graftwork_agent")
_M_ARENA_MAX = -8  # of malloc.h


def main() -> None:
    """Run until SIGTERM, which the kubelet sends to a native sidecar after the pod's other containers have ended."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    _few_arenas()
    code = asyncio.run(serve(Settings.from_env()))
    os._exit(code)  # a thread that waits for a store must not hold up the end


def _few_arenas() -> None:
    """Let all threads share two memory arenas: with one per thread, glibc keeps what a burst of downloads has freed."""
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


async def serve(settings: Settings) -> int:
    """Serve until a signal; returns the exit code: 0 after a signal, 70 when the agent itself ended."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = Agent(settings)
    runner = web.AppRunner(make_app(agent.board, agent.metrics, agent.is_ready), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, None, settings.port).start()
    working = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    failed = working.done()
    if failed:
        LOG.error("the agent ended", exc_info=working.exception())
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await working
    await runner.cleanup()
    return 70 if failed else 0
