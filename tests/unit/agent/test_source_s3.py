"""Adapters below an s3:// prefix, from a real S3 server and from faults that it cannot be made to have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from graftwork_agent.adapter_sources import Resolved, download_adapter
from graftwork_store.clients import s3_client
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import FileNotAllowed, SourceDenied, SourceInvalid, SourceNotFound, StoreError

from tests.unit.agent.web_source import adapter_bytes
from tests.unit.store.gateway import BUCKET, running_gateway
from tests.unit.store.seeds import make_adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture(scope="module")
def s3_env(tmp_path_factory: pytest.TempPathFactory, adapter: Path) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        client = s3_client(BUCKET, "", env)
        files = adapter_bytes(adapter)
        for name, data in {**files, "README.md": b"x", "optimizer.bin": b"x", "checkpoint-1/adapter_model.safetensors": b"other"}.items():
            obstore.put(client, f"in/legal/{name}", data)
        obstore.put(client, "in/legal-2/adapter_config.json", b"{}")
        obstore.put(client, "in/old/adapter_config.json", b"{}")
        obstore.put(client, "in/old/adapter_model.bin", b"\x80")
        yield env


@pytest.mark.parametrize("uri", [f"s3://{BUCKET}/in/legal", f"s3://{BUCKET}/in/legal/"])
def test_the_allowed_objects_at_the_top_come_and_no_others(s3_env: dict[str, str], adapter: Path, tmp_path: Path, uri: str) -> None:
    assert download_adapter(uri, tmp_path / "out", tmp_path / "source.json", s3_env) == Resolved(uri, "")
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("path", "change", "kind", "message"),
    [
        ("bucket/in/nothing", {}, SourceNotFound, "nothing lies there"),
        ("bucket/in/legal-2", {}, SourceNotFound, "no adapter_model.safetensors (found 1 files: adapter_config.json)"),
        ("bucket/in/old", {}, FileNotAllowed, "adapter_model.bin is a pickle"),
        ("nowhere/in/legal", {}, SourceNotFound, "bucket does not exist"),
        ("bucket", {}, SourceInvalid, "must be s3://"),
        ("bucket/in/legal", {"AWS_SECRET_ACCESS_KEY": "wrong"}, SourceDenied, "credentials were refused"),
        ("bucket/in/legal", {"GRAFTWORK_IMPORT_MAX_BYTES": "500"}, SourceInvalid, "the limit of an adapter is 500"),
    ],
)
def test_what_is_wrong_is_named(
    s3_env: dict[str, str], tmp_path: Path, path: str, change: dict[str, str], kind: type[StoreError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        download_adapter(f"s3://{path}", tmp_path / "out", tmp_path / "source.json", s3_env | change)
    assert message in caught.value.message
    assert s3_env["AWS_SECRET_ACCESS_KEY"] not in caught.value.message
    assert not (tmp_path / "source.json").exists()
