"""Frozen pod templates: one ControllerRevision per text of the serving-relevant spec.

A template is rendered once, when the spec first says something new. From then on the stored one is used, so that a new version of
Graftwork, or other images in its configuration, roll no pod by themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.cache import Cache
from graftwork.api.rollout import Rollout
from graftwork.facts.inspected import Resolved
from graftwork.plan import capacity
from graftwork.plan.pods import Manifest

KEPT = 10
_NOT_IN_PODS = frozenset({"replicas", "access"})
_PLAIN = {"maxRank": capacity.LEAST_RANK}
"""Written out or found by `auto`, these are what a template without a word about them has."""


@dataclass(frozen=True)
class Revision:
    """One rendered template. `outdated` names the ControllerRevisions that nobody needs any more."""

    number: int
    template_hash: str
    template: Manifest
    manifest: Manifest
    outdated: tuple[str, ...]


def template_hash(deployment: LLMDeployment, pin: str = "") -> str:
    """Return the hash of what the user wrote and pods are made from; fields at their defaults do not count, so a new field changes nothing.

    `pin` is the revision that the model's source is frozen to; a source that is not looked up has none. It counts instead of the revision's name, so
    that two names of one commit are one template.
    """
    spec = deployment.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    adapters = spec.pop("adapters", {})
    for name in ("compatibleBases", "revision"):
        spec.get("model", {}).pop(name, None)
    for part, not_in_pods in (("rollout", Rollout.NOT_IN_PODS), ("cache", Cache.NOT_IN_PODS)):
        for name in not_in_pods:
            spec.get(part, {}).pop(name, None)
    relevant = {key: value for key, value in spec.items() if key not in _NOT_IN_PODS}
    relevant["adapters"] = {key: adapters[key] for key in ("maxLoaded", "maxRank") if adapters.get(key) not in (None, _PLAIN.get(key))}
    relevant["name"] = deployment.metadata.name
    relevant |= {"pin": pin} if pin else {}
    text = json.dumps(_without_empty(relevant), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        cleaned = {key: _without_empty(child) for key, child in value.items()}
        return {key: child for key, child in cleaned.items() if child not in ({}, [])}
    return value


def revision(
    deployment: LLMDeployment,
    existing: Iterable[Manifest],
    render: Callable[[str], Manifest],
    images: Mapping[str, str],
    *,
    kept: Collection[str] = (),
    resolved: Resolved | None = None,
) -> Revision:
    """Return the revision of the present spec: the stored one of its hash, or a new one from `render(hash)`.

    Beside it the newest ones are kept, and those of the hashes in `kept`, however old: what pods are made from, and what may be rolled back to.
    """
    wanted = template_hash(deployment, resolved.revision if resolved else "")
    stored = sorted(existing, key=lambda item: (item.get("revision", 0), item["metadata"]["name"]))
    current = next((item for item in stored if stored_hash(item) == wanted), None)
    if current is None:
        number = max((item.get("revision", 0) for item in stored), default=0) + 1
        current = _manifest(deployment, wanted, render(wanted), images, number)
        current["data"] |= {"model": resolved.to_object()} if resolved else {}
        others = stored
    else:
        others = [item for item in stored if item is not current]
    outdated = others[: max(0, len(others) - (KEPT - 1))]
    return _revision(current, tuple(item["metadata"]["name"] for item in outdated if stored_hash(item) not in kept))


def stored_revision(existing: Iterable[Manifest], template_hash: str) -> Revision | None:
    """Return the stored revision of a hash, if it is still there."""
    found = next((item for item in existing if stored_hash(item) == template_hash), None)
    return _revision(found, ()) if found else None


def numbers(existing: Iterable[Manifest]) -> dict[str, int]:
    """Return the numbers of the stored revisions by their hashes."""
    return {stored_hash(item): int(item.get("revision", 0)) for item in existing}


def _revision(stored: Manifest, outdated: tuple[str, ...]) -> Revision:
    return Revision(stored["revision"], stored_hash(stored), stored["data"]["template"], _manifest_again(stored), outdated)


def stored_hash(manifest: Manifest) -> str:
    """Return what a ControllerRevision was rendered from."""
    return str((manifest["metadata"].get("annotations") or {}).get(names.ANNOTATION_TEMPLATE_HASH, ""))


def _manifest(deployment: LLMDeployment, wanted: str, template: Manifest, images: Mapping[str, str], number: int) -> Manifest:
    name = deployment.metadata.name
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": names.revision(name, wanted),
            "labels": {names.LABEL_DEPLOYMENT: name},
            "annotations": {names.ANNOTATION_TEMPLATE_HASH: wanted},
        },
        "revision": number,
        "data": {"template": template, "images": dict(images)},
    }


def _manifest_again(stored: Manifest) -> Manifest:
    """Return what is to be applied of a stored revision: itself, without what the API server added."""
    metadata = stored["metadata"]
    kept = {key: metadata[key] for key in ("name", "labels", "annotations") if key in metadata}
    return {**{key: stored[key] for key in ("apiVersion", "kind", "revision", "data") if key in stored}, "metadata": kept}
