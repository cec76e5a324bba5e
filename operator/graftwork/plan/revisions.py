"""Frozen pod templates: one ControllerRevision per text of the serving-relevant spec.

A template is rendered once, when the spec first says something new. From then on the stored one is used, so that a new version of
Graftwork, or other images in its configuration, roll no pod by themselves. Where `rollout.upgradePolicy` is Rolling they do: what they render
otherwise is a revision more of the same spec, with a hash of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import __version__, names
from graftwork.api import LLMDeployment
from graftwork.api.cache import Cache
from graftwork.api.rollout import Rollout
from graftwork.facts.inspected import Resolved
from graftwork.plan import capacity
from graftwork.plan.mode import ADAPTERS_ON, Mode
from graftwork.plan.pods import Manifest

KEPT = 10
_NOT_IN_PODS = frozenset({"replicas", "access", "serviceAccountName"})
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


def template_hash(deployment: LLMDeployment, pin: str = "", mode: Mode = ADAPTERS_ON) -> str:
    """Return the hash of what the user wrote and pods are made from; fields at their defaults do not count, so a new field changes nothing.

    `pin` is the revision that the model's source is frozen to; a source that is not looked up has none. It counts instead of the revision's name, so
    that two names of one commit are one template. `mode` counts where it is not the usual one; adapters that are off have no limits.
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
    if mode.without_lora:
        relevant.pop("adapters")
    relevant["name"] = deployment.metadata.name
    relevant |= {"pin": pin} if pin else {}
    relevant |= {"mode": mode.hashed} if mode.hashed else {}
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
    applied: str = "",
    mode: Mode = ADAPTERS_ON,
) -> Revision:
    """Return the revision of the present spec: a stored one that was rendered from it, or a new one from `render(hash)`.

    `applied` is the hash of what the Deployment has: of several that were rendered from one spec, it stays. Beside the revision the newest ones
    are kept, and those of the hashes in `kept`, however old: what pods are made from, and what may be rolled back to.
    """
    spec_hash = template_hash(deployment, resolved.revision if resolved else "", mode)
    stored = sorted(existing, key=lambda item: (item.get("revision", 0), item["metadata"]["name"]))
    family = _family(stored, spec_hash)
    current = _presently_rendered(family, render(spec_hash), images) if _rolls(deployment) and family else _chosen(family, applied)
    if current is None:
        wanted = _hash_again(spec_hash, render(spec_hash)) if family else spec_hash
        number = max((item.get("revision", 0) for item in stored), default=0) + 1
        current = _manifest(deployment, wanted, render(wanted), images, number)
        if wanted != spec_hash:
            current["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] = spec_hash
        current["data"] |= {"model": resolved.to_object()} if resolved else {}
        others = stored
    else:
        others = [item for item in stored if item is not current]
    outdated = others[: max(0, len(others) - (KEPT - 1))]
    return _revision(current, tuple(item["metadata"]["name"] for item in outdated if stored_hash(item) not in kept))


def stored_template(existing: Iterable[Manifest], deployment: LLMDeployment, resolved: Resolved | None, mode: Mode, applied: str) -> Manifest | None:
    """Return the template that was made of the present spec, if one was; of several the one that the Deployment has, by its hash `applied`."""
    stored = sorted(existing, key=lambda item: (item.get("revision", 0), item["metadata"]["name"]))
    found = _chosen(_family(stored, template_hash(deployment, resolved.revision if resolved else "", mode)), applied)
    return found["data"]["template"] if found else None


def _family(stored: Sequence[Manifest], spec_hash: str) -> list[Manifest]:
    return [item for item in stored if spec_hash in (stored_hash(item), _spec_hash(item))]


def _rolls(deployment: LLMDeployment) -> bool:
    return deployment.spec.rollout.upgrade_policy == "Rolling"


def _chosen(family: Sequence[Manifest], applied: str) -> Manifest | None:
    """Return which of several renderings of one spec goes on when no upgrade is to replace pods: the one that they have, else the newest."""
    return next((item for item in family if stored_hash(item) == applied), family[-1] if family else None)


def _presently_rendered(family: Sequence[Manifest], rendered: Manifest, images: Mapping[str, str]) -> Manifest | None:
    """Return the newest rendering that this version with these images made, or would make; None: it would make another one.

    What this version has made once stays, though it would make it otherwise now: facts of a model that are known later are no upgrade.
    """
    own = {"version": __version__, "images": dict(images)}
    made = [item for item in family if {key: item["data"].get(key) for key in own} == own]
    alike = [item for item in family if _content(item["data"]["template"]) == _content(rendered)]
    return next(reversed([*alike, *made]), None)


def _hash_again(spec_hash: str, rendered: Manifest) -> str:
    return hashlib.sha256(f"{spec_hash}\n{_content(rendered)}".encode()).hexdigest()[:16]


def _content(template: Manifest) -> str:
    """Return a template as text, without the hash that it carries of itself."""
    metadata = template.get("metadata") or {}
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != names.ANNOTATION_TEMPLATE_HASH}
    return json.dumps({**template, "metadata": {**metadata, "annotations": annotations}}, sort_keys=True, separators=(",", ":"))


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


def _spec_hash(manifest: Manifest) -> str:
    """Return the hash of the spec that a revision was rendered from once more; empty for one whose own hash is that."""
    return str((manifest["metadata"].get("annotations") or {}).get(names.ANNOTATION_SPEC_HASH, ""))


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
        "data": {"template": template, "images": dict(images), "version": __version__},
    }


def _manifest_again(stored: Manifest) -> Manifest:
    """Return what is to be applied of a stored revision: itself, without what the API server added."""
    metadata = stored["metadata"]
    kept = {key: metadata[key] for key in ("name", "labels", "annotations") if key in metadata}
    return {**{key: stored[key] for key in ("apiVersion", "kind", "revision", "data") if key in stored}, "metadata": kept}
