"""`inspect`: says what a model is without downloading it, as a termination message (contracts, section 7c)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from graftwork_store import results
from graftwork_store.clock import now
from graftwork_store.errors import SourceInvalid, StoreError

from graftwork_agent.model_facts import facts
from graftwork_agent.model_files import ListedModel, ModelSource, listing_digest


def run(source: str, env: Mapping[str, str] | None = None) -> int:
    """Inspect and return the exit code; the termination message tells the same in full."""
    env = os.environ if env is None else env
    try:
        found = open_model(source, env)
        result = _succeeded(found, facts(found))
    except StoreError as error:
        result = results.build("Failed", error.reason, error.message, api_version=results.INSPECT_API_VERSION)
    except OSError as error:
        text = f"{source}: {error.strerror or type(error).__name__}; it is tried again"
        result = results.build("Failed", "SourceUnreachable", text, api_version=results.INSPECT_API_VERSION)
    print(f"{result['reason']}: {result['message'] or results.encode(result).decode()}", flush=True)
    results.write(result)
    return results.exit_code(result)


def open_model(uri: str, env: Mapping[str, str]) -> ModelSource:
    """Return the source, listed; the hub's library is imported only for a source of a hub."""
    match urlsplit(uri).scheme:
        case "s3":
            from graftwork_agent.model_s3 import BucketModel

            return BucketModel(uri, env)
        case "hf":
            from graftwork_agent.model_hub import HubModel

            return HubModel(uri, env)
    raise SourceInvalid(f"source {uri!r}: must be s3://<bucket>/<prefix> or hf://<owner>/<repository>[@<revision>]; pvc:// is mounted")


def _succeeded(source: ListedModel, model: dict[str, Any]) -> dict[str, Any]:
    sizes = [file.size for file in source.files]
    return results.build(
        "Succeeded",
        "ModelResolved",
        api_version=results.INSPECT_API_VERSION,
        resolved={"source": source.uri, "revision": source.revision},
        files={"count": len(sizes), "bytes": sum(sizes), "largestBytes": max(sizes), "digest": f"sha256:{listing_digest(source.files)}"},
        model=model,
        inspectedAt=now(),
    )
