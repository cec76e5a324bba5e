"""The API server's audit log: who did what and when, as the server itself wrote it down."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = "system:serviceaccount:graftwork-system:graftwork"


@dataclass(frozen=True)
class Call:
    """One request that the API server answered; times in seconds since the epoch, by the API server's clock."""

    user: str
    verb: str
    group: str
    resource: str  # with the subresource: pods/status
    namespace: str
    name: str
    code: int
    received: float = 0
    answered: float = 0

    @property
    def wrote(self) -> bool:
        """Whether it was a write request, whatever came of it; a Lease's renewal is none."""
        return self.verb in WRITES and self.resource != "leases"


def calls(log: Path, user: str, offset: int = 0) -> list[Call]:
    """Return a user's completed requests from `offset` bytes on."""
    return [call for call in _read(log, offset)[0] if call.user == user]


def writes(log: Path, user: str = OPERATOR, offset: int = 0) -> Counter[str]:
    """Count a user's writes by verb, resource and name, its own Lease left out."""
    return Counter(f"{call.verb} {call.resource} {call.namespace}/{call.name}" for call in calls(log, user, offset) if call.wrote)


@dataclass
class Tail:
    """The requests about the objects of one namespace, from the log's end of now on."""

    log: Path
    namespace: str
    calls: list[Call] = field(default_factory=list)
    offset: int = -1

    def __post_init__(self) -> None:
        if self.offset < 0:
            self.offset = self.log.stat().st_size

    def read(self) -> list[Call]:
        """Read what was written since the last time; return everything so far."""
        found, self.offset = _read(self.log, self.offset, f'"namespace":"{self.namespace}"'.encode())
        self.calls += [call for call in found if call.namespace == self.namespace]
        return self.calls


def _read(log: Path, offset: int, needle: bytes = b"") -> tuple[list[Call], int]:
    """Return the completed requests from an offset on, of the lines that have the needle, and where the next line will begin."""
    found = []
    with log.open("rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                break  # being written
            offset += len(raw)
            call = _call(json.loads(raw)) if needle in raw else None
            if call:
                found.append(call)
    return found, offset


def _call(event: dict[str, Any]) -> Call | None:
    reference = event.get("objectRef")
    if event["stage"] not in ("ResponseComplete", "ResponseStarted") or not reference:
        return None
    return Call(
        event["user"]["username"],
        event["verb"],
        reference.get("apiGroup", ""),
        reference["resource"] + (f"/{reference['subresource']}" if reference.get("subresource") else ""),
        reference.get("namespace", ""),
        reference.get("name", ""),
        event.get("responseStatus", {}).get("code", 0),
        _seconds(event["requestReceivedTimestamp"]),
        _seconds(event["stageTimestamp"]),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
