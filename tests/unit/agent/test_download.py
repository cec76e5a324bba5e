from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import obstore
import pytest
from graftwork_agent.__main__ import main
from graftwork_agent.downloading import progress_lines
from graftwork_store.clients import s3_client

from tests.unit.agent.pod import SCHEMAS
from tests.unit.agent.test_inspecting import files_of
from tests.unit.store.gateway import BUCKET, running_gateway
from tests.unit.store.seeds import make_base

RESULT_SCHEMA = json.loads((SCHEMAS / "result.schema.json").read_text())


@pytest.fixture(scope="module")
def s3_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        base = make_base(tmp_path_factory.mktemp("base") / "m")
        client = s3_client(BUCKET, "", env)
        for name in ("config.json", "model.safetensors"):
            obstore.put(client, f"models/tiny/{name}", base / name)
        obstore.put(client, "models/broken/config.json", base / "config.json")
        obstore.put(client, "models/broken/notes.txt", b"no weights")
        obstore.put(client, "data/tickets.jsonl", b'{"text": "a"}\n')
        yield env


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_env: dict[str, str]) -> Path:
    for name, value in s3_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_a_model_is_downloaded_and_described(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--source", f"s3://{BUCKET}/models/tiny", "--to", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "Qwen3ForCausalLM: 2080 parameters" in out
    assert "2 files" in out
    assert not log.exists()


def inspected(log: Path, source: str) -> str:
    """Return the digest of a source's listing, as its inspection gives it."""
    assert main(["inspect", "--source", source]) == 0
    return str(json.loads(log.read_bytes())["files"]["digest"])


def test_the_files_that_were_inspected_come_and_others_are_refused(tmp_path: Path, log: Path, s3_env: dict[str, str]) -> None:
    client, source, out = s3_client(BUCKET, "", s3_env), f"s3://{BUCKET}/models/moving", tmp_path / "out"
    for name, data in files_of(make_base(tmp_path / "first")).items():
        obstore.put(client, f"models/moving/{name}", data)
    digest = inspected(log, source)
    download = ["download", "--source", source, "--to", str(out), "--digest", digest]
    assert main(download) == 0
    before = files_of(out)
    assert before == files_of(tmp_path / "first")
    obstore.put(client, "models/moving/model.safetensors", (make_base(tmp_path / "second", seed=7) / "model.safetensors").read_bytes())
    (out / "config.json").unlink()  # a restarted pod would fetch this one, and mix two models
    assert main(download) == 65
    result = json.loads(log.read_bytes())
    jsonschema.validate(result, RESULT_SCHEMA)
    assert result["reason"] == "SourceChanged"
    assert "graftwork.dev/refresh" in result["message"]
    assert files_of(out) == {name: data for name, data in before.items() if name != "config.json"}
    os.utime(out / "model.safetensors", (0, 0))  # buckets tell times in whole seconds, and both models were put within one
    assert main([*download[:-1], inspected(log, source)]) == 0
    assert files_of(out) == files_of(tmp_path / "first") | {"model.safetensors": (tmp_path / "second/model.safetensors").read_bytes()}


def test_a_data_set_is_downloaded(tmp_path: Path, log: Path) -> None:
    assert main(["download", "--source", f"s3://{BUCKET}/data/tickets.jsonl", "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tickets.jsonl").is_file()


@pytest.mark.parametrize(
    ("source", "reason", "code"),
    [
        ("s3://bucket/nothing", "SourceNotFound", 65),
        ("s3://nowhere/x", "SourceNotFound", 65),
        ("ftp://org/model", "SourceInvalid", 65),
        ("s3://bucket/models/broken", "ModelInvalid", 65),
        ("s3://bucket/models", "ModelInvalid", 65),
    ],
)
def test_a_failure_ends_with_a_termination_message(tmp_path: Path, log: Path, source: str, reason: str, code: int) -> None:
    assert main(["download", "--source", source, "--to", str(tmp_path / "out")]) == code
    body = json.loads(log.read_bytes())
    jsonschema.validate(body, RESULT_SCHEMA)
    assert (body["outcome"], body["reason"]) == ("Failed", reason)
    assert source in body["message"] or str(tmp_path / "out") in body["message"]


def test_refused_credentials_are_not_retried(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert main(["download", "--source", "s3://bucket/models/tiny", "--to", str(tmp_path / "out")]) == 65
    assert json.loads(log.read_bytes())["reason"] == "SourceDenied"


def test_progress_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    show = progress_lines(lambda: now)
    for second in range(12):
        now = float(second)
        show(second, 100)
    show(100, 100)
    assert capsys.readouterr().out.splitlines() == ["5 of 100 bytes (5 %)", "10 of 100 bytes (10 %)", "100 of 100 bytes (100 %)"]
