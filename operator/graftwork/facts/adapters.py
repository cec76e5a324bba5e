"""LoRAAdapters as the selection sees them, and what it decided of each."""

from __future__ import annotations

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

    @property
    def engine_name(self) -> str:
        """Return the name under which vLLM knows it."""
        return names.engine_adapter(self.alias, self.digest)


def adapter(resource: LoRAAdapter) -> Adapter:
    """Return the facts of a LoRAAdapter; without an owner its lineage is its job's name, or else its own."""
    metadata, spec = resource.metadata, resource.spec
    return Adapter(
        name=metadata.name,
        uid=metadata.uid,
        created=metadata.creation_timestamp,
        deleting=metadata.deleting,
        labels=metadata.labels,
        alias=spec.alias,
        version=spec.version,
        lineage=spec.owner or spec.lineage.job or metadata.name,
        source=spec.source,
        digest=spec.digest,
        fingerprint=spec.base_model.fingerprint,
        rank=spec.rank,
    )


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
