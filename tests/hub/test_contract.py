"""The fake hub held against huggingface_hub itself: what the library expects of a hub, this one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import huggingface_hub
from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

from tests.hub.__main__ import load
from tests.hub.running import Running
from tests.hub.server import Hub

WEIGHTS = os.urandom(3 << 20)
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "sub/deep/notes.txt": b"notes",
    "sub/empty.txt": b"",
}


class Server(Running):
    """A running hub."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub.app)
        self.hub = hub


@pytest.fixture
def server() -> Iterator[Server]:
    hub = Hub(tokens={"good": "ann", "other": "bob"})
    with Server(hub) as running:
        hub.files_url = f"http://localhost:{running.port}"  # another host for a client that compares names
        hub.add("acme/tiny", FILES)
        yield running


@pytest.fixture
def api(server: Server) -> HfApi:
    return HfApi(endpoint=server.url, token=False)


def download(server: Server, tmp_path: Path, name: str, path: str, **options: Any) -> Path:
    options = {"token": False, "cache_dir": tmp_path / "cache", **options}
    return Path(hf_hub_download(name, path, endpoint=server.url, **options))


def test_a_snapshot_has_every_file_byte_for_byte_and_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    sha = server.hub.repositories["acme/tiny"].refs["main"]
    for _ in range(2):
        folder = Path(
            snapshot_download(
                "acme/tiny",
                endpoint=server.url,
                token=False,
                cache_dir=tmp_path / "cache",
            )
        )
        assert folder.name == sha
        assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FILES
        sent = len(server.hub.seen)
    snapshot_download(
        "acme/tiny",
        revision=sha,
        endpoint=server.url,
        token=False,
        cache_dir=tmp_path / "cache",
    )
    assert len(server.hub.seen) == sent


def test_a_snapshot_can_be_of_some_files_only(server: Server, tmp_path: Path) -> None:
    folder = Path(
        snapshot_download(
            "acme/tiny",
            endpoint=server.url,
            token=False,
            local_dir=tmp_path / "x",
            allow_patterns=["*.json", "sub/*"],
        )
    )
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert found == {"config.json", "sub/deep/notes.txt", "sub/empty.txt"}


def test_a_file_comes_from_the_revision_that_was_named(server: Server, tmp_path: Path) -> None:
    first = server.hub.repositories["acme/tiny"].refs["main"]
    tag = server.hub.add("acme/tiny", {"config.json": b"tagged"}, "refs/pr/1")
    server.hub.add("acme/tiny", {"config.json": b"newer"})
    read = {name: download(server, tmp_path, "acme/tiny", "config.json", revision=name).read_bytes() for name in ("main", "refs/pr/1", first, tag)}
    assert read == {
        "main": b"newer",
        "refs/pr/1": b"tagged",
        first: b"{}",
        tag: b"tagged",
    }


def test_a_large_file_comes_from_the_other_host_to_which_no_token_is_sent(server: Server, tmp_path: Path) -> None:
    assert download(server, tmp_path, "acme/tiny", "model.safetensors", token="good").read_bytes() == WEIGHTS
    sent = [
        (seen.host.partition(":")[0], seen.token) for seen in server.hub.seen if seen.path.endswith(("model.safetensors",)) or "/large/" in seen.path
    ]
    assert ("localhost", "") in sent
    assert {token for host, token in sent if host == "127.0.0.1"} == {"good"}
    assert {token for host, token in sent if host == "localhost"} == {""}


def test_a_file_without_a_redirect_has_size_and_commit_in_its_head(
    server: Server,
) -> None:
    server.hub.files_url = ""
    for path, etag in (("config.json", "blob"), ("model.safetensors", "sha256")):
        sha = server.hub.repositories["acme/tiny"].refs["main"]
        found = huggingface_hub.get_hf_file_metadata(f"{server.url}/acme/tiny/resolve/main/{path}", token=False)
        file = server.hub.repositories["acme/tiny"].commits[sha][path]
        assert (found.commit_hash, found.size, found.etag) == (
            sha,
            len(file.data),
            getattr(file, etag),
        )


def test_the_facts_of_a_model_have_the_commit_and_each_file_with_its_size_and_hash(api: HfApi, server: Server) -> None:
    info = api.model_info("acme/tiny", files_metadata=True)
    files = server.hub.repositories["acme/tiny"].commits[str(info.sha)]
    assert {item.rfilename: item.size for item in info.siblings or []} == {path: len(data) for path, data in FILES.items()}
    weights = next(item for item in info.siblings or [] if item.rfilename == "model.safetensors")
    assert weights.lfs is not None
    assert (weights.lfs.sha256, weights.blob_id) == (
        files["model.safetensors"].sha256,
        files["model.safetensors"].blob,
    )
    assert api.model_info("acme/tiny", revision=str(info.sha)).sha == info.sha


