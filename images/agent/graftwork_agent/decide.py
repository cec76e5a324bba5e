"""What to do next, as a function of what is known; no I/O, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from graftwork_agent.desired import Adapter, Desired

ROUTING_API_VERSION = "graftwork.dev/routing/v1"
LOADING_RETRY_SECONDS = 2
FAILED_RETRY_SECONDS = 10
REFUSED_RETRY_SECONDS = 60

Key = tuple[str, ...]


class FileState(StrEnum):
    """How far one adapter's files are."""

    WORKING = "working"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass
class Files:
    """What is known of one adapter's files. `key` is everything that the verdict depends on: with another key it is void."""

    state: FileState
    key: Key
    reason: str = ""
    message: str = ""
    attempts: int = 0
    retry_at: float = 0.0


@dataclass
class LoadTrouble:
    """Why the engine does not have an adapter that was sent to it."""

    reason: str
    message: str
    refused: bool = False
    attempts: int = 0
    retry_at: float = 0.0


@dataclass
class Engine:
    """One engine process as it was seen last; `listed` is None until /v1/models was read, `routing` until the guard took one."""

    instance: str
    first_seen: float
    draining: bool = False
    ready: bool = False
    listed: frozenset[str] | None = None
    inflight: Mapping[str, int] = field(default_factory=dict)
    routing: Mapping[str, Any] | None = None
    troubles: dict[str, LoadTrouble] = field(default_factory=dict)


@dataclass
class Snapshot:
    """Everything a decision depends on. Times are monotonic seconds; `on_disk` are names of folders below the adapters' folder."""

    now: float
    desired: Desired | None
    base_fingerprint: str
    files: Mapping[str, Files]
    on_disk: frozenset[str]
    engine: Engine | None
    loading: str = ""
    unloading: str = ""
    routing_busy: bool = False
    deleting: frozenset[str] = frozenset()
    keys_missing: bool = False  # the guard asks clients for keys and does not have them: ready, it would refuse everybody


@dataclass(frozen=True)
class Fetch:
    """Download (when it is not here) and verify."""

    adapter: Adapter
    key: Key


@dataclass(frozen=True)
class Load:
    """Send one verified adapter to the engine."""

    adapter: Adapter


@dataclass(frozen=True)
class Unload:
    """Take one adapter that nobody is routed to out of the engine."""

    name: str


@dataclass(frozen=True)
class Delete:
    """Remove the files of an adapter that the engine does not have."""

    name: str


@dataclass(frozen=True)
class Route:
    """Give the guard its whole map."""

    body: dict[str, Any]


Action = Fetch | Load | Unload | Delete | Route


@dataclass(frozen=True)
class Decision:
    """What to do now, and when (monotonic) to decide again though nothing has happened."""

    actions: tuple[Action, ...]
    wake_at: float


def key_of(adapter: Adapter, desired: Desired, base_fingerprint: str) -> Key:
    """Return what a verdict about an adapter's files depends on."""
    return (adapter.digest, adapter.source, adapter.base_fingerprint, str(adapter.compatible), str(desired.max_rank), base_fingerprint)


def decide(snapshot: Snapshot) -> Decision:
    """Return the actions that bring the engine closer to what is desired. The same snapshot gives the same actions."""
    desired = snapshot.desired
    if desired is None:
        return Decision((), math.inf)
    wakes: list[float] = []
    actions: list[Action] = list(_fetches(snapshot, desired, wakes))
    engine = snapshot.engine
    if engine is not None and engine.listed is not None and not engine.draining:
        body = routing(snapshot, desired, engine, engine.listed)
        if not body["ready"]:
            wakes.append(engine.first_seen + desired.required_deadline_seconds)
        if body != engine.routing and not snapshot.routing_busy:
            actions.append(Route(body))
        if not snapshot.loading and not snapshot.unloading:
            actions += _engine_change(snapshot, desired, engine, engine.listed, wakes)
        actions += _deletes(snapshot, desired, engine, engine.listed)
    return Decision(tuple(actions), min((wake for wake in wakes if wake > snapshot.now), default=math.inf))


def is_refused(snapshot: Snapshot, desired: Desired, adapter: Adapter) -> bool:
    """Whether an adapter was refused for good, by its files or by this engine."""
    files = current_files(snapshot, desired, adapter)
    trouble = snapshot.engine.troubles.get(adapter.engine_name) if snapshot.engine else None
    return bool((files and files.state is FileState.REFUSED) or (trouble and trouble.refused))


def current_files(snapshot: Snapshot, desired: Desired, adapter: Adapter) -> Files | None:
    """Return what is known of an adapter's files unless it was found under other circumstances."""
    files = snapshot.files.get(adapter.engine_name)
    if files is None or files.key != key_of(adapter, desired, snapshot.base_fingerprint):
        return None
    return files


