"""The engine's own application and the guard around it in one process: a header says which of the two answers. For measuring only.

This file is mounted into an engine's container; there is no test harness, so it imports nothing of it.
"""

from __future__ import annotations

from graftwork_guard import Guard
from graftwork_guard.asgi import App, Receive, Scope, Send

PLAIN = (b"x-bench", b"plain")


class Switch:
    """A middleware as vLLM takes it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._guard = Guard(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Both sides pay for the look at the header."""
        plain = scope["type"] == "http" and PLAIN in scope["headers"]
        await (self._app if plain else self._guard)(scope, receive, send)
