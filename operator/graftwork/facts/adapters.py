"""LoRAAdapters as the selection sees them, and what it decided of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from graftwork import names
from graftwork.api import LoRAAdapter
from graftwork.facts.canary import Outcome
from graftwork.reasons import Reason


@dataclass(frozen=True)
class Adapter:
    """One LoRAAdapter."""

    name: str
    uid: str
    created: str
    deleting: bool
    labels: Mapping[str, str] = field(hash=False)
    alias: str
    version: int
    lineage: str
    source: str
    digest: str
    fingerprint: str
    rank: int
    base_source: str = ""
    """What it was trained on, in the words of its publisher."""
    compatible: bool = False
    """Whether a deployment takes it although its fingerprint is another one."""

    @property
    def stored(self) -> bool:
        """Whether its files are in the store under a digest; until then nobody can load it."""
        return bool(self.digest)

    @property
    def engine_name(self) -> str:
        """Return the name under which vLLM knows it; empty before its files are in the store."""
        return names.engine_adapter(self.alias, self.digest) if self.digest else ""


def adapter(resource: LoRAAdapter) -> Adapter:
    """Return the facts of a LoRAAdapter; without an owner its lineage is its job's name, or else its own.

    Of one that is imported, the status says what its files are: the import wrote it there, and nothing else ever does.
    """
    metadata, spec = resource.metadata, resource.spec
    files = imported_files(resource) if spec.imported else _published_files(resource)
    return Adapter(
        name=metadata.name,
        uid=metadata.uid,
        created=metadata.creation_timestamp,
        deleting=metadata.deleting,
        labels=metadata.labels,
        alias=spec.alias,
        version=spec.version,
        lineage=spec.owner or spec.lineage.job or metadata.name,
        source=files.source,
        digest=files.digest,
        fingerprint=files.fingerprint,
        rank=files.rank,
        base_source=files.base_source,
    )


@dataclass(frozen=True)
class Files:
    """Where an adapter's files lie in the store, and what they are. Everything is empty while they are not there."""

    source: str = ""
    digest: str = ""
    rank: int = 0
    fingerprint: str = ""
    base_source: str = ""


def _published_files(resource: LoRAAdapter) -> Files:
    spec = resource.spec
    return Files(spec.source, spec.digest, spec.rank or 0, spec.base_model.fingerprint, spec.base_model.source)


def imported_files(resource: LoRAAdapter) -> Files:
    """Return what the status of an imported adapter has pinned; nothing if it is incomplete or not what the spec asks for."""
    spec, status = resource.spec, resource.status
    digest, source, rank = str(status.get("digest") or ""), str(status.get("source") or ""), status.get("rank")
    usable = re.fullmatch(names.DIGEST_PATTERN, digest) and source.startswith(names.STORE_SCHEME) and isinstance(rank, int)
    if not usable or (spec.digest and spec.digest != digest):
        return Files()
    base = status.get("baseModel") or {}
    fingerprint = spec.base_model.fingerprint or str(base.get("fingerprint") or "")
    return Files(source, digest, int(rank or 0), fingerprint, spec.base_model.source or str(base.get("source") or ""))


@dataclass(frozen=True)
class Decision:
    """What a deployment does with one adapter. `offered` adapters are in adapters.json; the others have a reason why not."""

    adapter: Adapter
    offered: bool
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True)
class AliasPlan:
    """One alias and the adapters that may answer for it, the wanted one first."""

    alias: str
    prefer: tuple[Adapter, ...]
    candidate: Adapter | None = None
    """A newer one that gets `weight` percent of the requests, and is in none of `prefer`."""
    weight: int = 0
    required: str = ""
    """Engine name of the one of `prefer` that starting pods wait for; empty: none."""

    @property
    def wanted(self) -> Adapter:
        """The adapter that is to be served."""
        return self.prefer[0]


@dataclass(frozen=True)
class Selection:
    """What one deployment serves: decisions by LoRAAdapter name (of those that its selector takes), and the plan of each alias."""

    decisions: Mapping[str, Decision]
    aliases: tuple[AliasPlan, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    """By alias: what is odd about its settings, such as a pin to nothing."""
    canaries: Mapping[str, Outcome] = field(default_factory=dict)
    """By alias: what the pass of the deployment decided of its candidate."""

    @property
    def offered(self) -> tuple[Adapter, ...]:
        """Return every adapter that agents are to load, once."""
        return tuple(adapter for alias in self.aliases for adapter in (*alias.prefer, *([alias.candidate] if alias.candidate else [])))


NOTHING = Selection({}, ())
