"""The termination message of a trainer, download, import, sweep, inspect or fill container, and its exit code (contracts, sections 7 to 7d)."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

API_VERSION = "graftwork.dev/result/v1"
IMPORT_API_VERSION = "graftwork.dev/import-result/v1"
SWEEP_API_VERSION = "graftwork.dev/sweep-result/v1"
INSPECT_API_VERSION = "graftwork.dev/inspect-result/v1"
FILL_API_VERSION = "graftwork.dev/fill-result/v1"
LIMIT_BYTES = 4096
TERMINATION_LOG = "/dev/termination-log"

EXIT_OK = 0
EXIT_DATA = 64
EXIT_CONFIG = 65
EXIT_OTHER = 70

_DATA_REASONS = frozenset({"DatasetInvalid"})
_CONFIG_REASONS = frozenset(
    {
        "InvalidSpec",
        "SourceInvalid",
        "SourceNotFound",
        "SourceDenied",
        "SourceGated",
        "RevisionNotFound",
        "SourceChanged",
        "CacheFailed",
        "SourceFileTooLarge",
        "UnsupportedFormat",
        "ModelInvalid",
        "StoreNotConfigured",
        "StoreShared",
        "ConfigInvalid",
        "Unsupported",
        "BaseMismatch",
        "FileNotAllowed",
        "DigestMismatch",
        "RankTooHigh",
        "TensorMismatch",
        "NotFinite",
    }
)


def build(outcome: str, reason: str, message: str = "", *, api_version: str = API_VERSION, **fields: Any) -> dict[str, Any]:
    """Return a result; `fields` are what the schema of `api_version` has besides, as far as it is known."""
    return {"apiVersion": api_version, "outcome": outcome, "reason": reason, "message": message, **fields}


def exit_code(result: Mapping[str, Any]) -> int:
    """Return what the container ends with: 64 and 65 are never retried, 70 is."""
    if result["outcome"] in ("Succeeded", "Rejected"):
        return EXIT_OK
    if result["reason"] in _DATA_REASONS:
        return EXIT_DATA
    return EXIT_CONFIG if result["reason"] in _CONFIG_REASONS else EXIT_OTHER


def encode(result: Mapping[str, Any], limit: int = LIMIT_BYTES) -> bytes:
    """Return the result as JSON of at most `limit` bytes; the texts are shortened (warnings first, then the message), numbers never."""
    shortened = copy.deepcopy(dict(result))
    dataset = shortened.get("dataset")
    warnings = dataset.get("warnings") if isinstance(dataset, dict) else None
    while len(data := _dump(shortened)) > limit and warnings:
        if len(warnings) > 1:
            warnings.pop()
        elif len(warnings[0]) > 80:
            warnings[0] = _cut(warnings[0], 80)
        else:
            warnings.clear()
    while len(data := _dump(shortened)) > limit and shortened["message"]:
        over = len(data) - limit
        keep = max(0, len(shortened["message"]) - max(1, over // 6))
        shortened["message"] = _cut(shortened["message"], keep)
    return data


def write(result: Mapping[str, Any], path: str | Path | None = None) -> None:
    """Write the termination message; a path that cannot be written is reported on stderr and is no error of the run."""
    target = Path(path or os.environ.get("GRAFTWORK_TERMINATION_LOG") or TERMINATION_LOG)
    try:
        target.write_bytes(encode(result))
    except OSError as error:
        print(f"cannot write {target}: {error}", file=sys.stderr)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _cut(text: str, length: int) -> str:
    return f"{text[: length - 1].rstrip('…')}…" if length > 1 else ""
