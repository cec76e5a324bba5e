"""A fill in a process of its own: killed at any byte it goes on where it was, and it needs little memory."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import obstore
import pytest
from graftwork_store.clients import s3_client

from tests.hub.server import Hub
from tests.unit.agent.filler import Filler, Wire, instructions, lying, model_of, wire
from tests.unit.agent.pod import SCHEMAS
from tests.unit.store.gateway import BUCKET, running_gateway

SHARDS = {f"model-{number:05}-of-00006.safetensors": random.Random(number).randbytes(300_000) for number in range(1, 7)}
FILES = {"config.json": b'{"architectures": ["X"]}', "1_Pooling/config.json": b"{}", **SHARDS}
PROGRESS_SCHEMA = json.loads((SCHEMAS / "fill-progress.schema.json").read_text())
LARGE_BYTES = 192 << 20
MEASURED = "import sys; from graftwork_agent.filling import main; code = main(); print(open('/proc/self/status').read()); sys.exit(code)"
CUTS = [0.05, 0.35, 0.65, 0.95]
SOURCES = ["hf://acme/sharded", f"s3://{BUCKET}/sharded"]


@pytest.fixture
def hub() -> Hub:
    hub = Hub()
    hub.add("acme/sharded", FILES)
    return hub


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        client = s3_client(BUCKET, "", env)
        for name, data in FILES.items():
            obstore.put(client, f"sharded/{name}", data)
        yield env


@pytest.fixture
def filler(env: dict[str, str], gateway: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filler:
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    return Filler(env | gateway, tmp_path / "log")


@pytest.fixture
def wired(filler: Filler, hub: Hub) -> Iterator[tuple[Filler, Wire, Wire]]:
    """The same sources at the other ends of wires: the hub's and the bucket's."""
    ports = [urlsplit(filler.env[name]).port or 0 for name in ("HF_ENDPOINT", "AWS_ENDPOINT_URL")]
    with wire(ports[0]) as first, wire(ports[1]) as second:
        hub.files_url = f"http://localhost:{first.port}"
        ends = {"HF_ENDPOINT": f"http://127.0.0.1:{first.port}", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{second.port}"}
        yield replace(filler, env=filler.env | ends), first, second


def cut_down(wired: tuple[Filler, Wire, Wire], wanted: dict[str, object], at: int, how: Callable[[subprocess.Popen[bytes]], None]) -> int:
    """Fill in a process to which `how` happens when the source has sent so many bytes; returns its exit status."""
    filler, *wires = wired
    process: list[subprocess.Popen[bytes]] = []
    for found in wires:
        found.cut_at, found.at_byte, found.sent = at, lambda: how(process[0]), 0
    with filler.start(wanted) as started:
        process.append(started)
        return started.wait(60)


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_fill_that_is_killed_at_any_byte_keeps_its_whole_files(
    wired: tuple[Filler, Wire, Wire], hub: Hub, tmp_path: Path, source: str, share: float
) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    wanted = instructions(source, wired[0].env, claim)
    at = int(wanted["files"]["bytes"] * (share + random.uniform(-0.05, 0.05)))
    assert cut_down(wired, wanted, at, lambda process: process.kill()) == -signal.SIGKILL, f"cut at byte {at}"
    assert not (claim / "models").exists()
    prefix = f".filling-{wanted['key']}/"
    whole = {name.removeprefix(prefix): data for name, data in lying(claim).items() if name.startswith(prefix)}
    assert whole == {name: FILES[name] for name in whole}, f"what has a name is whole, cut at byte {at}"
    hub.seen.clear()
    code, result = wired[0].run(wanted)
    assert (code, model_of(claim, wanted["key"])) == (0, FILES)
    assert result["filled"]["fetchedBytes"] == sum(len(data) for name, data in FILES.items() if name not in whole)
    asked = {seen.path.partition("/resolve/")[2].partition("/")[2] for seen in hub.seen if "/resolve/" in seen.path}
    assert asked == (set(FILES) - set(whole) if source.startswith("hf:") else set())
    assert sorted(path.name for path in claim.iterdir()) == ["compile", "models"], "no half is left"


def test_a_fill_that_is_cut_late_has_something_to_keep(wired: tuple[Filler, Wire, Wire], tmp_path: Path) -> None:
    wanted = instructions(SOURCES[0], wired[0].env, tmp_path)
    cut_down(wired, wanted, int(wanted["files"]["bytes"] * 0.95), lambda process: process.kill())
    assert any(name.startswith(".filling-") and name.endswith(".safetensors") for name in lying(tmp_path))


@pytest.mark.parametrize("at", [1_000, 400_000, 1_000_000, 1_750_000])
@pytest.mark.parametrize("source", SOURCES)
def test_a_fill_that_another_overtakes_ends_with_the_same_model(wired: tuple[Filler, Wire, Wire], tmp_path: Path, source: str, at: int) -> None:
    filler, *_ = wired
    claim = tmp_path / "claim"
    wanted = instructions(source, filler.env, claim)
    codes: list[int] = []
    assert cut_down(wired, wanted, at, lambda _: codes.append(filler.run(wanted)[0])) == 0
    assert (codes, model_of(claim, wanted["key"])) == ([0], FILES)
    assert sorted(path.name for path in claim.iterdir()) == ["compile", "models"]


def test_a_fill_ends_at_once_when_its_pod_is_to_end(wired: tuple[Filler, Wire, Wire], tmp_path: Path) -> None:
    wanted = instructions(SOURCES[0], wired[0].env, tmp_path)
    assert cut_down(wired, wanted, 500_000, lambda process: process.terminate()) == 128 + signal.SIGTERM


@pytest.mark.parametrize("source", SOURCES)
def test_progress_is_told_while_bytes_come_and_a_second_fill_asks_for_none(wired: tuple[Filler, Wire, Wire], tmp_path: Path, source: str) -> None:
    filler, *wires = wired
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    wanted = instructions(source, filler.env, tmp_path, progressPort=port)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(60)

    for found in wires:
        found.cut_at, found.at_byte, found.sent = 1_000_000, hold, 0
    with filler.start(wanted) as process:
        assert held.wait(60)
        seen = [_progress(port, "")]
        while not seen[-1]["bytesDone"]:
            seen.append(_progress(port, seen[-1]["version"]))
        go_on.set()
        assert process.wait(60) == 0
    assert (seen[-1]["key"], seen[-1]["phase"], seen[-1]["bytesTotal"]) == (wanted["key"], "Downloading", wanted["files"]["bytes"])
    assert 0 < seen[-1]["bytesDone"] < wanted["files"]["bytes"]
    sent = [found.sent for found in wires]
    assert filler.run(wanted)[1]["filled"]["fetchedBytes"] == 0
    assert [found.sent for found in wires] == sent


def _progress(port: int, since: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress?since={since}&wait=30", timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    jsonschema.validate(found, PROGRESS_SCHEMA)
    return found


@pytest.mark.parametrize("source", ["hf://acme/large", f"s3://{BUCKET}/large"])
def test_a_fill_needs_little_memory_however_large_the_files_are(
    filler: Filler, hub: Hub, gateway: dict[str, str], tmp_path: Path, source: str
) -> None:
    files = {"config.json": b"{}", "model.safetensors": bytes(LARGE_BYTES)}
    if source.startswith("hf:"):
        hub.add("acme/large", files)
    else:
        for name, data in files.items():
            obstore.put(s3_client(BUCKET, "", gateway), f"large/{name}", data)
    wanted = instructions(source, filler.env, tmp_path)
    with filler.start(wanted, program=MEASURED) as process:
        assert process.stdout is not None
        peak_bytes = int(process.stdout.read().rpartition(b"VmHWM:")[2].split()[0]) << 10
    assert process.returncode == 0
    assert filler.result()["filled"]["fetchedBytes"] == LARGE_BYTES + 2
    assert (tmp_path / "models" / wanted["key"]).stat().st_mode & 0o777 == 0o775, "another user of the group may remove it"
    assert peak_bytes < LARGE_BYTES * 3 // 4
