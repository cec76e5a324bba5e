"""Adapters behind https://: folders and archives, from servers as they are."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from graftwork_agent import backoff, source_https
from graftwork_agent.__main__ import main
from graftwork_agent.adapter_sources import Resolved, download_adapter
from graftwork_agent.trust import ssl_context
from graftwork_store.clients import own_authority, s3_client
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import (
    CredentialsMissing,
    DiskFull,
    FileNotAllowed,
    SourceDenied,
    SourceInvalid,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
)

from tests.hub.running import Running
from tests.unit.agent.tls import Authority, make_authority
from tests.unit.agent.web_source import Site, adapter_bytes, make_tar, make_zip
from tests.unit.store.seeds import make_adapter

SECRET = "Bearer s3cr3t"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_adapter(tmp_path_factory.mktemp("adapter") / "a")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def site(adapter: Path) -> Site:
    files = adapter_bytes(adapter)
    return Site(files={**{f"/legal/{name}": data for name, data in files.items()}, "/legal.tar.gz": make_tar(files), "/legal.zip": make_zip(files)})


@pytest.fixture
def url(site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)
    with Running(site.app, authority.server) as running:
        yield running.url


@pytest.fixture
def env(authority: Authority) -> dict[str, str]:
    return {"SOURCE_CA_FILE": str(authority.ca)}


def failure(uri: str, to: Path, env: dict[str, str], kind: type[StoreError]) -> str:
    with pytest.raises(kind) as caught:
        download_adapter(uri, to, to.parent / "source.json", env)
    assert type(caught.value) is kind
    assert not (to.parent / "source.json").exists()
    assert sorted(path.name for path in to.parent.iterdir() if path.name.startswith(".")) == []
    return caught.value.message


@pytest.mark.parametrize("name", ["legal/", "legal.tar.gz", "legal.zip"])
def test_an_adapter_comes_byte_for_byte(url: str, env: dict[str, str], adapter: Path, tmp_path: Path, name: str) -> None:
    resolved = download_adapter(f"{url}/{name}", tmp_path / "out", tmp_path / "source.json", env)
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in adapter.iterdir())
    assert resolved == Resolved(f"{url}/{name}", "" if name.endswith("/") else "v1")
    assert json.loads((tmp_path / "source.json").read_text()) == {"source": resolved.source, "revision": resolved.revision}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source.json"]


def test_a_server_that_forbids_what_is_not_there_has_no_optional_files(
    url: str, site: Site, env: dict[str, str], adapter: Path, tmp_path: Path
) -> None:
    site.absent_status = 403
    download_adapter(f"{url}/legal/", tmp_path / "out", None, env)
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_required_file_that_is_forbidden_is_denied(url: str, site: Site, env: dict[str, str], tmp_path: Path, name: str) -> None:
    site.absent_status = 403
    del site.files[f"/legal/{name}"]
    with pytest.raises(SourceDenied, match=rf"{name}: refused \(HTTP 403"):
        download_adapter(f"{url}/legal/", tmp_path / "out", None, env)


def test_credentials_that_end_in_between_are_no_absence(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    site.faults = {"/legal/tokenizer.json": [lambda: web.Response(status=401)]}
    assert "HTTP 401" in failure(f"{url}/legal/", tmp_path / "out", env, SourceDenied)


def test_what_an_earlier_attempt_left_is_gone(url: str, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "merges.txt").write_text("old")
    download_adapter(f"{url}/legal/", tmp_path / "out", None, env)
    assert "merges.txt" not in {path.name for path in (tmp_path / "out").iterdir()}


def test_the_command_says_what_it_did(
    url: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_CA_FILE", env["SOURCE_CA_FILE"])
    monkeypatch.setenv("AUTHORIZATION", SECRET)
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    arguments = ["download", "--kind", "adapter", "--to", str(tmp_path / "out"), "--facts", str(tmp_path / "f.json")]
    assert main([*arguments, "--source", f"{url}/legal/"]) == 0
    assert main([*arguments, "--source", f"{url}/nothing/"]) == 65
    assert json.loads((tmp_path / "log").read_text())["reason"] == "SourceNotFound"
    out = capsys.readouterr()
    assert f"{url}/legal/ : 3 files" in out.out
    assert "s3cr3t" not in out.out + out.err + (tmp_path / "log").read_text()


def test_a_server_whose_authority_nobody_knows_is_not_believed(url: str, tmp_path: Path) -> None:
    message = failure(f"{url}/legal/", tmp_path / "out", {}, SourceUnreachable)
    assert "not trusted" in message
    assert "ca.crt" in message


def test_a_file_of_authorities_that_is_none_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    assert "ca.crt of credentialsSecret" in failure(
        f"{url}/legal/", tmp_path / "x" / "out", {"SOURCE_CA_FILE": str(tmp_path / "ca.crt")}, SourceInvalid
    )


def test_the_password_is_sent_and_asked_for(url: str, site: Site, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.password = SECRET
    assert "has no key AUTHORIZATION" in failure(f"{url}/legal.zip", tmp_path / "out", env, SourceDenied)
    with monkeypatch.context() as without_secret:  # whose ca.crt would be missing, too, and this server needs it
        without_secret.setattr(source_https, "secret_is_missing", lambda env, key: key == "AUTHORIZATION")
        assert "create it" in failure(f"{url}/legal.zip", tmp_path / "out", env, CredentialsMissing)
    message = failure(f"{url}/legal.zip", tmp_path / "out", env | {"AUTHORIZATION": "Bearer wr0ng"}, SourceDenied)
    assert "AUTHORIZATION of credentialsSecret was sent" in message
    assert "wr0ng" not in message
    download_adapter(f"{url}/legal.zip", tmp_path / "out", None, env | {"AUTHORIZATION": SECRET})


def test_the_password_goes_to_no_other_host(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    other = url.replace("127.0.0.1", "localhost")
    site.redirects = {"/moved.zip": "/here.zip", "/here.zip": f"{other}/there.zip", "/there.zip": f"{other}/legal.zip"}
    site.password, site.open_paths = SECRET, ("/there.zip", "/legal.zip")
    download_adapter(f"{url}/moved.zip", tmp_path / "out", None, env | {"AUTHORIZATION": SECRET})
    assert site.seen == [
        ("127.0.0.1", "/moved.zip", SECRET),
        ("127.0.0.1", "/here.zip", SECRET),
        ("localhost", "/there.zip", ""),
        ("localhost", "/legal.zip", ""),
    ]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://127.0.0.1/legal.zip?signature=s3cr3t", "redirects to 'http://127.0.0.1/legal.zip', which is not https"),
        ("https://u:s3cr3t@127.0.0.1/legal.zip", "redirects to 'https://127.0.0.1/legal.zip'"),
        ("file:///etc/passwd", "redirects to"),
        ("/round.zip", "more than 5 redirects"),
        ("", "redirects"),
    ],
)
def test_a_redirect_that_leads_nowhere_good_is_not_followed(
    url: str, site: Site, env: dict[str, str], tmp_path: Path, location: str, message: str
) -> None:
    site.redirects = {"/round.zip": location}
    found = failure(f"{url}/round.zip", tmp_path / "out", env, SourceInvalid)
    assert message in found
    assert "s3cr3t" not in found


def test_a_fault_that_passes_is_tried_again(url: str, site: Site, env: dict[str, str], adapter: Path, tmp_path: Path) -> None:
    site.faults = {"/legal/adapter_model.safetensors": [lambda: web.Response(status=503), lambda: web.Response(status=429)]}
    download_adapter(f"{url}/legal/", tmp_path / "out", None, env)
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)


def test_a_fault_that_stays_is_unreachable(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    site.faults = {"/legal.zip": [lambda: web.Response(status=500)] * 9}
    assert "HTTP 500" in failure(f"{url}/legal.zip", tmp_path / "out", env, SourceUnreachable)
    assert len(site.faults["/legal.zip"]) == 5
    assert "does not answer" in failure("https://127.0.0.1:1/legal.zip", tmp_path / "out", env, SourceUnreachable)


class Broken(web.StreamResponse):
    """An answer that ends before its length."""

    def __init__(self) -> None:
        super().__init__(headers={"Content-Length": "1000000"})

    async def write_eof(self, data: bytes = b"") -> None:
        assert self._payload_writer is not None
        await self.write(b"half")
        assert self._req is not None
        assert self._req.transport is not None
        self._req.transport.close()


def test_a_download_that_breaks_off_is_made_again_from_the_start(url: str, site: Site, env: dict[str, str], adapter: Path, tmp_path: Path) -> None:
    site.faults = {"/legal/adapter_model.safetensors": [Broken]}
    download_adapter(f"{url}/legal/", tmp_path / "out", None, env)
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)
    site.faults = {"/legal.zip": [Broken] * 9}
    assert "broke off" in failure(f"{url}/legal.zip", tmp_path / "out", env, SourceUnreachable)


@pytest.mark.parametrize(
    ("remove", "add", "kind", "message"),
    [
        ("adapter_config.json", "", SourceNotFound, "adapter_config.json: nothing lies there (HTTP 404)"),
        ("adapter_model.safetensors", "", SourceNotFound, "no adapter_model.safetensors"),
        ("adapter_model.safetensors", "adapter_model.bin", FileNotAllowed, "adapter_model.bin is a pickle"),
    ],
)
def test_a_folder_that_lacks_something_says_what(
    url: str, site: Site, env: dict[str, str], tmp_path: Path, remove: str, add: str, kind: type[StoreError], message: str
) -> None:
    del site.files[f"/legal/{remove}"]
    if add:
        site.files[f"/legal/{add}"] = b"\x80\x02"
    assert message in failure(f"{url}/legal/", tmp_path / "out", env, kind)


def test_a_web_page_is_not_a_file(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    site.faults = {"/legal/tokenizer.json": [lambda: web.Response(text="<html>log in</html>", content_type="text/html")]}
    download_adapter(f"{url}/legal/", tmp_path / "out", None, env)
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    site.faults = {"/legal/adapter_config.json": [lambda: web.Response(text="<html>log in</html>", content_type="text/html")]}
    assert "a web page instead" in failure(f"{url}/legal/", tmp_path / "out", env, SourceNotFound)


def test_what_was_compressed_on_the_way_is_not_taken_for_the_file(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    site.headers = {"Content-Encoding": "br"}
    assert "is sent compressed (br)" in failure(f"{url}/legal/", tmp_path / "out", env, SourceInvalid)


@pytest.mark.parametrize("name", ["legal/", "legal.tar.gz", "legal.zip"])
def test_more_than_the_limit_is_refused_with_both_numbers(url: str, env: dict[str, str], tmp_path: Path, name: str) -> None:
    message = failure(f"{url}/{name}", tmp_path / "out", env | {"GRAFTWORK_IMPORT_MAX_BYTES": "700"}, SourceInvalid)
    assert "the limit of an adapter is 700" in message
    assert "GRAFTWORK_IMPORT_MAX_BYTES" in message


def test_an_endless_answer_is_cut_at_the_limit(url: str, site: Site, env: dict[str, str], tmp_path: Path) -> None:
    class Endless(web.StreamResponse):
        async def write_eof(self, data: bytes = b"") -> None:
            for _ in range(1000):
                await self.write(b"x" * 65536)

    site.faults = {"/legal.zip": [Endless]}
    assert "bytes or more" in failure(f"{url}/legal.zip", tmp_path / "out", env | {"GRAFTWORK_IMPORT_MAX_BYTES": "1000000"}, SourceInvalid)


def test_a_volume_without_room_is_told_first(url: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert "10 bytes free" in failure(f"{url}/legal.zip", tmp_path / "out", env, DiskFull)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://", "must be https"),
        ("https:///x/", "must be https"),
        ("http://h/x/", "must be s3://"),
        ("ftp://h/x/", "must be s3://"),
        ("", "must be s3://"),
        ("store://ml/a/000000000000", "store:// sources need no import"),
        ("https://h/legal", "must end with / (a folder)"),
        ("https://h/legal.rar", "must end with / (a folder)"),
        ("https://u:s3cr3t@h/legal/", "must have no user"),
        ("https://h/legal.zip?sig=s3cr3t", "must have no user, query"),
        ("https://h/legal/#s3cr3t", "must have no user, query"),
        ("https://h:99999999/legal/", "not a URL"),
    ],
)
def test_what_is_not_a_source_is_refused_before_anything_is_sent(tmp_path: Path, uri: str, message: str) -> None:
    found = failure(uri, tmp_path / "out", {}, SourceInvalid)
    assert message in found
    assert "s3cr3t" not in found


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1e9"])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, limit: str) -> None:
    assert "must be a whole number" in failure("https://h/x/", tmp_path / "out", {"GRAFTWORK_IMPORT_MAX_BYTES": limit}, SourceInvalid)


def test_no_secret_is_in_what_is_shown_of_a_url() -> None:
    from graftwork_agent.source_https import _plain

    shown: list[Any] = [_plain(text) for text in ("https://u:p@h/x?y#z", "/x?y", "https://h", "")]
    assert shown == ["https://h/x", "/x", "https://h", ""]


def test_a_secret_without_an_authority_leaves_it_at_the_systems(tmp_path: Path) -> None:
    """The operator names the file whether or not the Secret has it: it may not read Secrets, so it cannot know."""
    env = {"SOURCE_CA_FILE": str(tmp_path / "absent" / "ca.crt"), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert ssl_context(env).verify_mode is ssl.CERT_REQUIRED
    assert own_authority(env) == b""
    s3_client("data", "", env)
