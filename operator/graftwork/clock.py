"""The one clock. Everything that waits or dates anything takes it as an argument, so that tests move time by hand."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and the two ways to wait."""

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def wait(self, event: asyncio.Event, timeout_seconds: float | None) -> bool:
        """Wait for the event or the timeout, whichever is first; return whether the event is set."""
        ...


class SystemClock:
    """Real time."""

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, timeout_seconds: float | None) -> bool:
        """Wait for the event or the timeout, whichever is first; return whether the event is set."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            pass
        return event.is_set()


def rfc3339(moment: datetime) -> str:
    """Return the time as contracts.md writes times: UTC with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """Return the moment that an API object or a contract names (`…Z` with or without fractions); ValueError if it names none."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone; write it in UTC with a Z at the end")
    return moment.astimezone(UTC)
