"""The API server's audit log: who did what, as the server itself wrote it down."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = "system:serviceaccount:graftwork-system:graftwork"


@dataclass(frozen=True)
class Call:
    """One request that the API server answered."""

    user: str
    verb: str
    group: str
    resource: str  # with the subresource: pods/status
    namespace: str
    name: str
    code: int


def calls(log: Path, user: str, offset: int = 0) -> list[Call]:
    """Return a user's completed requests from `offset` bytes on."""
    found = []
    with log.open("rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                break  # being written
            event = json.loads(raw)
            reference = event.get("objectRef")
            if event["user"]["username"] != user or event["stage"] not in ("ResponseComplete", "ResponseStarted") or not reference:
                continue
            resource = reference["resource"] + (f"/{reference['subresource']}" if reference.get("subresource") else "")
            code = event.get("responseStatus", {}).get("code", 0)
            found.append(
                Call(user, event["verb"], reference.get("apiGroup", ""), resource, reference.get("namespace", ""), reference.get("name", ""), code)
            )
    return found


def writes(log: Path, user: str = OPERATOR, offset: int = 0) -> Counter[str]:
    """Count a user's writes by verb, resource and name, its own Lease left out."""
    return Counter(
        f"{call.verb} {call.resource} {call.namespace}/{call.name}"
        for call in calls(log, user, offset)
        if call.verb in WRITES and call.resource != "leases"
    )
