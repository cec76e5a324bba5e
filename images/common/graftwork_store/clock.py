"""The one form in which times are written: RFC 3339 in UTC with microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the present time, for example `2026-11-21T13:00:00.123456Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
