from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import obstore
import pytest
from graftwork_store import sources
from graftwork_store.clients import s3_client
from graftwork_store.errors import DiskFull, ModelInvalid, SourceDenied, SourceInvalid, SourceNotFound, SourceUnreachable
from graftwork_store.fingerprint import base_fingerprint
from obstore.store import LocalStore

from tests.unit.store.gateway import BUCKET
from tests.unit.store.seeds import make_base


def upload(env: dict[str, str], folder: Path, prefix: str) -> None:
    client = s3_client(BUCKET, "", env)
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(client, f"{prefix}/{path.relative_to(folder)}", path)


def test_a_model_comes_whole_with_its_subfolders(s3_env: dict[str, str], tmp_path: Path) -> None:
    base = make_base(tmp_path / "m")
    (base / "sub").mkdir()
    (base / "sub" / "empty.txt").write_text("")
    upload(s3_env, base, "models/tiny")
    upload(s3_env, base, "models/tiny-2")
    seen: list[tuple[int, int]] = []
    done = sources.download(f"s3://{BUCKET}/models/tiny", tmp_path / "out", env=s3_env, progress=lambda *pair: seen.append(pair))
    assert done.files == ("config.json", "model.safetensors", "sub/empty.txt")
    assert base_fingerprint(tmp_path / "out") == base_fingerprint(base)
    assert seen[-1] == (done.size_bytes, done.size_bytes)


def test_a_restart_keeps_what_was_whole_and_replaces_the_rest(s3_env: dict[str, str], tmp_path: Path) -> None:
    base = make_base(tmp_path / "m")
    upload(s3_env, base, "restart/tiny")
    uri, out = f"s3://{BUCKET}/restart/tiny", tmp_path / "out"
    sources.download(uri, out, env=s3_env)
    (out / "model.safetensors").unlink()
    (out / "model.safetensors.graftwork-part").write_bytes(b"half")
    done = sources.download(uri, out, env=s3_env)
    assert done.kept_bytes == (base / "config.json").stat().st_size
    assert base_fingerprint(out) == base_fingerprint(base)
    os.utime(out / "config.json", (1, 1))  # not the object's time: another object, or not from there
    assert sources.download(uri, out, env=s3_env).kept_bytes == (base / "model.safetensors").stat().st_size
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


def test_a_data_set_is_one_file_in_its_folder(s3_env: dict[str, str], tmp_path: Path) -> None:
    client = s3_client(BUCKET, "", s3_env)
    obstore.put(client, "data/tickets.jsonl", b'{"text": "a"}\n')
    obstore.put(client, "data/tickets.jsonl.bak", b"other")
    sources.download(f"s3://{BUCKET}/data/tickets.jsonl", tmp_path / "out", env=s3_env)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tickets.jsonl"]
    assert (tmp_path / "out" / "tickets.jsonl").read_bytes() == b'{"text": "a"}\n'


def test_large_objects_come_in_parts(s3_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART_BYTES", 1000)
    data = os.urandom(12_345)
    obstore.put(s3_client(BUCKET, "", s3_env), "parts/one.jsonl", data)
    sources.download(f"s3://{BUCKET}/parts/one.jsonl", tmp_path / "out", env=s3_env)
    assert (tmp_path / "out" / "one.jsonl").read_bytes() == data


@pytest.mark.parametrize(
    ("uri", "change", "error", "message"),
    [
        ("s3://bucket/nothing/here", {}, SourceNotFound, "neither an object nor a prefix"),
        ("s3://nowhere/models/tiny", {}, SourceNotFound, "bucket does not exist"),
        ("s3://bucket/x", {"AWS_SECRET_ACCESS_KEY": "wrong"}, SourceDenied, "credentials were refused"),
        ("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "nobody"}, SourceDenied, "credentials were refused"),
    ],
)
def test_errors_name_the_source_and_the_remedy(
    s3_env: dict[str, str], tmp_path: Path, uri: str, change: dict[str, str], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        sources.download(uri, tmp_path / "out", env=s3_env | change)
    assert uri in str(caught.value)


def test_an_endpoint_that_does_not_answer_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "s3_client", lambda *arguments, **options: s3_client(*arguments, **(options | {"attempts": 1})))
    with pytest.raises(SourceUnreachable, match="AWS_ENDPOINT_URL"):
        sources.download(
            "s3://b/k", tmp_path / "out", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        )


@pytest.mark.parametrize(
    "uri", ["", "s3://", "s3://bucket", "s3://bucket/", "s3://bucket/a/../b", "s3://bucket/a//b", "pvc://claim/x", "hf://org/model", "/etc"]
)
def test_what_is_not_a_source_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceInvalid):
        sources.download(uri, tmp_path / "out", env={})


def test_a_prefix_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s" / "data").mkdir(parents=True)
    (tmp_path / "s" / "data" / "a.jsonl").write_text("x")
    with pytest.raises(ModelInvalid, match=r"1 objects and no config\.json"):
        sources.download_from(LocalStore(tmp_path / "s"), "s3://b/data", "data", tmp_path / "out")


def test_a_volume_without_room_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_base(tmp_path / "s" / "m")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(DiskFull, match="100 bytes free"):
        sources.download_from(LocalStore(tmp_path / "s"), "s3://b/m", "m", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_object_that_ends_early_is_not_kept(tmp_path: Path) -> None:
    make_base(tmp_path / "s" / "m")
    client = LocalStore(tmp_path / "s")
    listed = sources.under_prefix(client, "s3://b/m", "m")
    with (tmp_path / "s" / "m" / "config.json").open("ab") as file:  # the object changes after it was listed
        file.write(b" ")
    (tmp_path / "out").mkdir()
    with pytest.raises(Exception, match=r"config\.json|recondition|range"):
        sources._Run(client, tmp_path / "out", sources._Counter(0, 0, None)).all(listed)
    assert not (tmp_path / "out" / "config.json").exists()
