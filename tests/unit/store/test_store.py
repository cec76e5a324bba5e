"""Each test runs against a folder and, when its binary is there, against a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import obstore
import pytest
from graftwork_store import manifest as manifests
from graftwork_store.clients import open_url
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import (
    ConfigInvalid,
    DigestMismatch,
    FileNotAllowed,
    SourceInvalid,
    SourceNotFound,
    StoreDenied,
    StoreError,
    StoreNotConfigured,
    StoreUnreachable,
)
from graftwork_store.store import Store

from tests.unit.store.seeds import fields, make_adapter

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/design/schemas/manifest.schema.json").read_text())


def put(env: dict[str, str], path: str, data: bytes) -> None:
    obstore.put(open_url(env["GRAFTWORK_STORE_URL"], env), path, data)


def names(env: dict[str, str], prefix: str = "adapters") -> set[str]:
    return {item["path"] for page in obstore.list(open_url(env["GRAFTWORK_STORE_URL"], env), prefix) for item in page}


def test_what_was_published_is_fetched_byte_for_byte(store: Store, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "README.md").write_text("not published")
    published = store.publish(folder, "ml", "medical", fields())
    assert published.source == f"store://ml/medical/{adapter_digest(folder).removeprefix('sha256:')[:12]}"
    manifest = store.fetch(published.source, tmp_path / "out", published.digest)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert adapter_digest(tmp_path / "out") == published.digest == manifest.digest
    assert published.size_bytes == manifest.size_bytes
    jsonschema.validate(manifest.raw, SCHEMA)


def test_publishing_the_same_digest_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    first = store.publish(folder, "ml", "medical", fields())
    again = store.publish(folder, "ml", "medical", fields() | {"rank": 9})
    assert again == first
    assert store.read_manifest(first.source).rank == 4


def test_an_interrupted_publish_is_invisible_and_the_next_one_completes_it(store: Store, store_env: dict[str, str], tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    short = adapter_digest(folder).removeprefix("sha256:")[:12]
    put(store_env, f"adapters/ml/medical/{short}/adapter_config.json", b"half written")
    with pytest.raises(SourceNotFound):
        store.read_manifest(f"store://ml/medical/{short}")
    published = store.publish(folder, "ml", "medical", fields())
    assert store.fetch(published.source, tmp_path / "out").digest == published.digest


class Cut(Exception):  # noqa: N818 - what a killed process never sees
    """The publisher's process ends here."""


def put_cut_at(monkeypatch: pytest.MonkeyPatch, number: int, *, done: bool) -> list[str]:
    """Let the publisher end at its n-th put, just before or just after the store has it; return the paths of its puts."""
    real, paths = obstore.put, []

    def put_or_end(client: Any, path: str, *arguments: Any, **options: Any) -> Any:
        paths.append(path)
        if len(paths) != number:
            return real(client, path, *arguments, **options)
        if done:
            real(client, path, *arguments, **options)
        raise Cut(path)

    monkeypatch.setattr(obstore, "put", put_or_end)
    return paths


def test_a_publish_writes_the_manifest_last(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = put_cut_at(monkeypatch, 0, done=False)
    store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    assert [path.rpartition("/")[2] for path in paths] == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_publish_that_is_cut_at_any_put_is_invisible_or_complete_and_the_next_one_completes_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, done: bool
) -> None:
    folder = make_adapter(tmp_path / "a")
    digest = adapter_digest(folder)
    uri = f"store://ml/medical/{digest.removeprefix('sha256:')[:12]}"
    with monkeypatch.context() as patch:
        paths = put_cut_at(patch, number, done=done)
        with pytest.raises(Cut):
            store.publish(folder, "ml", "medical", fields())
    assert len(paths) == number
    if paths[-1].endswith("manifest.json") and done:
        assert store.fetch(uri, tmp_path / "seen", digest).digest == digest
    else:
        with pytest.raises(SourceNotFound):
            store.read_manifest(uri)
        with pytest.raises(SourceNotFound):
            store.fetch(uri, tmp_path / "seen", digest)
        assert not (tmp_path / "seen").exists()
    published = store.publish(folder, "ml", "medical", fields())
    assert (published.source, published.digest) == (uri, digest)
    store.fetch(uri, tmp_path / "out", digest)
    assert adapter_digest(tmp_path / "out") == digest


