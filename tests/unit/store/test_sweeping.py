"""The sweep: marks, waits, removes; and a sweep that is cut at any call to the store is completed by the next one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from graftwork_store import sweeping
from graftwork_store.clients import ObjectStore, open_url
from graftwork_store.errors import SourceInvalid, SourceNotFound, StoreShared, StoreUnreachable
from graftwork_store.store import Published, Store
from graftwork_store.sweeping import Folder, Step, Swept, decide, sweep
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store.seeds import fields, make_adapter

NOW = datetime(2026, 11, 21, 13, tzinfo=UTC)
DAY = 86_400
WEEK = 7 * DAY
MINE, OTHER = "graftwork-system.graftwork-operator.1b4e", "graftwork-system.graftwork-operator.9c2d"


class Shelf:
    """A store with adapters, and the time of its sweeps."""

    def __init__(self, env: dict[str, str], root: Path) -> None:
        self.store = Store.from_env(env)
        self.client: ObjectStore = open_url(env["GRAFTWORK_STORE_URL"], env)
        self.root = root
        self.now = datetime.now(UTC) + timedelta(seconds=1)

    def publish(self, seed: int, alias: str = "medical", namespace: str = "ml") -> Published:
        folder = self.root / f"trained-{seed}"
        if not folder.exists():
            make_adapter(folder, seed=seed)
        return self.store.publish(folder, namespace, alias, fields())

    def sweep(self, *keep: Published, retain: int = WEEK, namespace: str = "ml", later: int = 0, installation: str = MINE) -> Swept:
        self.now += timedelta(seconds=later)
        return sweep(self.client, namespace, installation, lambda: [published.digest for published in keep], retain, now=self.now)

    def names(self) -> set[str]:
        """Return every object but the names of installations."""
        return {item["path"] for page in obstore.list(self.client) for item in page if not item["path"].startswith("installations/")}

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self.client, path, data)

    def whole(self, published: Published, to: Path) -> bool:
        """Whether a reader gets it."""
        try:
            self.store.fetch(published.source, to, published.digest)
        except SourceNotFound:
            return False
        return True


@pytest.fixture
def shelf(store_env: dict[str, str], tmp_path: Path) -> Shelf:
    return Shelf(store_env, tmp_path)


@pytest.fixture
def local(file_env: dict[str, str], tmp_path: Path) -> Shelf:
    return Shelf(file_env, tmp_path)


def mark_of(published: Published) -> str:
    return published.source.replace("store://", "adapters/") + "/unreferenced.json"


def test_what_is_unreferenced_is_marked_waits_and_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    kept, gone = shelf.publish(1), shelf.publish(2)
    assert shelf.sweep(kept) == Swept(kept=1, waiting=1)
    since = json.loads(bytes(obstore.get(shelf.client, mark_of(gone)).bytes()))["since"]
    assert datetime.fromisoformat(since) == shelf.now
    assert since.endswith("Z")
    assert shelf.sweep(kept, later=WEEK) == Swept(kept=1, waiting=1)
    assert shelf.whole(gone, tmp_path / "still")
    size = gone.size_bytes
    done = shelf.sweep(kept, later=1)
    assert (done.kept, done.waiting, done.removed) == (1, 0, 1)
    assert done.removed_bytes > size  # with its manifest and mark
    assert not [name for name in shelf.names() if gone.source.rpartition("/")[2] in name]
    assert shelf.whole(kept, tmp_path / "kept")
    assert shelf.sweep(kept) == Swept(kept=1)


def test_an_adapter_that_is_referenced_again_loses_its_mark_and_starts_anew(shelf: Shelf, tmp_path: Path) -> None:
    published = shelf.publish(1)
    shelf.sweep()
    assert mark_of(published) in shelf.names()
    assert shelf.sweep(published, later=2 * WEEK) == Swept(kept=1)
    assert mark_of(published) not in shelf.names()
    assert shelf.sweep(later=DAY) == Swept(waiting=1)
    assert shelf.sweep(later=WEEK) == Swept(waiting=1)
    assert shelf.whole(published, tmp_path / "x")


def test_publishing_it_again_counts_as_seen_anew(shelf: Shelf, tmp_path: Path) -> None:
    published = shelf.publish(1)
    shelf.sweep()
    shelf.publish(1)
    assert mark_of(published) not in shelf.names()
    assert shelf.sweep(later=2 * WEEK) == Swept(waiting=1)
    assert shelf.whole(published, tmp_path / "x")


def test_one_digest_under_two_aliases_is_kept_under_both(shelf: Shelf) -> None:
    one = shelf.publish(1, "medical")
    shelf.publish(1, "doctor")
    assert shelf.sweep(one) == Swept(kept=2)


def test_other_namespaces_and_other_objects_are_left_alone(shelf: Shelf) -> None:
    shelf.publish(1, namespace="ml")
    shelf.publish(1, namespace="ml-2")
    others = [
        "adapters/ml/notes.txt",
        "adapters/ml/medical/notes.txt",
        "adapters/ml/medical/000000000000/deeper/x",
        "models/ml/medical/000000000000/x",
    ]
    for path in others:
        shelf.put(path, b"x")
    shelf.sweep(retain=0)
    assert shelf.sweep(retain=0, later=1).removed == 1
    assert set(others) <= shelf.names()
    assert any(name.startswith("adapters/ml-2/") for name in shelf.names())
    assert shelf.sweep(namespace="empty") == Swept()


def test_a_publish_that_was_cut_off_counts_from_its_newest_object_and_at_least_an_hour(shelf: Shelf) -> None:
    shelf.put("adapters/ml/medical/0123456789ab/adapter_config.json", b"x")
    assert shelf.sweep(retain=0, later=60) == Swept(waiting=1)
    assert shelf.sweep(retain=WEEK, later=2 * DAY) == Swept(waiting=1)
    assert shelf.sweep(retain=0, later=60) == Swept(removed=1, removed_bytes=1)
    assert shelf.names() == set()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"since": 7}', b'{"since": "yesterday"}', b'{"since": "2020-01-01T00:00:00"}', b" " * 5000])
def test_a_mark_that_cannot_be_read_is_written_anew(local: Shelf, text: bytes) -> None:
    published = local.publish(1)
    local.put(mark_of(published), text)
    assert local.sweep(retain=0) == Swept(waiting=1)
    assert datetime.fromisoformat(json.loads(bytes(obstore.get(local.client, mark_of(published)).bytes()))["since"]) == local.now


def test_a_mark_of_a_time_to_come_is_written_anew(local: Shelf) -> None:
    published = local.publish(1)
    local.put(mark_of(published), b'{"since": "2999-01-01T00:00:00.000000Z"}')
    assert local.sweep() == Swept(waiting=1)
    assert local.sweep(later=WEEK + 1).removed == 1


@pytest.mark.parametrize("namespace", ["", "..", "ml/medical", "ML", "*"])
def test_a_namespace_that_is_none_is_refused(local: Shelf, namespace: str) -> None:
    with pytest.raises(SourceInvalid, match="namespace"):
        local.sweep(namespace=namespace)


@pytest.mark.parametrize("installation", ["", "../x", "A", "a/b", "x" * 300])
def test_an_installation_without_a_name_is_refused(local: Shelf, installation: str) -> None:
    with pytest.raises(SourceInvalid, match="installation"):
        local.sweep(installation=installation)


def test_where_two_installations_share_a_store_neither_removes_anything(shelf: Shelf, tmp_path: Path) -> None:
    published = shelf.publish(1)
    assert shelf.sweep() == Swept(waiting=1)
    shelf.now += timedelta(seconds=2 * WEEK)
    before = shelf.names()
    for one, another in ((OTHER, MINE), (MINE, OTHER)):
        with pytest.raises(StoreShared, match=f"delete the object installations/{another}"):
            shelf.sweep(retain=0, installation=one)
    with pytest.raises(StoreShared):
        shelf.sweep(namespace="empty", installation=MINE)
    assert shelf.names() == before
    assert shelf.whole(published, tmp_path / "x")
    obstore.delete(shelf.client, f"installations/{OTHER}")
    assert shelf.sweep().removed == 1


def test_a_reference_that_is_made_while_a_sweep_runs_is_honoured(local: Shelf, tmp_path: Path) -> None:
    old = [local.publish(seed) for seed in (1, 2)]
    local.sweep()
    local.now += timedelta(seconds=2 * WEEK)
    asked: list[int] = []

    def keep() -> list[str]:
        asked.append(len(local.names()))
        return [old[1].digest] if len(asked) > 1 else []

    done = sweep(local.client, "ml", MINE, keep, WEEK, now=local.now)
    assert (done.kept, done.removed) == (1, 1)
    assert local.whole(old[1], tmp_path / "kept")
    assert mark_of(old[1]) not in local.names()


@pytest.mark.parametrize("marked", [False, True])
def test_a_publish_that_ends_while_its_remains_are_to_be_removed_keeps_its_manifest(
    local: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    published = local.publish(1)
    folder = published.source.replace("store://", "adapters/")
    obstore.delete(local.client, f"{folder}/manifest.json")
    if marked:  # as a removal that was cut off leaves it
        local.put(mark_of(published), json.dumps({"since": "2020-01-01T00:00:00.000000Z"}).encode())
    local.now += timedelta(seconds=2 * WEEK)
    real = sweeping._remove

    def remove(client: ObjectStore, found: Folder) -> bool:
        local.publish(1)
        return real(client, found)

    monkeypatch.setattr(sweeping, "_remove", remove)
    assert local.sweep() == Swept(waiting=1)
    assert local.whole(published, tmp_path / "x")


# --- ended at any call to the store


class Cut(Exception):  # noqa: N818 - what a killed process never sees
    """The sweep's process ends here."""


