"""Source URIs: `s3://bucket/key`, `hf://owner/repository`, `pvc://claim/path`, `configMap://name/key`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from graftwork.facts.problem import Problem
from graftwork.reasons import Reason

_SHAPES = {
    "s3": "s3://<bucket>/<key>",
    "hf": "hf://<owner>/<repository>",
    "pvc": "pvc://<claim>/<path>",
    "configMap": "configMap://<name>/<key>",
}
_HUB = re.compile(r"hf://([A-Za-z0-9][-A-Za-z0-9_.]*)/([A-Za-z0-9][-A-Za-z0-9_.]*)")
MODEL_KINDS = ("s3", "hf", "pvc")
BASE_KINDS = ("s3", "pvc")
DATASET_KINDS = ("s3", "configMap", "pvc")


@dataclass(frozen=True)
class Source:
    """A parsed source. `name` is the bucket, claim or ConfigMap, or the owner on a hub; `path` the key, path or repository in it."""

    kind: str
    name: str
    path: str
    text: str

    @property
    def downloaded(self) -> bool:
        """Whether an init container has to fetch it (what is mounted needs none)."""
        return self.kind in ("s3", "hf")

    @property
    def resolved(self) -> bool:
        """Whether it has to be looked up to which revision it is frozen, before pods are made."""
        return self.kind in ("hf", "s3")

    @property
    def versioned(self) -> bool:
        """Whether each of its revisions can be had by name; of a bucket there is only what lies there now."""
        return self.kind == "hf"


def parse(field: str, text: str, kinds: tuple[str, ...]) -> Source | Problem:
    """Return the source, or what is wrong with it; `field` names where it stands in the spec."""
    hub = _HUB.fullmatch(text) if "hf" in kinds else None
    if hub:
        return Source("hf", hub[1], hub[2], text)
    found = re.fullmatch(r"(\w+)://([a-z0-9][-a-z0-9.]*[a-z0-9])/(\S+?)/?", text)
    shapes = " or ".join(_SHAPES[kind] for kind in kinds)
    if not found or found[1] not in kinds or any(part in ("", ".", "..") for part in found[3].split("/")):
        return Problem(Reason.SOURCE_INVALID, f"{field} is {text!r}; a source is {shapes}, without empty, . or .. parts")
    if found[1] == "configMap" and "/" in found[3]:
        return Problem(Reason.SOURCE_INVALID, f"{field} is {text!r}; the key of a ConfigMap has no /, write configMap://<name>/<key>")
    return Source(found[1], found[2], found[3], text)


def pinned(source: Source, revision: str) -> Source:
    """Return the source at one revision, as downloads are told; a bucket, whose revisions have no names, as it is."""
    return replace(source, text=f"{source.text}@{revision}") if source.versioned else source
