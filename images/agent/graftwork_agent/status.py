"""The agent's `/status`: made from what is known, versioned, and handed to whoever waits for a change (contracts, section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork_agent.decide import FileState, Snapshot, current_files, is_refused
from graftwork_agent.desired import ENGINE_NAME, Adapter, Desired

API_VERSION = "graftwork.dev/agent-status/v1"
FEATURES = ("candidates",)
"""What this agent and the guard of its image do that older ones did not, for an operator that is newer than they are (contracts, section 4)."""
_ALIAS_CHARACTERS = 40


@dataclass
class Times:
    """When things happened to one adapter, RFC 3339 or empty."""

    seen_at: str = ""
    load_sent_at: str = ""
    loaded_at: str = ""


class StatusBoard:
    """Keeps the newest document; its version changes whenever anything else in it does."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._count = 0
        self._document: dict[str, Any] = {}
        self._changed = asyncio.Event()

    def show(self, document: dict[str, Any]) -> None:
        """Make a document (without `version`) the newest."""
        if document == self._document:
            return
        self._document = document
        self._count += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def version(self) -> str:
        """The version of the newest document."""
        return f"{self._process}.{self._count}"

    def current(self) -> dict[str, Any]:
        """Return the newest document with its version."""
        return {**self._document, "version": self.version}

    async def wait(self, since: str, seconds: float) -> dict[str, Any]:
        """Return the newest document, at once when its version is not `since`, else after a change or after `seconds`."""
        if since == self.version and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        return self.current()


def adapter_rows(snapshot: Snapshot, times: Mapping[str, Times], known: Mapping[str, Adapter], base_error: str) -> list[dict[str, Any]]:
    """Return `adapters` of the status: what is desired in its order, then what is still being taken away."""
    desired = snapshot.desired
    rows = []
    wanted = desired.by_name() if desired else {}
    if desired:
        for adapter in desired.adapters:
            state, reason, message = _state(snapshot, desired, adapter, base_error)
            rows.append(_row(adapter, times, state, reason, message))
    listed = snapshot.engine.listed if snapshot.engine and snapshot.engine.listed else frozenset()
    for name in sorted((listed | snapshot.on_disk) - set(wanted)):
        adapter_or_none = known.get(name) or _foreign(name)
        if adapter_or_none:
            trouble = snapshot.engine.troubles.get(name) if snapshot.engine else None
            rows.append(_row(adapter_or_none, times, "Unloading", trouble.reason if trouble else "", trouble.message if trouble else ""))
    return rows


def _state(snapshot: Snapshot, desired: Desired, adapter: Adapter, base_error: str) -> tuple[str, str, str]:
    files = current_files(snapshot, desired, adapter)
    engine = snapshot.engine
    trouble = engine.troubles.get(adapter.engine_name) if engine else None
    if files and files.state is FileState.REFUSED:
        result = ("Refused", files.reason, files.message)
    elif trouble and is_refused(snapshot, desired, adapter):
        result = ("Refused", trouble.reason, trouble.message)
    elif engine and engine.listed and adapter.engine_name in engine.listed:
        result = ("Loaded", "", "")
    elif trouble:
        result = ("Failed", trouble.reason, trouble.message)
    elif base_error and not snapshot.base_fingerprint:
        result = ("Failed", "ModelInvalid", base_error)
    elif files and files.state in (FileState.FAILED, FileState.WORKING) and files.reason:
        result = ("Failed", files.reason, files.message)
    elif files and files.state is FileState.WORKING:
        result = ("Downloading", "", "")
    else:
        result = ("Pending", "", "")
    return result


def _row(adapter: Adapter, times: Mapping[str, Times], state: str, reason: str, message: str) -> dict[str, Any]:
    at = times.get(adapter.engine_name, Times())
    return {
        "engineName": adapter.engine_name,
        "name": adapter.name,
        "alias": adapter.alias,
        "version": adapter.version,
        "state": state,
        "reason": reason,
        "message": message,
        "seenAt": at.seen_at,
        "loadSentAt": at.load_sent_at,
        "loadedAt": at.loaded_at if state == "Loaded" else "",
    }


def _foreign(name: str) -> Adapter | None:
    """Describe an adapter that the engine has and no file ever named."""
    match = ENGINE_NAME.fullmatch(name)
    if not match or len(match.group(1)) > _ALIAS_CHARACTERS:
        return None
    return Adapter("", match.group(1), 0, name, "", "", 0, "", required=False)
