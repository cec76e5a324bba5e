"""The sweep of one namespace: what nobody references is marked, and removed when its mark is old enough (contracts, section 7b).

A folder is named by the first 12 hex digits of its digest, so what is kept is known without reading a manifest. Each step leaves the store in a
state from which a later sweep goes on: removal begins with the manifest, by which the folder stops to exist for every reader.

What is referenced is known to one installation only. So each leaves its name in the store before it sweeps, and where another's name lies, nothing
is removed: not by the one, not by the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import obstore

from graftwork_store.clients import ObjectStore
from graftwork_store.errors import SourceInvalid, StoreShared, translated
from graftwork_store.manifest import MANIFEST_FILE

MARK_FILE = "unreferenced.json"
MARK_LIMIT_BYTES = 4096
INSTALLATIONS = "installations"
UNFINISHED_SECONDS = 3600
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_INSTALLATION = re.compile(r"[a-z0-9][-a-z0-9.]{0,249}")
_FOLDER = re.compile(r"adapters/[^/]+/[^/]+/([0-9a-f]{12})")


@dataclass(frozen=True)
class Folder:
    """One adapter's folder as it was listed: sizes in bytes by file name, the newest object's time, and since when it is marked."""

    path: str
    files: dict[str, int]
    newest: datetime
    marked: bool = False
    since: datetime | None = None

    @property
    def size_bytes(self) -> int:
        """The size of everything in it."""
        return sum(self.files.values())


@dataclass
class Swept:
    """What a sweep did: folders that are referenced, that wait for their time, that were removed, and the bytes of those."""

    kept: int = 0
    waiting: int = 0
    removed: int = 0
    removed_bytes: int = 0


class Step(Enum):
    """What is to be done with one folder."""

    KEEP = "keep"
    UNMARK = "unmark"
    MARK = "mark"
    WAIT = "wait"
    REMOVE = "remove"


def decide(folder: Folder, keep: frozenset[str], retain: timedelta, now: datetime) -> Step:
    """Return the one step for a folder. `keep` has the first 12 hex digits of every digest that is referenced."""
    if folder.path.rpartition("/")[2] in keep:
        return Step.UNMARK if folder.marked else Step.KEEP
    if MANIFEST_FILE not in folder.files:
        # A publish that is under way, one that was cut off, or a removal that was: nobody can reference it, so it needs no mark.
        return Step.REMOVE if now - folder.newest > max(retain, timedelta(seconds=UNFINISHED_SECONDS)) else Step.WAIT
    if folder.since is None or folder.since > now:  # no mark, one that cannot be read, or one of a clock that went wrong
        return Step.MARK
    return Step.REMOVE if now - folder.since > retain else Step.WAIT


def sweep(
    client: ObjectStore, namespace: str, installation: str, keep: Callable[[], Iterable[str]], retain_seconds: int, *, now: datetime | None = None
) -> Swept:
    """Sweep `adapters/<namespace>/` for an installation; `keep` tells the digests that are referenced, and is asked again before each removal.

    Raises:
        StoreShared: another installation uses this store, too; nothing was changed.
        StoreError: the store did not answer or refused; what was done is done, and the next sweep goes on.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise SourceInvalid(f"namespace {namespace!r}: must be a name of a Kubernetes namespace")
    if not _INSTALLATION.fullmatch(installation):
        raise SourceInvalid(f"installation {installation!r}: must be {_INSTALLATION.pattern}")
    now = now or datetime.now(UTC)
    retain = timedelta(seconds=retain_seconds)
    wanted = _short(keep())
    done = Swept()
    with translated(f"adapters/{namespace}"):
        _sign(client, installation, now)
        for folder in _folders(client, namespace):
            step = decide(folder, wanted, retain, now)
            if step is Step.REMOVE:
                wanted = _short(keep())
                step = decide(folder, wanted, retain, now)
            if step is Step.REMOVE and not _remove(client, folder):
                step = Step.WAIT
            if step is Step.UNMARK:
                _delete(client, f"{folder.path}/{MARK_FILE}")
            elif step is Step.MARK:
                _mark(client, folder, now)
            _count(done, step, folder)
    return done


def _short(digests: Iterable[str]) -> frozenset[str]:
    return frozenset(digest.removeprefix("sha256:")[:12] for digest in digests)


