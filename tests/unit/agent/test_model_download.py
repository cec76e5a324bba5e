"""All files of a model of a hub in a folder, of one commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftwork_agent import model_hub
from graftwork_agent.__main__ import main
from graftwork_agent.model_files import served
from graftwork_agent.model_hub import HubModel
from graftwork_store.errors import DigestMismatch, DiskFull
from graftwork_store.fingerprint import base_fingerprint

from tests.hub.content import File
from tests.hub.server import Hub
from tests.unit.agent.test_inspecting import files_of
from tests.unit.store.seeds import make_base

LEFT_OUT = ("README.md", "pytorch_model.bin", "original/params.json", "consolidated.safetensors", "images/a.png", ".gitattributes", "x.gguf")
KEPT = ("chat_template.jinja", "tokenizer.model", "1_Pooling/config.json", "2_Dense/model.safetensors", "modeling_tiny.py", "merges.txt")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture
def hub(base: Path) -> Hub:
    hub = Hub()
    hub.add("acme/tiny", files_of(base) | {name: name.encode() for name in (*LEFT_OUT, *KEPT)})
    return hub


def test_what_an_engine_needs_comes_and_nothing_else_stays(hub: Hub, env: dict[str, str], base: Path, tmp_path: Path) -> None:
    done = HubModel("hf://acme/tiny", env).download(tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == sorted([*KEPT, *files_of(base)]) == sorted(done.files)
    assert base_fingerprint(tmp_path / "out") == base_fingerprint(base)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {Path(name).parts[0] for name in done.files}, "no folder of the library stays"


def test_weights_that_only_their_maker_names_so_are_kept() -> None:
    assert served(["config.json", "consolidated.safetensors"]) == ["config.json", "consolidated.safetensors"]


def test_the_pinned_commit_is_downloaded_though_the_branch_has_moved(hub: Hub, env: dict[str, str], base: Path, tmp_path: Path) -> None:
    pinned = hub.repositories["acme/tiny"].refs["main"]
    hub.add("acme/tiny", files_of(make_base(tmp_path / "newer", seed=7)))
    HubModel(f"hf://acme/tiny@{pinned}", env).download(tmp_path / "out")
    assert base_fingerprint(tmp_path / "out") == base_fingerprint(base)


def test_a_killed_download_keeps_what_was_whole(hub: Hub, env: dict[str, str], base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    HubModel("hf://acme/tiny", env).download(out)
    (out / "config.json").unlink()
    (out / ".graftwork-hub").mkdir()
    (out / ".graftwork-hub" / "half").write_bytes(b"x")
    hub.seen.clear()
    done = HubModel("hf://acme/tiny", env).download(out)
    assert {seen.path.rpartition("/")[2] for seen in hub.seen if "/resolve/" in seen.path} == {"config.json"}
    assert done.size_bytes - done.kept_bytes == (base / "config.json").stat().st_size
    assert not (out / ".graftwork-hub").exists()


def test_a_file_that_is_not_the_listed_one_gets_no_name(hub: Hub, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = File.sibling

    def lie(self: File, *, blobs: bool) -> dict[str, object]:
        found = real(self, blobs=blobs)
        return found | ({"lfs": {"sha256": "0" * 64, "size": found["size"], "pointerSize": 1}} if self.path == "model.safetensors" else {})

    monkeypatch.setattr(File, "sibling", lie)
    with pytest.raises(DigestMismatch, match=r"model\.safetensors"):
        HubModel("hf://acme/tiny", env).download(tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_volume_without_room_is_named_before_the_first_byte(hub: Hub, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(model_hub.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="10 bytes free"):
        HubModel("hf://acme/tiny", env).download(tmp_path / "out")
    assert not [seen for seen in hub.seen if "/resolve/" in seen.path]


def test_the_command_describes_what_it_brought(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**env, "GRAFTWORK_TERMINATION_LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)
    assert main(["download", "--source", "hf://acme/tiny", "--to", str(tmp_path / "out")]) == 0
    assert "Qwen3ForCausalLM: 2080 parameters" in capsys.readouterr().out
    assert main(["download", "--source", "hf://acme/tiny@gone", "--to", str(tmp_path / "out")]) == 65
    assert json.loads((tmp_path / "log").read_text())["reason"] == "RevisionNotFound"
