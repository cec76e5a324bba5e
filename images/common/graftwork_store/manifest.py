"""`manifest.json`: what the store says about one published adapter (contracts, section 8)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork_store.clock import now
from graftwork_store.digest import ALLOWED_FILES, REQUIRED_FILES, FileEntry, digest_of
from graftwork_store.errors import ConfigInvalid, DigestMismatch, FileNotAllowed, SourceInvalid

API_VERSION = "graftwork.dev/manifest/v1"
MANIFEST_FILE = "manifest.json"
MANIFEST_LIMIT_BYTES = 1 << 20

_SOURCE = re.compile(r"store://([a-z0-9][-a-z0-9.]{0,252})/([a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?)/([0-9a-f]{12})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST_OR_NONE = re.compile(r"(sha256:[0-9a-f]{64})?")  # an imported adapter does not know its base's fingerprint
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """The parts of `store://<namespace>/<alias>/<12 hex of the digest>`."""

    namespace: str
    alias: str
    short: str

    @property
    def folder(self) -> str:
        """The adapter's folder below the store's URL, without slashes at the ends."""
        return f"adapters/{self.namespace}/{self.alias}/{self.short}"

    @property
    def uri(self) -> str:
        """The source as it is written."""
        return f"store://{self.namespace}/{self.alias}/{self.short}"


@dataclass(frozen=True)
class Manifest:
    """A manifest that was checked: its files are of the allow-list and give its digest."""

    digest: str
    files: tuple[FileEntry, ...]
    alias: str
    rank: int
    base_source: str
    base_fingerprint: str
    created_at: str
    raw: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(entry.size for entry in self.files)


def parse_source(uri: str) -> Source:
    """Parse a `store://` URI; raises SourceInvalid."""
    match = _SOURCE.fullmatch(uri)
    if not match or "--" in match.group(2) or ".." in match.group(1):
        raise SourceInvalid(f"source {uri!r}: must be store://<namespace>/<alias>/<12 hex of the digest>")
    return Source(*match.groups())


def source_for(namespace: str, alias: str, digest: str) -> Source:
    """Return where an adapter of this digest lies; raises SourceInvalid when a part cannot be in a URI."""
    return parse_source(f"store://{namespace}/{alias}/{digest.removeprefix('sha256:')[:12]}")


def build(alias: str, entries: list[FileEntry], fields: Mapping[str, Any]) -> bytes:
    """Return the manifest's bytes. `fields` has `rank`, `targetModules`, `base` and `lineage`."""
    manifest = {
        "apiVersion": API_VERSION,
        "digest": digest_of(entries),
        "files": [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in entries],
        "alias": alias,
        "rank": fields["rank"],
        "targetModules": sorted(fields["targetModules"]),
        "base": dict(fields["base"]),
        "lineage": dict(fields["lineage"]),
        "createdAt": now(),
    }
    return (json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def parse(data: bytes, source: Source) -> Manifest:
    """Check a manifest that was read from `source`.

    Raises:
        ConfigInvalid: it is not a manifest of this version.
        FileNotAllowed: it names a file outside the allow-list, one twice, or lacks a required one.
        DigestMismatch: its files do not give its digest, or its digest is not the one of its folder.
    """
    where = f"{source.uri}/{MANIFEST_FILE}"
    try:
        raw = json.loads(data)
        if raw["apiVersion"] != API_VERSION:
            raise ConfigInvalid(f"{where}: apiVersion {raw['apiVersion']!r} is not {API_VERSION!r}; this version of Graftwork cannot read it")
        entries = tuple(FileEntry(_text(item["path"]), _size(item["size"]), _match(_HEX, item["sha256"])) for item in raw["files"])
        digest = _match(_DIGEST, raw["digest"])
        manifest = Manifest(
            digest=digest,
            files=entries,
            alias=_text(raw["alias"]),
            rank=_size(raw["rank"]),
            base_source=_text(raw["base"].get("source", "")),
            base_fingerprint=_match(_DIGEST_OR_NONE, raw["base"]["fingerprint"]),
            created_at=_text(raw.get("createdAt", "")),
            raw=raw,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigInvalid(f"{where}: not a manifest ({type(error).__name__}: {error}); publish the adapter again") from None
    _check(manifest, source, where)
    return manifest


def _check(manifest: Manifest, source: Source, where: str) -> None:
    names = [entry.path for entry in manifest.files]
    for name in names:
        if name not in ALLOWED_FILES:
            raise FileNotAllowed(f"{where}: file {name!r} is not one of {', '.join(ALLOWED_FILES)}")
    for name in REQUIRED_FILES:
        if names.count(name) != 1:
            raise FileNotAllowed(f"{where}: lists {name} {names.count(name)} times, must list it once")
    if len(set(names)) != len(names):
        raise FileNotAllowed(f"{where}: lists a file twice")
    digest = digest_of(manifest.files)
    if digest != manifest.digest:
        raise DigestMismatch(f"{where}: its files give digest {digest}, it says {manifest.digest}; publish the adapter again")
    if not digest.startswith(f"sha256:{source.short}"):
        raise DigestMismatch(f"{where}: digest {digest} lies in the folder of {source.short}; publish the adapter again")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _match(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is not {pattern.pattern}")
    return str(value)