def test_a_publisher_that_was_overtaken_returns_what_the_other_wrote(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_adapter(tmp_path / "a")
    build = manifests.build

    def slow_build(*arguments: Any) -> bytes:
        monkeypatch.setattr(manifests, "build", build)
        store.publish(folder, "ml", "medical", fields() | {"rank": 2})
        return build(*arguments)

    monkeypatch.setattr(manifests, "build", slow_build)
    published = store.publish(folder, "ml", "medical", fields())
    assert store.read_manifest(published.source).rank == 2


def test_a_swapped_object_is_found_and_leaves_nothing_behind(store: Store, store_env: dict[str, str], tmp_path: Path) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    path = next(name for name in names(store_env) if name.endswith("adapter_config.json"))
    size = len((tmp_path / "a" / "adapter_config.json").read_bytes())
    put(store_env, path, b"x" * size)
    with pytest.raises(DigestMismatch, match="changed after it was published"):
        store.fetch(published.source, tmp_path / "out" / "x")
    put(store_env, path, b"x" * (size + 10))
    with pytest.raises(DigestMismatch, match=f"the manifest says {size}"):
        store.fetch(published.source, tmp_path / "out" / "x")
    put(store_env, path, b"x")
    with pytest.raises(DigestMismatch, match="1 bytes"):
        store.fetch(published.source, tmp_path / "out" / "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_object_is_a_mismatch_and_not_a_missing_adapter(store: Store, store_env: dict[str, str], tmp_path: Path) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    obstore.delete(open_url(store_env["GRAFTWORK_STORE_URL"], store_env), next(name for name in names(store_env) if name.endswith(".safetensors")))
    with pytest.raises(DigestMismatch, match="the store does not have it"):
        store.fetch(published.source, tmp_path / "out")


def test_a_fetch_replaces_what_has_another_digest_and_keeps_what_has_the_same(store: Store, tmp_path: Path) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    target = make_adapter(tmp_path / "out", seed=7)
    store.fetch(published.source, target)
    assert adapter_digest(target) == published.digest
    before = (target / "adapter_model.safetensors").stat().st_ino
    store.fetch(published.source, target)
    assert (target / "adapter_model.safetensors").stat().st_ino == before


def test_another_digest_than_expected_is_refused_before_anything_is_downloaded(store: Store, tmp_path: Path) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    with pytest.raises(DigestMismatch, match="expected sha256:11"):
        store.fetch(published.source, tmp_path / "out", "sha256:" + "1" * 64)
    assert not (tmp_path / "out").exists()


def spoiled(change: Any) -> Any:
    def apply(raw: dict[str, Any]) -> bytes:
        change(raw)
        return json.dumps(raw).encode()

    return apply


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda raw: b"not json", ConfigInvalid, "not a manifest"),
        (lambda raw: b"[]", ConfigInvalid, "not a manifest"),
        (lambda raw: b" " * (2 << 20), ConfigInvalid, "the limit is"),
        (spoiled(lambda raw: raw.update(apiVersion="graftwork.dev/manifest/v2")), ConfigInvalid, "manifest/v2"),
        (spoiled(lambda raw: raw["files"].append({"path": "../../etc/x", "size": 1, "sha256": "0" * 64})), FileNotAllowed, r"\.\./\.\./etc/x"),
        (spoiled(lambda raw: raw["files"].append({"path": "evil.bin", "size": 1, "sha256": "0" * 64})), FileNotAllowed, "evil.bin"),
        (spoiled(lambda raw: raw["files"].append(raw["files"][0])), FileNotAllowed, "2 times"),
        (spoiled(lambda raw: raw["files"].pop()), FileNotAllowed, "0 times"),
        (spoiled(lambda raw: raw["files"][0].update(size=-1)), ConfigInvalid, "whole number"),
        (spoiled(lambda raw: raw["files"][0].update(sha256="0" * 64)), DigestMismatch, "its files give digest"),
        (spoiled(lambda raw: raw.update(digest="sha256:" + "0" * 64)), DigestMismatch, "its files give digest"),
        (spoiled(lambda raw: raw["base"].pop("fingerprint")), ConfigInvalid, "fingerprint"),
    ],
)
def test_a_bad_manifest_is_refused(
    store: Store, store_env: dict[str, str], tmp_path: Path, spoil: Any, error: type[StoreError], message: str
) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    put(store_env, next(name for name in names(store_env) if name.endswith("manifest.json")), spoil(store.read_manifest(published.source).raw))
    with pytest.raises(error, match=message):
        store.fetch(published.source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_manifest_in_the_folder_of_another_digest_is_refused(store: Store, store_env: dict[str, str], tmp_path: Path) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    put(store_env, "adapters/ml/medical/000000000000/manifest.json", json.dumps(store.read_manifest(published.source).raw).encode())
    with pytest.raises(DigestMismatch, match="lies in the folder of 000000000000"):
        store.read_manifest("store://ml/medical/000000000000")


@pytest.mark.parametrize(
    "uri", ["store://ml/../../x/000000000000", "store://ml/a--b/000000000000", "store://ml/a", "s3://x/y", "store://ml/a/00000000000Z", ""]
)
def test_a_source_that_is_not_one_is_refused(store: Store, uri: str) -> None:
    with pytest.raises(SourceInvalid):
        store.read_manifest(uri)


@pytest.mark.parametrize("url", ["", "http://x/y", "s3://", "file://relative/x", "/store"])
def test_a_store_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreNotConfigured, match="GRAFTWORK_STORE_URL"):
        Store.from_env({"GRAFTWORK_STORE_URL": url})


@pytest.mark.parametrize("change", [{"AWS_ACCESS_KEY_ID": "nobody"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}])
def test_refused_credentials_are_named_so_and_never_shown(s3_env: dict[str, str], tmp_path: Path, change: dict[str, str]) -> None:
    store = Store.from_env(s3_env | change)
    with pytest.raises(StoreDenied) as caught:
        store.read_manifest("store://ml/medical/000000000000")
    with pytest.raises(StoreDenied):
        store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    assert s3_env["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_a_missing_bucket_is_named(s3_env: dict[str, str]) -> None:
    with pytest.raises(SourceNotFound, match="bucket does not exist"):
        Store.from_env(s3_env | {"GRAFTWORK_STORE_URL": "s3://nowhere/store"}).read_manifest("store://ml/medical/000000000000")


def test_a_store_that_does_not_answer_is_unreachable() -> None:
    env = {"GRAFTWORK_STORE_URL": "s3://b/p", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(StoreUnreachable, match="does not answer"):
        Store.from_env(env).read_manifest("store://ml/medical/000000000000")
