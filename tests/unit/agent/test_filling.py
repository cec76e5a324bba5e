"""A model comes to a cache's claim whole or not at all: from the fake hub and from a real S3 server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
from aiohttp import web
from graftwork_agent import filled
from graftwork_store.clients import s3_client
from graftwork_store.fingerprint import base_fingerprint

from tests.hub.content import File
from tests.hub.server import Hub
from tests.unit.agent.filler import SECRET, Filler, instructions, lying, model_of
from tests.unit.agent.test_inspecting import files_of
from tests.unit.store.gateway import BUCKET, running_gateway
from tests.unit.store.seeds import make_base

TOKEN = f"hf_{SECRET}"
HUB, S3 = "hf://acme/tiny", f"s3://{BUCKET}/models/tiny"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "m")


@dataclass
class DamagedHub(Hub):
    """Sends other bytes of large files than it lists, so many times."""

    damage: int = 0

    async def _large(self, request: web.Request) -> web.StreamResponse:
        response = await super()._large(request)
        if self.damage > 0 and isinstance(response, web.Response) and isinstance(response.body, bytes):
            self.damage -= 1
            response.body = bytes([response.body[0] ^ 1]) + response.body[1:]
        return response


@pytest.fixture
def hub(base: Path) -> DamagedHub:
    hub = DamagedHub(tokens={TOKEN: "ann"})
    hub.add("acme/tiny", files_of(base) | {"tokenizer.json": b"{}", "1_Pooling/config.json": b"{}", "README.md": b"read"})
    return hub


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        yield env


@pytest.fixture
def filler(env: dict[str, str], gateway: dict[str, str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filler:
    client = s3_client(BUCKET, "", gateway)
    for name, data in (files_of(base) | {"1_Pooling/config.json": b"{}", "tokenizer.json": b"{}"}).items():
        obstore.put(client, f"models/tiny/{name}", data)
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    return Filler(env | gateway, tmp_path / "log")


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    (tmp_path / "claim").mkdir()
    return tmp_path / "claim"


@pytest.mark.parametrize("source", [HUB, S3])
def test_a_model_lies_on_the_claim_with_its_manifest_and_nothing_beside(filler: Filler, claim: Path, base: Path, source: str) -> None:
    wanted = instructions(source, filler.env, claim)
    code, result = filler.run(wanted)
    assert (code, result["outcome"], result["reason"]) == (0, "Succeeded", "ModelCached")
    key = wanted["key"]
    assert base_fingerprint(claim / "models" / key) == base_fingerprint(base)
    assert set(model_of(claim, key)) == {*files_of(base), "tokenizer.json", "1_Pooling/config.json"}
    assert {name.split("/")[0] for name in lying(claim)} == {"models"}
    assert sorted(path.name for path in claim.iterdir()) == ["compile", "models"]
    filled_ = {name: result["filled"][name] for name in ("key", "files", "bytes", "fetchedBytes")}
    assert filled_ == {"key": key, "files": 4, "bytes": wanted["files"]["bytes"], "fetchedBytes": wanted["files"]["bytes"]}
    assert result["pruned"] == []
    assert abs(result["freeBytes"] - shutil.disk_usage(claim).free) < 1 << 30
    manifest = json.loads((claim / "models" / key / ".graftwork-model.json").read_text())
    assert (manifest["source"], manifest["revision"], manifest["bytes"]) == (source, wanted["revision"], wanted["files"]["bytes"])
    assert {file["path"] for file in manifest["files"]} == set(model_of(claim, key))
    if source == HUB:
        weights = next(file for file in manifest["files"] if file["path"] == "model.safetensors")
        assert weights["sha256"] == File("model.safetensors", (base / "model.safetensors").read_bytes()).sha256


def test_a_restart_after_success_asks_the_source_for_nothing(filler: Filler, claim: Path, hub: Hub) -> None:
    wanted = instructions(HUB, filler.env, claim)
    filler.run(wanted)
    hub.seen.clear()
    before = lying(claim)
    code, result = filler.run(wanted)
    assert (code, result["filled"]["fetchedBytes"], result["filled"]["files"]) == (0, 0, 4)
    assert hub.seen == []
    assert lying(claim) == before


def test_engines_of_any_user_may_keep_what_they_compile_and_a_fill_touches_nothing_of_it(filler: Filler, claim: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    assert filler.run(wanted)[0] == 0
    assert (claim / "compile").stat().st_mode & 0o777 == 0o777, "whatever the umask"
    (claim / "compile" / "x").write_text("compiled")
    assert filler.run(wanted)[0] == 0
    assert (claim / "compile" / "x").read_text() == "compiled"
    (claim / "compile" / "x").unlink()
    (claim / "compile").rmdir()
    assert filler.run(wanted)[0] == 0
    assert (claim / "compile").is_dir(), "though the model was there already"


def test_the_pinned_commit_comes_though_the_branch_has_moved(filler: Filler, claim: Path, hub: Hub, base: Path, tmp_path: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    hub.add("acme/tiny", files_of(make_base(tmp_path / "newer", seed=7)))
    assert filler.run(wanted)[0] == 0
    assert base_fingerprint(claim / "models" / wanted["key"]) == base_fingerprint(base)


def test_a_bucket_with_other_files_than_were_inspected_is_refused_and_nothing_is_mixed(filler: Filler, claim: Path) -> None:
    wanted = instructions(S3, filler.env, claim)
    obstore.put(s3_client(BUCKET, "", filler.env), "models/tiny/tokenizer.json", b'{"new": 1}')
    code, result = filler.run(wanted)
    assert (code, result["reason"]) == (65, "SourceChanged")
    assert "graftwork.dev/refresh" in result["message"]
    assert wanted["files"]["digest"] in result["message"]
    assert lying(claim) == {}


@pytest.mark.parametrize("damage", ["gone", "shorter", "other bytes"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_an_attempt_left_is_looked_at_again_and_only_what_is_damaged_is_fetched(
    filler: Filler, claim: Path, hub: Hub, base: Path, name: str, damage: str
) -> None:
    wanted = instructions(HUB, filler.env, claim)
    filler.run(wanted)
    left = claim / f".filling-{wanted['key']}"
    (claim / "models" / wanted["key"]).rename(left)
    data = (left / name).read_bytes()
    (left / name).unlink()
    if damage != "gone":
        (left / name).write_bytes(data[:-1] if damage == "shorter" else data[:-1] + bytes([data[-1] ^ 1]))
    hub.seen.clear()
    code, result = filler.run(wanted)
    assert (code, result["filled"]["fetchedBytes"]) == (0, len(data))
    assert {seen.path.rpartition("/")[2] for seen in hub.seen if "/resolve/" in seen.path} == {name}
    assert model_of(claim, wanted["key"])[name] == (base / name).read_bytes()


def test_a_file_that_comes_damaged_once_is_fetched_again(filler: Filler, claim: Path, hub: DamagedHub, base: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    hub.damage = 1
    code, result = filler.run(wanted)
    assert (code, result["filled"]["fetchedBytes"]) == (0, wanted["files"]["bytes"])
    assert base_fingerprint(claim / "models" / wanted["key"]) == base_fingerprint(base)


def test_a_file_that_is_never_the_listed_one_is_refused_and_gets_no_name(filler: Filler, claim: Path, hub: DamagedHub) -> None:
    wanted = instructions(HUB, filler.env, claim)
    hub.damage = 100
    code, result = filler.run(wanted)
    assert (code, result["reason"]) == (65, "DigestMismatch")
    assert "model.safetensors" in result["message"]
    assert not any("model.safetensors" in name for name in lying(claim))
    assert not (claim / "models").exists()


def test_a_claim_without_room_names_need_free_and_itself_and_asks_for_nothing(
    filler: Filler, claim: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = instructions(HUB, filler.env, claim)
    hub.seen.clear()
    monkeypatch.setattr(filled.Claim, "free_bytes", lambda self: 10)
    code, result = filler.run(wanted)
    assert (code, result["reason"], result["freeBytes"]) == (70, "DiskFull", 10)
    need = wanted["files"]["bytes"]
    for text in ("support-cache", f"{need} bytes", "10 bytes are free", f"{need - 10} bytes more", "cache.size"):
        assert text in result["message"]
    assert not [seen for seen in hub.seen if "/resolve/" in seen.path]


def test_a_full_claim_names_what_engines_compiled_there(filler: Filler, claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = instructions(HUB, filler.env, claim)
    (claim / "compile" / "0123456789ab").mkdir(parents=True)
    (claim / "compile" / "0123456789ab" / "graph").write_bytes(b"x" * 4321)
    monkeypatch.setattr(filled.Claim, "free_bytes", lambda self: 10)
    code, result = filler.run(wanted)
    assert (code, result["reason"]) == (70, "DiskFull")
    assert "4321 bytes" in result["message"]
    assert "compile/" in result["message"]


def test_an_old_revision_makes_room_where_it_is_needed_and_one_that_is_kept_does_not(
    filler: Filler, claim: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = instructions(HUB, filler.env, claim)
    filler.run(first)
    hub.add("acme/tiny", files_of(make_base(tmp_path / "newer", seed=7)))
    second = instructions(HUB, filler.env, claim, keep=[first["key"]])
    room = second["files"]["bytes"]
    monkeypatch.setattr(filled.Claim, "free_bytes", lambda self: 10 if any(self.models.glob(first["key"])) else room)
    code, result = filler.run(second)
    assert (code, result["reason"], result["pruned"]) == (70, "DiskFull", [])
    assert model_of(claim, first["key"]), "what serves is not touched"
    code, result = filler.run(second | {"keep": []})
    assert (code, result["pruned"]) == (0, [first["key"]])
    assert [path.name for path in (claim / "models").iterdir()] == [second["key"]]


def test_a_disk_that_fills_up_in_the_middle_keeps_what_was_whole(filler: Filler, claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = instructions(HUB, filler.env, claim)
    real, calls = filled._sync, []

    def sync(path: Path) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(filled, "_sync", sync)
        code, result = filler.run(wanted)
    assert (code, result["reason"]) == (70, "DiskFull")
    assert "No space left on device" in result["message"]
    assert len(lying(claim)) == 2
    code, result = filler.run(wanted)
    assert code == 0
    assert 0 < result["filled"]["fetchedBytes"] < wanted["files"]["bytes"]


def test_a_model_that_lost_a_file_is_mended(filler: Filler, claim: Path, hub: Hub, base: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    filler.run(wanted)
    (claim / "models" / wanted["key"] / "config.json").unlink()
    code, result = filler.run(wanted)
    assert (code, result["filled"]["fetchedBytes"]) == (0, (base / "config.json").stat().st_size)
    assert model_of(claim, wanted["key"])["config.json"] == (base / "config.json").read_bytes()


def test_an_empty_folder_of_a_pod_that_came_too_early_is_no_hindrance(filler: Filler, claim: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    (claim / "models" / wanted["key"]).mkdir(parents=True)
    assert filler.run(wanted)[0] == 0
    assert "config.json" in model_of(claim, wanted["key"])


def test_a_folder_of_somebody_else_is_named_and_left_alone(filler: Filler, claim: Path) -> None:
    wanted = instructions(HUB, filler.env, claim)
    other = claim / "models" / wanted["key"]
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("mine")
    code, result = filler.run(wanted)
    assert (code, result["reason"]) == (65, "CacheFailed")
    assert wanted["key"] in result["message"]
    assert lying(claim) == {f"models/{wanted['key']}/thesis.txt": b"mine"}


def test_a_key_that_another_revision_has_is_refused(filler: Filler, claim: Path, hub: Hub, tmp_path: Path) -> None:
    first = instructions(HUB, filler.env, claim)
    filler.run(first)
    hub.add("acme/tiny", files_of(make_base(tmp_path / "newer", seed=7)))
    before = lying(claim)
    code, result = filler.run(instructions(HUB, filler.env, claim, key=first["key"]))
    assert (code, result["reason"]) == (65, "CacheFailed")
    assert lying(claim) == before


def test_a_bucket_that_holds_a_copy_of_a_cached_model_is_filled_from(filler: Filler, claim: Path) -> None:
    client = s3_client(BUCKET, "", filler.env)
    obstore.put(client, "models/tiny/.graftwork-model.json", b'{"apiVersion": "graftwork.dev/cached-model/v1"}')
    try:
        wanted = instructions(S3, filler.env, claim)
        assert [filler.run(wanted)[0] for _ in range(2)] == [0, 0]
        assert filler.result()["filled"]["fetchedBytes"] == 0
    finally:
        obstore.delete(client, "models/tiny/.graftwork-model.json")


@pytest.mark.parametrize("source", [HUB, S3])
def test_several_fills_at_once_end_with_one_model(filler: Filler, claim: Path, base: Path, source: str) -> None:
    wanted = instructions(source, filler.env, claim)
    processes = [filler.start(wanted) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert base_fingerprint(claim / "models" / wanted["key"]) == base_fingerprint(base)
    filler.run(wanted)
    assert sorted(path.name for path in claim.iterdir()) == ["compile", "models"], "the last one leaves no remains of the others"


@pytest.mark.parametrize(
    ("source", "more", "code", "reason"),
    [
        (HUB, {"HF_ENDPOINT": "http://127.0.0.1:1"}, 70, "SourceUnreachable"),
        (HUB, {"HF_TOKEN": f"hf_forged_{SECRET}"}, 65, "SourceDenied"),
        (S3, {"AWS_SECRET_ACCESS_KEY": SECRET}, 65, "SourceDenied"),
    ],
)
def test_a_source_that_gives_nothing_is_named_without_its_credentials(
    filler: Filler, claim: Path, capfd: pytest.CaptureFixture[str], source: str, more: dict[str, str], code: int, reason: str
) -> None:
    wanted = instructions(source, filler.env, claim)
    found, result = filler.run(wanted, **more)
    assert (found, result["reason"]) == (code, reason)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_gated_model_is_filled_with_the_token_and_says_it_nowhere(filler: Filler, claim: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.repositories["acme/tiny"].gated = True
    hub.repositories["acme/tiny"].readers = frozenset({TOKEN})
    wanted = instructions(HUB, filler.env | {"HF_TOKEN": TOKEN}, claim)
    assert filler.run(wanted)[1]["reason"] == "SourceGated"
    assert filler.run(wanted, HF_TOKEN=TOKEN)[0] == 0
    assert {(seen.host.partition(":")[0], seen.token) for seen in hub.seen if "/large/" in seen.path} == {("localhost", "")}
    assert SECRET not in "".join(capfd.readouterr())
    assert not [name for name, data in lying(claim).items() if SECRET.encode() in data]


def test_a_claim_that_takes_no_write_is_named(filler: Filler, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, result = filler.run(instructions(HUB, filler.env, tmp_path / "file"))
    assert (code, result["reason"]) == (70, "FillFailed")


@pytest.mark.parametrize("source", [HUB, S3])
def test_a_fill_whose_halves_another_removed_is_tried_again(filler: Filler, claim: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    wanted = instructions(source, filler.env, claim)
    real = filled.Claim.place

    def place(self: filled.Claim, name: str, path: Path) -> None:
        real(self, name, path)
        for folder in claim.glob(".filling-*.*"):
            shutil.rmtree(folder)

    with monkeypatch.context() as patch:
        patch.setattr(filled.Claim, "place", place)
        code, result = filler.run(wanted)
    assert (code, result["reason"]) == (70, "FillFailed")
    code, result = filler.run(wanted)
    assert code == 0
    assert result["filled"]["fetchedBytes"] < wanted["files"]["bytes"], "what was whole was kept"


def test_a_claim_that_is_full_to_the_last_byte_is_named_with_its_numbers(filler: Filler, claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = instructions(HUB, filler.env, claim)

    def mkdir(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(122, "Disk quota exceeded", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        code, result = filler.run(wanted)
    assert (code, result["reason"]) == (70, "DiskFull")
    for text in ("Disk quota exceeded", f"{wanted['files']['bytes']} bytes", "bytes are free", "support-cache"):
        assert text in result["message"]
