"""`sweep`: removes from the store what the operator's list does not name (contracts, section 7b)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_store import results
from graftwork_store.errors import StoreError
from graftwork_store.store import Store

from graftwork_agent.refusal import Refusal

API_VERSION = "graftwork.dev/sweep/v1"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Instructions:
    """A namespace, whose it is, the digests that are referenced in it, and how long what is not may still lie there."""

    namespace: str
    installation: str
    keep: tuple[str, ...]
    retain_seconds: int

    @classmethod
    def read(cls, path: Path) -> Instructions:
        """Read the instructions; raises Refusal (InvalidSpec). One entry that cannot be understood is reason enough to remove nothing."""
        try:
            raw = json.loads(path.read_bytes())
            if raw["apiVersion"] != API_VERSION:
                raise ValueError(f"apiVersion {raw['apiVersion']!r} is not {API_VERSION!r}")
            namespace, installation, keep, retain = raw["namespace"], raw["installation"], raw["keep"], raw["retainSeconds"]
            if not isinstance(namespace, str) or not isinstance(installation, str) or not isinstance(keep, list):
                raise TypeError("namespace and installation must be strings and keep a list")
            wrong = [digest for digest in keep if not isinstance(digest, str) or not _DIGEST.fullmatch(digest)]
            if wrong:
                raise ValueError(f"keep has {wrong[0]!r}, must be sha256:<64 hex>")
            if not isinstance(retain, int) or isinstance(retain, bool) or retain < 0:
                raise ValueError(f"retainSeconds is {retain!r}, must be a whole number that is not negative")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refusal("InvalidSpec", f"{path}: {type(error).__name__}: {error}; see docs/design/schemas/sweep.schema.json") from None
        return cls(namespace, installation, tuple(keep), retain)


def run(instructions: Path, env: Mapping[str, str] | None = None) -> int:
    """Sweep and return the exit code; the termination message has the numbers.

    The list grows while it runs, so it is read again before each removal.
    """
    env = os.environ if env is None else env
    try:
        wanted = Instructions.read(instructions)
        done = Store.from_env(env).sweep(wanted.namespace, wanted.installation, lambda: Instructions.read(instructions).keep, wanted.retain_seconds)
    except (Refusal, StoreError) as error:
        reason = "InvalidSpec" if error.reason == "SourceInvalid" else error.reason
        result = results.build("Failed", reason, error.message, api_version=results.SWEEP_API_VERSION)
    else:
        counts: dict[str, Any] = {"kept": done.kept, "waiting": done.waiting, "removed": done.removed, "removedBytes": done.removed_bytes}
        result = results.build("Succeeded", "Swept", api_version=results.SWEEP_API_VERSION, **counts)
    print(json.dumps(result), flush=True)
    results.write(result)
    return results.exit_code(result)