def routing(snapshot: Snapshot, desired: Desired, engine: Engine, listed: frozenset[str]) -> dict[str, Any]:
    """Return the guard's map: each alias to the first preferred adapter that the engine lists, the others with the reason why not.

    A candidate is in it only while the engine lists it; until then, and when it was refused, its share goes where the rest goes.
    """
    by_name = desired.by_name()
    usable = {name for name in by_name if name in listed and name != snapshot.unloading and not is_refused(snapshot, desired, by_name[name])}
    aliases: dict[str, str] = {}
    unavailable: dict[str, dict[str, Any]] = {}
    for alias, prefer in sorted(desired.aliases.items()):
        name = next((name for name in prefer if name in usable), None)
        if name is not None:
            aliases[alias] = name
        else:
            reason, seconds = _why_not(snapshot, desired, [by_name[name] for name in prefer if name in by_name])
            unavailable[alias] = {"reason": reason, "retryAfterSeconds": seconds}
    tried = {alias: item for alias, item in sorted(desired.candidates.items()) if item.engine_name in usable}
    named = {*aliases.values(), *(item.engine_name for item in tried.values())}
    settled = all(not adapter.required or adapter.engine_name in usable or is_refused(snapshot, desired, adapter) for adapter in desired.adapters)
    overdue = snapshot.now >= engine.first_seen + desired.required_deadline_seconds
    return {
        "apiVersion": ROUTING_API_VERSION,
        "instance": engine.instance,
        "replicas": desired.replicas,
        "base": desired.served_name,
        "aliases": aliases,
        "candidates": {alias: {"engine": item.engine_name, "weight": item.weight} for alias, item in tried.items()},
        "versions": {name: by_name[name].version for name in sorted(named)},
        "unavailable": unavailable,
        "ready": engine.ready or ((settled or overdue) and not snapshot.keys_missing),
    }


def routed_names(routing: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the engine adapters that a map sends requests to, candidates among them; of no map, none."""
    if routing is None:
        return frozenset()
    return frozenset(routing["aliases"].values()) | {item["engine"] for item in routing.get("candidates", {}).values()}


def _why_not(snapshot: Snapshot, desired: Desired, adapters: list[Adapter]) -> tuple[str, int]:
    verdict = ("AdapterLoading", LOADING_RETRY_SECONDS)
    for adapter in adapters:
        files = current_files(snapshot, desired, adapter)
        trouble = snapshot.engine.troubles.get(adapter.engine_name) if snapshot.engine else None
        if files and files.state is FileState.REFUSED:
            verdict = (files.reason, REFUSED_RETRY_SECONDS)
        elif trouble:
            verdict = (trouble.reason, REFUSED_RETRY_SECONDS if trouble.refused else FAILED_RETRY_SECONDS)
        elif files and files.attempts and files.state in (FileState.FAILED, FileState.WORKING):
            verdict = (files.reason or "AdapterLoading", FAILED_RETRY_SECONDS)
        else:
            return "AdapterLoading", LOADING_RETRY_SECONDS
    return verdict


def _fetches(snapshot: Snapshot, desired: Desired, wakes: list[float]) -> list[Fetch]:
    if not snapshot.base_fingerprint:
        return []
    found = []
    for adapter in sorted(desired.adapters, key=lambda item: not item.required):
        known = snapshot.files.get(adapter.engine_name)
        files = current_files(snapshot, desired, adapter)
        trouble = snapshot.engine.troubles.get(adapter.engine_name) if snapshot.engine else None
        if trouble and trouble.refused:
            continue  # another engine process may take it; this one needs no files of it
        if (known and known.state is FileState.WORKING) or adapter.engine_name in snapshot.deleting:
            continue
        if files is not None and files.state is FileState.FAILED and files.retry_at > snapshot.now:
            wakes.append(files.retry_at)
        elif files is None or files.state is FileState.FAILED:
            found.append(Fetch(adapter, key_of(adapter, desired, snapshot.base_fingerprint)))
    return found


def _engine_change(snapshot: Snapshot, desired: Desired, engine: Engine, listed: frozenset[str], wakes: list[float]) -> list[Action]:
    candidates = []
    for index, adapter in enumerate(desired.adapters):
        if adapter.engine_name in snapshot.deleting:
            continue  # what was verified is going away; loaded now, the engine would have an adapter without files
        files = current_files(snapshot, desired, adapter)
        trouble = engine.troubles.get(adapter.engine_name)
        if adapter.engine_name in listed or files is None or files.state is not FileState.VERIFIED or (trouble and trouble.refused):
            continue
        if trouble and trouble.retry_at > snapshot.now:
            wakes.append(trouble.retry_at)
            continue
        candidates.append((trouble.attempts if trouble else 0, not adapter.required, index, adapter))
    if candidates:  # those that failed before come last, so that a bad one cannot hold up a good one
        return [Load(min(candidates, key=lambda item: item[:3])[3])]
    wanted = {adapter.engine_name for adapter in desired.adapters if not is_refused(snapshot, desired, adapter)}
    routed = routed_names(engine.routing)
    for name in sorted(listed - wanted):
        if engine.routing is None or name in routed or snapshot.routing_busy or engine.inflight.get(name, 0):
            continue  # the guard answers its hanging GET when the last request has ended
        trouble = engine.troubles.get(name)
        if trouble and not trouble.refused and trouble.retry_at > snapshot.now:
            wakes.append(trouble.retry_at)
            continue
        return [Unload(name)]
    return []


def _deletes(snapshot: Snapshot, desired: Desired, engine: Engine, listed: frozenset[str]) -> list[Delete]:
    keep = {adapter.engine_name for adapter in desired.adapters if not is_refused(snapshot, desired, adapter)}
    busy = {name for name, files in snapshot.files.items() if files.state is FileState.WORKING}
    held = {name for name, count in engine.inflight.items() if count}
    routed = routed_names(engine.routing)
    blocked = keep | busy | held | routed | listed | snapshot.deleting | {snapshot.loading, snapshot.unloading}
    return [Delete(name) for name in sorted(snapshot.on_disk - blocked)]
