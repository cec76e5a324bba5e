"""What the guard reads from the environment (docs/design/contracts.md, section 2)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Below vLLM's own logger, which has the handlers and the format that the user chose.
LOG = logging.getLogger("vllm.graftwork_guard")

DRAIN_SECONDS = 5.0
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and places. A wrong number never ends the engine, which took minutes to load: it is logged, and the default holds."""

    run_dir: Path
    served_name: str = ""
    drain_seconds: float = DRAIN_SECONDS
    max_body_bytes: int = MAX_BODY_BYTES
    max_header_bytes: int = MAX_HEADER_BYTES
    keys_required: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of this container."""
        return cls(
            run_dir=Path(env.get("GRAFTWORK_RUN_DIR") or "/graftwork/run"),
            served_name=env.get("GRAFTWORK_SERVED_NAME", ""),
            drain_seconds=_number(env, "GRAFTWORK_DRAIN_SECONDS", DRAIN_SECONDS),
            max_body_bytes=int(_number(env, "GRAFTWORK_MAX_BODY_BYTES", MAX_BODY_BYTES)),
            keys_required=_keys_required(env.get("GRAFTWORK_KEYS", "")),
        )


def _keys_required(text: str) -> bool:
    """Whether clients need a key. Whatever is there means yes: a door that nobody understands stays shut."""
    if text not in ("", "required"):
        LOG.error("GRAFTWORK_KEYS is %r; it must be 'required', or absent. Keys are required.", text)
    return bool(text)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        LOG.error("%s is %r; it must be a number >= 0. %s is used.", name, text, default)
        return default
    return value
