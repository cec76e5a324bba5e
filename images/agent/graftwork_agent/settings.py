"""What the sidecar reads from its environment (contracts, section 2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PORT = 9901


@dataclass(frozen=True)
class Settings:
    """Places and limits; the defaults are those of the pod, tests give others."""

    config_dir: Path = Path("/graftwork/config")
    podinfo_dir: Path = Path("/graftwork/podinfo")
    adapters_dir: Path = Path("/graftwork/adapters")
    run_dir: Path = Path("/graftwork/run")
    keys_dir: Path = Path("/graftwork/keys")
    base_dir: Path = Path("/models/base")
    engine_url: str = "http://127.0.0.1:8000"
    port: int = PORT
    pod: str = ""
    load_seconds: float = 120.0
    connect_seconds: float = 0.25
    check_seconds: float = 1.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of this container; the folders below /graftwork move with GRAFTWORK_ROOT and GRAFTWORK_BASE_DIR, for tests."""
        root = Path(env.get("GRAFTWORK_ROOT") or "/graftwork")
        return cls(
            config_dir=root / "config",
            podinfo_dir=root / "podinfo",
            adapters_dir=root / "adapters",
            run_dir=root / "run",
            keys_dir=root / "keys",
            base_dir=Path(env.get("GRAFTWORK_BASE_DIR") or "/models/base"),
            engine_url=env.get("GRAFTWORK_ENGINE_URL") or "http://127.0.0.1:8000",
            port=int(env.get("GRAFTWORK_AGENT_PORT") or PORT),
            pod=env.get("POD_NAME", ""),
        )