def _sign(client: ObjectStore, installation: str, now: datetime) -> None:
    """Leave the installation's name in the store, then look for others: of two that come at the same time, at least one sees both."""
    path = f"{INSTALLATIONS}/{installation}"
    if not _exists(client, path):
        obstore.put(client, path, _since_text(now), use_multipart=False)
    others = sorted(item["path"] for page in obstore.list(client, INSTALLATIONS) for item in page if item["path"] != path)
    if others:
        raise StoreShared(
            f"the store has the names of {len(others) + 1} installations ({path} is this one, {others[0]} another): each knows only its own adapters "
            "and would remove those of the others, so none removes anything; give each cluster and operator a prefix of its own in store.url, or "
            f"delete the object {others[0]} if that installation is gone"
        )


def _count(done: Swept, step: Step, folder: Folder) -> None:
    if step in (Step.KEEP, Step.UNMARK):
        done.kept += 1
    elif step is Step.REMOVE:
        done.removed += 1
        done.removed_bytes += folder.size_bytes
    else:
        done.waiting += 1


def _folders(client: ObjectStore, namespace: str) -> list[Folder]:
    """Return the folders of adapters below a namespace, with their marks read; other objects are nobody's business here."""
    files: dict[str, dict[str, int]] = {}
    newest: dict[str, datetime] = {}
    for page in obstore.list(client, f"adapters/{namespace}"):
        for item in page:
            path, _, name = item["path"].rpartition("/")
            if not _FOLDER.fullmatch(path):
                continue
            files.setdefault(path, {})[name] = item["size"]
            newest[path] = max(newest.get(path, item["last_modified"]), item["last_modified"])
    return [
        Folder(path, found, newest[path], MARK_FILE in found, _since(client, path) if MARK_FILE in found else None)
        for path, found in sorted(files.items())
    ]


def _since(client: ObjectStore, folder: str) -> datetime | None:
    """Return since when a folder is marked; None when its mark is gone or cannot be read."""
    try:
        result = obstore.get(client, f"{folder}/{MARK_FILE}")
        if result.meta["size"] > MARK_LIMIT_BYTES:
            return None
        since = datetime.fromisoformat(json.loads(bytes(result.bytes()))["since"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return since if since.tzinfo else None


def _mark(client: ObjectStore, folder: Folder, now: datetime) -> None:
    obstore.put(client, f"{folder.path}/{MARK_FILE}", _since_text(now), use_multipart=False)


def _since_text(now: datetime) -> bytes:
    return json.dumps({"since": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}).encode()


def _remove(client: ObjectStore, folder: Folder) -> bool:
    """Remove a folder: its manifest if it was listed with one, mark, the rest; returns False when a publish of the same digest came in between.

    A publisher takes the mark away before its manifest appears. So a mark that is gone, or a manifest that is back, means that the folder is
    wanted again. Stores have no transactions: a publish that comes whole between this look and the next call loses what that call deletes;
    publishing it once more puts it back.
    """
    if folder.marked and _since(client, folder.path) != folder.since:
        return False
    if MANIFEST_FILE in folder.files:
        _delete(client, f"{folder.path}/{MANIFEST_FILE}")
    if folder.marked:
        _delete(client, f"{folder.path}/{MARK_FILE}")
    for name in sorted(folder.files.keys() - {MANIFEST_FILE, MARK_FILE}):
        if _exists(client, f"{folder.path}/{MANIFEST_FILE}"):
            return False
        _delete(client, f"{folder.path}/{name}")
    return True


def unmark(client: ObjectStore, folder: str) -> None:
    """Take a folder's mark away, if it has one: it is published again, so it counts as seen anew."""
    if _exists(client, f"{folder}/{MARK_FILE}"):  # asked first, so that a publisher without the right to delete needs it only here
        _delete(client, f"{folder}/{MARK_FILE}")


def _exists(client: ObjectStore, path: str) -> bool:
    try:
        obstore.head(client, path)
    except FileNotFoundError:
        return False
    return True


def _delete(client: ObjectStore, path: str) -> None:
    try:
        obstore.delete(client, path)
    except FileNotFoundError:  # S3 says nothing, a folder does
        return
