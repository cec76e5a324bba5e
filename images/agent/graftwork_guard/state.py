"""What this engine process knows of itself and the agent waits for: map, readiness, draining, requests in flight."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from graftwork_guard.connections import Connections
from graftwork_guard.routing import Routing

# How long a request whose client left is still counted. The engine is told to abort it by a message; until it has read that, it may schedule the
# request once more and read the adapter's files.
ABORT_LINGER_SECONDS = 2.0


class EngineState:
    """The state of one process. `version` changes with everything that the agent has to learn at once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.instance = secrets.token_hex(8)
        self.started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.version = 1
        self.routing: Routing | None = None
        self.connections = Connections(clock)
        self.ready = False
        self.draining = False
        self._in_flight: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def route(self, routing: Routing) -> None:
        """Replace the map. Readiness latches: an adapter that comes later never makes a pod unready."""
        self.routing = routing
        self.ready = self.ready or routing.ready
        self.connections.served_by(routing.replicas, self.ready)
        self._bump()

    def drain(self) -> None:
        """Note that the pod is being taken down."""
        if not self.draining:
            self.draining = True
            self._bump()

    @property
    def not_ready_reason(self) -> str:
        """Why readiness is refused, or ""."""
        if self.draining:
            return "Draining"
        if self.routing is None:
            return "NoRouting"
        return "" if self.ready else "AdaptersLoading"

    def enter(self, engine: str) -> None:
        """Count a request from its decision on; no map can be replaced between the two."""
        self._in_flight[engine] += 1

    def leave(self, engine: str, complete: bool) -> None:
        """Stop counting a request; one that was cut short lingers for the engine's sake."""
        if engine and not complete:
            asyncio.get_running_loop().call_later(ABORT_LINGER_SECONDS, self._left, engine)
        else:
            self._left(engine)

    def _left(self, engine: str) -> None:
        self._in_flight[engine] -= 1
        if self._in_flight[engine] > 0:
            return
        del self._in_flight[engine]
        if engine and (self.routing is None or engine not in self.routing.engine_names):
            self._bump()  # the agent waits for this to unload the adapter or delete its files

    def document(self) -> dict[str, object]:
        """Return the answer of GET /graftwork/engine."""
        return {
            "instance": self.instance,
            "version": self.version,
            "startedAt": self.started_at,
            "draining": self.draining,
            "ready": self.ready,
            "inflight": dict(self._in_flight),
        }

    async def changed(self, since: str) -> None:
        """Return when the version is another than `since`."""
        while str(self.version) == since:
            await self._changed.wait()

    def _bump(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()
