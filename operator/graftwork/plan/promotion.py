"""Which version of an alias is stable and which one is its candidate, by the alias' promotion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graftwork.facts.adapters import Adapter
from graftwork.facts.canary import Settings, Standing

AUTO, MANUAL, CANARY = "Auto", "Manual", "Canary"


@dataclass(frozen=True)
class Promotion:
    """How newer versions of one alias take over."""

    mode: str = AUTO
    canary: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Past:
    """What is known of the alias from before."""

    served: str = ""
    """LoRAAdapter that was stable, by the status."""
    prefer: tuple[str, ...] = ()
    """Engine names that the pods were told to prefer, by the ConfigMap: what the status says if it is lost."""
    standing: Standing = field(default_factory=Standing)


@dataclass(frozen=True)
class Choice:
    """The stable version, the candidate and the versions to keep beside them, best first. `note` says what is odd about a pin."""

    wanted: Adapter
    candidate: Adapter | None
    previous: tuple[Adapter, ...]
    note: str = ""


def choose(newest_first: Sequence[Adapter], promotion: Promotion, pin: str, past: Past) -> Choice | None:
    """Decide of one alias; None if only versions are left that must not serve.

    Auto wants the newest. Manual and Canary stay at what served; of what is newer, the newest is the candidate, unless its canary failed
    and nothing newer has come since. A pin wins over all of it, and ends a canary.
    """
    named = next((adapter for adapter in newest_first if adapter.name == pin), None) if pin else None
    stable, note = named, ""
    if pin and not named:
        stable = _named(newest_first, past.served)
        note = f"adapters.aliases pins {newest_first[0].alias!r} to LoRAAdapter {pin!r}, which is not there or cannot be served; "
    failed = _named(newest_first, past.standing.failed) if promotion.mode == CANARY and not pin else None
    if stable is None:
        stable = newest_first[0] if promotion.mode == AUTO else _served(newest_first, past, failed)
    if stable is None:
        return None
    if note:
        note += f"{stable.name} is served instead: correct the pin, or remove it"
    newer = [adapter for adapter in newest_first if adapter.version > stable.version]
    candidate = None
    if promotion.mode == MANUAL or (promotion.mode == CANARY and not pin):
        candidate = next((adapter for adapter in newer if failed is None or adapter.version > failed.version), failed if failed in newer else None)
    older = [adapter for adapter in newest_first if adapter.version < stable.version]
    if promotion.mode != AUTO:  # what served before is a better way back than a version that never did
        older.sort(key=lambda adapter: adapter.engine_name not in past.prefer)
    return Choice(stable, candidate, tuple(older), note)


def _named(adapters: Iterable[Adapter], name: str) -> Adapter | None:
    return next((adapter for adapter in adapters if name and adapter.name == name), None)


def _served(newest_first: Sequence[Adapter], past: Past, failed: Adapter | None) -> Adapter | None:
    """Return what serves: by the status, else by what pods were told; of an alias that is new, the newest."""
    by_engine = {adapter.engine_name: adapter for adapter in newest_first}
    told = next((by_engine[name] for name in past.prefer if name in by_engine), None)
    return _named(newest_first, past.served) or told or next((adapter for adapter in newest_first if adapter is not failed), None)
