"""`import`: verifies what the download container left and publishes it (contracts, section 7a)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_store import results
from graftwork_store.clock import now
from graftwork_store.errors import SourceInvalid, StoreError
from graftwork_store.manifest import source_for
from graftwork_store.store import Published, Store

from graftwork_agent.adapter_config import LoraConfig
from graftwork_agent.refusal import Refusal
from graftwork_agent.verify import verify_alone

API_VERSION = "graftwork.dev/import/v1"
_EMPTY_DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Instructions:
    """What the operator asks for: whose adapter it is, where it came from, and its digest if one is prescribed."""

    namespace: str
    name: str
    uid: str
    alias: str
    source: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Instructions:
        """Read GRAFTWORK_IMPORT; raises Refusal (InvalidSpec)."""
        try:
            raw = json.loads(text)
            if raw["apiVersion"] != API_VERSION:
                raise ValueError(f"apiVersion {raw['apiVersion']!r} is not {API_VERSION!r}")
            adapter = raw["adapter"]
            values = [adapter["namespace"], adapter["name"], adapter["uid"], adapter["alias"], raw["source"], raw["digest"]]
            if not all(isinstance(value, str) for value in values):
                raise TypeError("namespace, name, uid, alias, source and digest must be strings")
            found = cls(*values)
            source_for(found.namespace, found.alias, found.digest or _EMPTY_DIGEST)
        except (ValueError, KeyError, TypeError, SourceInvalid) as error:
            raise Refusal("InvalidSpec", f"GRAFTWORK_IMPORT: {type(error).__name__}: {error}; see docs/design/schemas/import.schema.json") from None
        return found


def run(env: Mapping[str, str] | None = None) -> int:
    """Import and return the exit code; the termination message tells the same in full."""
    env = os.environ if env is None else env
    try:
        result = _import(env)
    except (Refusal, StoreError) as error:
        result = _failed(error.reason, error.message)
    except OSError as error:
        result = _failed(
            "SourceUnreachable", f"{error.filename or 'scratch'}: {error.strerror or error}; what the download left cannot be read, it is tried again"
        )
    print(f"{result['reason']}: {result['message'] or json.dumps(result.get('adapter'))}", flush=True)
    results.write(result)
    return results.exit_code(result)


def _import(env: Mapping[str, str]) -> dict[str, Any]:
    scratch = Path(env.get("GRAFTWORK_SCRATCH") or "/scratch")
    wanted = Instructions.parse(env.get("GRAFTWORK_IMPORT", ""))
    resolved = _resolved(scratch / "source.json", wanted)
    config = verify_alone(scratch / "adapter", wanted.digest)
    store = Store.from_env(env)
    published = store.publish(scratch / "adapter", wanted.namespace, wanted.alias, _fields(wanted, resolved, config))
    return _succeeded(published, store.read_manifest(published.source).base_fingerprint, config, resolved)


def _resolved(path: Path, wanted: Instructions) -> dict[str, str]:
    """Return what the download wrote about the source; without it, what was asked for."""
    try:
        raw = json.loads(path.read_bytes())
        return {"source": str(raw["source"]), "revision": str(raw["revision"])}
    except FileNotFoundError:
        return {"source": wanted.source, "revision": ""}
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal("SourceInvalid", f"{path}: {type(error).__name__}: {error}; it must be what `download --facts` writes") from None


def _fields(wanted: Instructions, resolved: Mapping[str, str], config: LoraConfig) -> dict[str, Any]:
    return {
        "rank": config.max_rank,
        "targetModules": list(config.target_modules),
        "base": {"source": config.base, "fingerprint": ""},  # which weights it was trained on, nobody can tell from its files
        "lineage": {"namespace": wanted.namespace, "adapter": wanted.name, "uid": wanted.uid, **resolved},
    }


def _succeeded(published: Published, fingerprint: str, config: LoraConfig, resolved: Mapping[str, str]) -> dict[str, Any]:
    """Return the result. An adapter that a run had published before keeps the fingerprint of its manifest."""
    base = {"source": config.base, "fingerprint": fingerprint}
    if config.base_revision:
        base["revision"] = config.base_revision
    return results.build(
        "Succeeded",
        "Imported",
        api_version=results.IMPORT_API_VERSION,
        adapter={"source": published.source, "digest": published.digest, "rank": config.max_rank, "sizeBytes": published.size_bytes},
        resolved=dict(resolved),
        base=base,
        importedAt=now(),
    )


def _failed(reason: str, message: str) -> dict[str, Any]:
    return results.build("Failed", reason, message, api_version=results.IMPORT_API_VERSION, adapter=None)