CALLS = ("get", "put", "head", "delete")


def cut_at(patch: pytest.MonkeyPatch, number: int, *, done: bool) -> list[str]:
    """Let the process end at its n-th call to the store, before or after the store has acted; returns the calls."""
    calls: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(obstore, name)

        def call(client: Any, path: Any, *arguments: Any, **options: Any) -> Any:
            calls.append(f"{name} {path}")
            if len(calls) != number:
                return real(client, path, *arguments, **options)
            if done:
                with contextlib.suppress(FileNotFoundError):
                    real(client, path, *arguments, **options)
            raise Cut(calls[-1])

        return call

    for name in CALLS:
        patch.setattr(obstore, name, wrap(name))
    return calls


def scene(shelf: Shelf) -> dict[str, Published]:
    """Adapters in every state that a sweep meets: `old` is due, `back` is referenced again, `new` is not marked yet, `kept` is."""
    found = {name: shelf.publish(seed) for seed, name in enumerate(("old", "back", "kept", "new"), 1)}
    shelf.sweep(found["kept"], found["new"])
    shelf.put("adapters/ml/medical/0123456789ab/adapter_config.json", b"cut off")
    shelf.now += timedelta(seconds=WEEK + 1)
    return found


def count_calls(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> int:
    found = scene(shelf)
    with monkeypatch.context() as patch:
        calls = cut_at(patch, 0, done=False)
        shelf.sweep(found["kept"], found["back"])
    return len(calls)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_sweep_that_is_cut_at_any_call_harms_nothing_and_the_next_one_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    whole = Shelf({"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'whole'}"}, tmp_path)
    total = count_calls(whole, monkeypatch)
    assert total >= 12
    for number in range(1, total + 1):
        shelf = Shelf({"GRAFTWORK_STORE_URL": f"file://{tmp_path / str(number)}"}, tmp_path)
        found = scene(shelf)
        with monkeypatch.context() as patch:
            cut_at(patch, number, done=done)
            with pytest.raises(Cut):
                shelf.sweep(found["kept"], found["back"])
        for name, published in found.items():
            seen = shelf.whole(published, tmp_path / "seen" / f"{number}-{name}")  # raises when a manifest lacks a file
            assert seen or name == "old"
        shelf.sweep(found["kept"], found["back"])
        shelf.sweep(found["kept"], found["back"])
        assert shelf.names() == whole.names(), number


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_publish_of_what_a_cut_sweep_was_removing_is_whole_and_safe_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    total = count_calls(Shelf({"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'whole'}"}, tmp_path), monkeypatch)
    for number in range(1, total + 1):
        shelf = Shelf({"GRAFTWORK_STORE_URL": f"file://{tmp_path / str(number)}"}, tmp_path)
        found = scene(shelf)
        with monkeypatch.context() as patch:
            cut_at(patch, number, done=done)
            with pytest.raises(Cut):
                shelf.sweep(found["kept"], found["back"])
        again = shelf.publish(1)
        assert again.digest == found["old"].digest
        shelf.sweep(found["kept"], found["back"])  # a list that was made before the publish
        assert shelf.whole(again, tmp_path / "seen" / str(number))


@contextlib.contextmanager
def before_call(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> Iterator[list[str]]:
    """Do something just before the n-th call of the shelf's own client; yields that client's calls."""
    calls: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(obstore, name)

        def call(client: Any, path: Any = None, *arguments: Any, **options: Any) -> Any:
            if client is shelf.client:
                calls.append(f"{name} {path}")
                if len(calls) == number:
                    act()
            return real(client, path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in (*CALLS, "list"):
            patch.setattr(obstore, name, wrap(name))
        yield calls


REMOVAL = ["head", "list", "list", "get", "get", "delete", "delete", "head", "delete", "head", "delete"]
# Before these the sweep has just looked: what it deletes then is lost until it is published once more.
LOST_BEFORE = (6, 9, 11)


@pytest.mark.parametrize("number", range(1, len(REMOVAL) + 1))
def test_a_publish_between_any_two_calls_of_a_removal_is_whole_or_is_made_whole_by_the_next_one(
    local: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old = local.publish(1)
    local.sweep()
    local.now += timedelta(seconds=WEEK + 1)
    with before_call(local, monkeypatch, 0, lambda: None) as calls:
        assert local.sweep().removed == 1
    assert [call.partition(" ")[0] for call in calls] == REMOVAL
    local.publish(1)
    local.sweep()
    local.now += timedelta(seconds=WEEK + 1)
    with before_call(local, monkeypatch, number, lambda: local.publish(1)):
        local.sweep()
    if number not in LOST_BEFORE:
        assert local.whole(old, tmp_path / "at once")
    local.publish(1)
    assert local.whole(old, tmp_path / "then")
    local.sweep()
    assert local.whole(old, tmp_path / "after")


def test_a_sweep_between_any_two_calls_of_a_publish_leaves_it_whole(local: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, total = 0, 1
    while number < total:
        number += 1
        old = local.publish(1)
        local.sweep()
        local.now += timedelta(seconds=WEEK + 1)
        publisher = Shelf({"GRAFTWORK_STORE_URL": f"file://{local.root / 'store'}"}, local.root)
        publisher.store = Store(publisher.client)
        with before_call(publisher, monkeypatch, number, local.sweep) as calls:
            publisher.publish(1)
        total = max(total, len(calls))
        assert local.whole(old, tmp_path / str(number)), calls
    assert total >= 9


@given(
    short=st.sampled_from(["000000000000", "111111111111"]),
    manifest=st.booleans(),
    marked=st.booleans(),
    age=st.integers(-DAY, 3 * WEEK),
    newest=st.integers(-DAY, 3 * WEEK),
    retain=st.integers(0, 2 * WEEK),
    unreadable=st.booleans(),
)
def test_nothing_that_is_kept_or_young_is_ever_removed(
    short: str, manifest: bool, marked: bool, age: int, newest: int, retain: int, unreadable: bool
) -> None:
    since = NOW - timedelta(seconds=age) if marked and not unreadable else None
    files = {"adapter_config.json": 1} | ({"manifest.json": 1} if manifest else {}) | ({"unreferenced.json": 1} if marked else {})
    folder = Folder(f"adapters/ml/a/{short}", files, NOW - timedelta(seconds=newest), marked, since)
    step = decide(folder, frozenset({"000000000000"}), timedelta(seconds=retain), NOW)
    if short == "000000000000":
        assert step is (Step.UNMARK if marked else Step.KEEP)
    elif step is Step.REMOVE:
        assert (age > retain and marked) if manifest else newest > retain
    elif manifest:
        assert step is (Step.MARK if since is None or age < 0 else Step.WAIT)
    else:
        assert step is Step.WAIT


def test_a_store_that_fails_in_between_is_told_and_what_was_done_is_done(local: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    local.publish(1)
    local.publish(2)

    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(sweeping, "_mark", fail)
    with pytest.raises(StoreUnreachable, match="gone"):
        local.sweep()
