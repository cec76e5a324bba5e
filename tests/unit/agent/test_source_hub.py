"""Adapters of a hub, by huggingface_hub itself, from the fake hub that speaks the same API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import certifi
import pytest
from graftwork_agent import source_hub
from graftwork_agent.__main__ import main
from graftwork_agent.adapter_sources import Resolved, download_adapter
from graftwork_store import results
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import (
    CredentialsMissing,
    DigestMismatch,
    FileNotAllowed,
    RevisionNotFound,
    SourceDenied,
    SourceGated,
    SourceInvalid,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
)

from tests.hub.content import File
from tests.hub.running import Running
from tests.hub.server import Hub
from tests.unit.agent.tls import make_authority
from tests.unit.agent.web_source import adapter_bytes
from tests.unit.store.seeds import make_adapter

TOKEN = "hf_s3cr3t"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture
def hub(adapter: Path) -> Hub:
    hub = Hub(tokens={TOKEN: "ann", "hf_other": "bob"})
    files = adapter_bytes(adapter) | {"README.md": b"read me", "optimizer.pt": b"\x80\x02", "runs/events": b"x"}
    hub.add("acme/legal", files)
    hub.add("acme/many", {f"de/v2/{path}": data for path, data in files.items()})
    return hub


def failure(uri: str, to: Path, env: dict[str, str], kind: type[StoreError]) -> str:
    with pytest.raises(kind) as caught:
        download_adapter(uri, to, to.parent / "source.json", env)
    assert type(caught.value) is kind
    assert sorted(path.name for path in to.parent.iterdir()) == [to.name]
    assert "s3cr3t" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("hf://acme/legal", "hf://acme/legal"),
        ("hf://acme/legal/", "hf://acme/legal"),
        ("hf://acme/legal@main", "hf://acme/legal"),
        ("hf://acme/many/de/v2", "hf://acme/many/de/v2"),
        ("hf://acme/many/de/v2@main", "hf://acme/many/de/v2"),
    ],
)
def test_an_adapter_comes_byte_for_byte_with_its_commit(hub: Hub, env: dict[str, str], adapter: Path, tmp_path: Path, uri: str, source: str) -> None:
    resolved = download_adapter(uri, tmp_path / "out", tmp_path / "source.json", env)
    commit = hub.repositories["acme/many" if "many" in uri else "acme/legal"].refs["main"]
    assert resolved == Resolved(source, commit)
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "source.json").read_text()) == {"source": source, "revision": commit}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "source.json"}


def test_only_what_is_allowed_is_asked_for(hub: Hub, env: dict[str, str], tmp_path: Path) -> None:
    download_adapter("hf://acme/legal", tmp_path / "out", None, env)
    assert not [seen for seen in hub.seen if "README" in seen.path or "optimizer" in seen.path]


def test_a_branch_that_moves_during_the_download_does_not_mix_two_commits(
    hub: Hub, env: dict[str, str], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.repositories["acme/legal"].refs["main"]
    newer = make_adapter(tmp_path / "newer", seed=9)
    check = source_hub.check_size

    def push(*arguments: object) -> None:
        hub.add("acme/legal", adapter_bytes(newer))
        check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(source_hub, "check_size", push)
    resolved = download_adapter("hf://acme/legal", tmp_path / "out", None, env)
    assert resolved.revision == first != hub.repositories["acme/legal"].refs["main"]
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", ""])
def test_a_tag_a_pull_request_and_a_commit_can_be_named(hub: Hub, env: dict[str, str], tmp_path: Path, revision: str) -> None:
    other = make_adapter(tmp_path / "other", seed=5)
    sha = hub.add("acme/legal", adapter_bytes(other), revision or "gone")
    resolved = download_adapter(f"hf://acme/legal@{revision or sha}", tmp_path / "out", None, env)
    assert resolved == Resolved("hf://acme/legal", sha)
    assert adapter_digest(tmp_path / "out") == adapter_digest(other)


def test_the_token_opens_what_is_private_or_gated_and_goes_to_the_hub_only(hub: Hub, env: dict[str, str], tmp_path: Path) -> None:
    for access in ({"private": True}, {"private": False, "gated": True}):
        hub.add("acme/legal", {path: file.data for path, file in next(iter(hub.repositories["acme/legal"].commits.values())).items()}, **access)
        hub.repositories["acme/legal"].readers = frozenset({TOKEN})
        hub.seen.clear()
        download_adapter("hf://acme/legal", tmp_path / "out", None, env | {"HF_TOKEN": TOKEN})
        assert {(seen.host.partition(":")[0], seen.token) for seen in hub.seen} == {("127.0.0.1", TOKEN), ("localhost", "")}


@pytest.mark.parametrize(
    ("access", "token", "kind", "messages"),
    [
        ({"gated": True}, "", SourceGated, ["is gated (HTTP 401, no HF_TOKEN in credentialsSecret)", "accept its terms"]),
        ({"gated": True}, "hf_other", SourceGated, ["is gated (HTTP 403, HF_TOKEN of credentialsSecret)", "accept its terms"]),
        ({"private": True}, "", SourceDenied, ["HTTP 401, no HF_TOKEN", "set key HF_TOKEN of credentialsSecret"]),
        ({"private": True}, "hf_other", SourceNotFound, ["no such repository"]),
        ({}, "hf_forged_s3cr3t", SourceDenied, ["HTTP 401, HF_TOKEN of credentialsSecret"]),
    ],
)
def test_what_is_refused_says_whether_a_token_was_there_and_what_to_do(
    hub: Hub, env: dict[str, str], tmp_path: Path, access: dict[str, bool], token: str, kind: type[StoreError], messages: list[str]
) -> None:
    for name, value in access.items():
        setattr(hub.repositories["acme/legal"], name, value)
    found = failure("hf://acme/legal", tmp_path / "out", env | {"HF_TOKEN": token}, kind)
    assert "hf://acme/legal" in found
    for message in messages:
        assert message in found


@pytest.mark.parametrize("access", ["gated", "private"])
def test_a_secret_that_is_not_there_yet_is_waited_for(hub: Hub, env: dict[str, str], tmp_path: Path, access: str) -> None:
    setattr(hub.repositories["acme/legal"], access, True)
    (tmp_path / "pod").mkdir()
    authority = tmp_path / "source" / "ca.crt"
    named = env | {"SOURCE_CA_FILE": str(authority)}
    assert "create it" in failure("hf://acme/legal", tmp_path / "pod" / "out", named, CredentialsMissing)
    assert results.exit_code(results.build("Failed", "CredentialsMissing", "")) == results.EXIT_OTHER, "it is tried again"
    failure("hf://acme/legal", tmp_path / "pod" / "out", named | {"HF_TOKEN": "hf_other"}, SourceGated if access == "gated" else SourceNotFound)
    authority.parent.mkdir()
    authority.write_bytes(Path(certifi.where()).read_bytes())
    failure("hf://acme/legal", tmp_path / "pod" / "out", named, SourceGated if access == "gated" else SourceDenied)


@pytest.mark.parametrize(
    ("uri", "kind", "message"),
    [
        ("hf://acme/legal@nowhere", RevisionNotFound, "no such revision"),
        ("hf://acme/legal@0123456789012345678901234567890123456789", RevisionNotFound, "no such revision"),
        ("hf://acme/nothing", SourceDenied, "does not exist, is private"),
        ("hf://acme/many", SourceNotFound, "nothing lies there"),
        ("hf://acme/many/de", SourceNotFound, "nothing lies there"),
        ("hf://acme/many/fr", SourceNotFound, "nothing lies there"),
    ],
)
def test_what_is_not_there_is_named(env: dict[str, str], tmp_path: Path, uri: str, kind: type[StoreError], message: str) -> None:
    assert message in failure(uri, tmp_path / "out", env, kind)


def test_a_repository_of_pickles_is_refused_with_the_remedy(hub: Hub, env: dict[str, str], adapter: Path, tmp_path: Path) -> None:
    hub.add("acme/old", {"adapter_config.json": (adapter / "adapter_config.json").read_bytes(), "adapter_model.bin": b"\x80\x02"})
    message = failure("hf://acme/old", tmp_path / "out", env, FileNotAllowed)
    assert "adapter_model.bin is a pickle" in message
    assert "safetensors.torch.save_file" in message
    assert not [seen for seen in hub.seen if seen.path.endswith(".bin")]


def test_a_whole_model_is_not_an_adapter(hub: Hub, env: dict[str, str], tmp_path: Path) -> None:
    hub.add("acme/model", {"config.json": b"{}", "model.safetensors": b"x"})
    message = failure("hf://acme/model", tmp_path / "out", env, SourceNotFound)
    assert "no adapter_config.json and no adapter_model.safetensors (found 2 files: config.json, model.safetensors)" in message


def test_more_than_the_limit_is_refused_before_anything_is_downloaded(hub: Hub, env: dict[str, str], tmp_path: Path) -> None:
    assert "limit of an adapter is 100" in failure("hf://acme/legal", tmp_path / "out", env | {"GRAFTWORK_IMPORT_MAX_BYTES": "100"}, SourceInvalid)
    assert not [seen for seen in hub.seen if "/resolve/" in seen.path]


def test_a_large_file_that_is_not_the_listed_one_is_refused(hub: Hub, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = File.sibling

    def lie(self: File, *, blobs: bool) -> dict[str, object]:
        found = real(self, blobs=blobs)
        return found | ({"lfs": {"sha256": "0" * 64, "size": found["size"], "pointerSize": 1}} if "lfs" in found else {})

    monkeypatch.setattr(File, "sibling", lie)
    assert "the hub lists " + "0" * 64 in failure("hf://acme/legal", tmp_path / "out", env, DigestMismatch)


def test_a_hub_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    message = failure("hf://acme/legal", tmp_path / "out", {"HF_ENDPOINT": "http://127.0.0.1:1"}, SourceUnreachable)
    assert "http://127.0.0.1:1" in message
    assert "HF_ENDPOINT" in message


def test_a_hub_behind_an_authority_of_its_own_is_trusted_by_its_certificate(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    authority = make_authority(tmp_path / "tls")
    with Running(hub.app, authority.server) as running:
        env = {"HF_ENDPOINT": running.url}
        assert "ca.crt" in failure("hf://acme/legal", tmp_path / "x" / "out", env, SourceUnreachable)
        download_adapter("hf://acme/legal", tmp_path / "out", None, env | {"SOURCE_CA_FILE": str(authority.ca)})
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://acme",
        "hf://acme/",
        "hf://acme//x",
        "hf://../x",
        "hf://acme/..",
        "hf://acme/legal/../x",
        "hf://acme/legal@",
        "hf://acme/legal@a..b",
        "hf://acme/legal@/x",
        "hf://acme/legal?x",
        "hf://acme/legal#x",
        "hf://acme/le gal",
        "hf://acme/legal/.hidden",
    ],
)
def test_what_is_not_a_source_is_refused_before_anything_is_sent(tmp_path: Path, uri: str) -> None:
    assert "hf://<owner>/<repository>" in (message := failure(uri, tmp_path / "out", {}, SourceInvalid)) or "revision" in message


def test_the_command_never_shows_the_token(
    hub: Hub, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**env, "HF_TOKEN": TOKEN, "GRAFTWORK_TERMINATION_LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)
    arguments = ["download", "--kind", "adapter", "--to", str(tmp_path / "out"), "--facts", str(tmp_path / "f.json")]
    assert main([*arguments, "--source", "hf://acme/legal"]) == 0
    hub.repositories["acme/legal"].gated = True
    assert main([*arguments, "--source", "hf://acme/legal"]) == 65
    assert json.loads((tmp_path / "log").read_text())["reason"] == "SourceGated"
    out = capfd.readouterr()
    assert "s3cr3t" not in out.out + out.err + (tmp_path / "log").read_text()


def test_the_sidecar_never_imports_the_library() -> None:
    code = (
        "import sys, graftwork_agent.serving, graftwork_agent.agent, graftwork_agent.prepare; print([n for n in sys.modules if 'huggingface' in n])"
    )
    found = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert found.stdout.strip() == "[]"
