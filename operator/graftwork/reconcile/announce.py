"""Events: one for each transition that a person would want to read about, told apart by the conditions before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.reasons import Reason
from graftwork.reconcile.context import Context, Object
from graftwork.status import access

_TOLD = ("Ready", "Stalled", "ModelCached", "AdaptersLoaded", "AccessReady")
_WARNINGS = (Reason.ADAPTER_FAILED, Reason.OVER_CAPACITY, Reason.RECONCILE_FAILED, Reason.SOURCE_UNREACHABLE, Reason.INSPECT_FAILED, *access.WARNINGS)
_AT_FIRST = (Reason.PODS_STARTING, Reason.NO_ADAPTERS)
"""How every new LLMDeployment begins: that is no news, and an Event is a write."""


def announce(ctx: Context, obj: Object, status: Mapping[str, Any]) -> None:
    """Record an Event for each condition of note whose status or reason changed."""
    before = {item["type"]: item for item in (obj.get("status") or {}).get("conditions") or []}
    for condition in status.get("conditions") or []:
        old = before.get(condition["type"], {})
        if condition["type"] not in _TOLD or _same(old, condition) or (not old and condition["reason"] in _AT_FIRST):
            continue
        stalled = condition["type"] == "Stalled"
        if stalled and condition["status"] != "True":
            continue
        if condition["type"] in ("Ready", "ModelCached") and _stalled(status):
            continue  # Stalled says the same, as a warning
        warning = stalled or condition["reason"] in _WARNINGS
        ctx.events.record(obj, condition["reason"], condition["message"] or condition["reason"], warning=warning)


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return bool(old.get("status") == new["status"] and old.get("reason") == new["reason"])


def _stalled(status: Mapping[str, Any]) -> bool:
    return any(item["type"] == "Stalled" and item["status"] == "True" for item in status["conditions"])