def test_a_tree_comes_in_pages_and_folder_by_folder(api: HfApi, server: Server) -> None:
    server.hub.page_entries = 2
    assert {item.path for item in api.list_repo_tree("acme/tiny", recursive=True)} == {
        *FILES,
        "sub",
        "sub/deep",
    }
    assert {item.path for item in api.list_repo_tree("acme/tiny")} == {
        "config.json",
        "model.safetensors",
        "sub",
    }
    assert {item.path for item in api.list_repo_tree("acme/tiny", "sub")} == {
        "sub/empty.txt",
        "sub/deep",
    }
    assert set(api.list_repo_files("acme/tiny")) == set(FILES)
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("acme/tiny", "nowhere"))


def test_paths_are_told_in_one_request(api: HfApi) -> None:
    assert [item.path for item in api.get_paths_info("acme/tiny", ["config.json", "nothing.txt"])] == ["config.json"]
    assert api.file_exists("acme/tiny", "sub/empty.txt")
    assert not api.file_exists("acme/tiny", "nothing.txt")
    assert [ref.name for ref in api.list_repo_refs("acme/tiny").branches] == ["main"]


def test_a_revision_or_file_that_is_not_there_is_named_so(api: HfApi, server: Server, tmp_path: Path) -> None:
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info("acme/tiny", revision="nowhere")
    with pytest.raises(errors.RevisionNotFoundError):
        download(server, tmp_path, "acme/tiny", "config.json", revision="nowhere")
    with pytest.raises(errors.EntryNotFoundError):
        download(server, tmp_path, "acme/tiny", "nothing.txt")


def test_a_repository_that_is_not_there_is_a_401_without_a_token_and_not_found_with_one(api: HfApi, server: Server) -> None:
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.model_info("acme/nothing")
    assert caught.value.response.status_code == 401
    with pytest.raises(errors.RepositoryNotFoundError) as missing:
        HfApi(endpoint=server.url, token="good").model_info("acme/nothing")
    assert missing.value.response.status_code == 404


def test_a_private_repository_exists_for_its_readers_only(server: Server, tmp_path: Path) -> None:
    server.hub.add("acme/private", {"config.json": b"p"}, private=True, readers=["good"])
    assert download(server, tmp_path, "acme/private", "config.json", token="good").read_bytes() == b"p"
    with pytest.raises(errors.RepositoryNotFoundError):
        HfApi(endpoint=server.url, token="other").model_info("acme/private")


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("other", 403)])
def test_a_gated_repository_shows_its_facts_and_keeps_its_files(server: Server, tmp_path: Path, token: Any, status: int) -> None:
    server.hub.add("acme/gated", {"config.json": b"g"}, gated=True, readers=["good"])
    assert HfApi(endpoint=server.url, token=token).model_info("acme/gated").gated == "manual"
    with pytest.raises(errors.GatedRepoError) as caught:
        download(server, tmp_path, "acme/gated", "config.json", token=token)
    assert caught.value.response.status_code == status
    with pytest.raises(errors.GatedRepoError):
        HfApi(endpoint=server.url, token=token).auth_check("acme/gated")
    assert download(server, tmp_path, "acme/gated", "config.json", token="good").read_bytes() == b"g"


def test_a_token_is_checked(server: Server) -> None:
    assert HfApi(endpoint=server.url, token="good").whoami()["name"] == "ann"
    with pytest.raises(errors.HfHubHTTPError) as caught:
        HfApi(endpoint=server.url, token="forged").model_info("acme/tiny")
    assert caught.value.response.status_code == 401
    with pytest.raises(errors.HfHubHTTPError):
        HfApi(endpoint=server.url, token="forged").whoami()


def test_a_repository_that_moved_is_followed(server: Server, tmp_path: Path) -> None:
    server.hub.moved["old/name"] = "acme/tiny"
    assert HfApi(endpoint=server.url, token=False).model_info("old/name").id == "acme/tiny"
    assert download(server, tmp_path, "old/name", "config.json").read_bytes() == b"{}"


def test_a_part_of_a_file_can_be_asked_for(server: Server) -> None:
    session = huggingface_hub.get_session()
    url = f"{server.url}/acme/tiny/resolve/main/model.safetensors"
    answer = session.get(url, headers={"Range": "bytes=100-199"}, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, WEIGHTS[100:200])
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(WEIGHTS)}"
    assert session.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}, follow_redirects=True).status_code == 416


def test_a_hub_is_loaded_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "acme" / "legal"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("a")
    (folder / ".hub.json").write_text('{"gated": true, "readers": ["t"]}')
    hub = load(tmp_path, ["t=ann"])
    found = hub.repositories["acme/legal"]
    assert (
        set(found.commits[found.refs["main"]]),
        found.gated,
        found.readers,
        hub.tokens,
    ) == ({"sub/a.txt"}, True, frozenset({"t"}), {"t": "ann"})
