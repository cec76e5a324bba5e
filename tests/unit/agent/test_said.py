"""What the engine says while it starts comes through the agent's status, and goes when it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftwork_agent.said import read_said

from tests.unit.agent.pod import Pod
from tests.unit.agent.stub_engine import StubEngine


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, ""),
        (b"", ""),
        (b" \n", ""),
        (b"ValueError: x\n", "ValueError: x"),
        (b"one\x1b[31m\n\ntwo\x00three", "one [31m two three"),
        (b"\xff\xfe", "��"),
        ("é".encode() * 5000, "é" * 1000),
        (b"x" * 10_000_000, "x" * 1000),
    ],
)
def test_whatever_lies_there_is_one_bounded_line_of_text(tmp_path: Path, data: bytes | None, text: str) -> None:
    if data is not None:
        (tmp_path / "said").write_bytes(data)
    assert read_said(tmp_path) == text


def test_a_folder_in_its_place_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "said").mkdir()
    assert read_said(tmp_path) == ""


async def test_the_status_has_it_while_the_engine_starts(pod: Pod, engine: StubEngine) -> None:
    said = pod.root / "run" / "said"
    async with pod.serve(engine_url="http://127.0.0.1:9") as seen:
        await seen.until(lambda: seen.status.get("engine", {}).get("state") == "Starting")
        assert "said" not in seen.status["engine"]
        said.write_text("ValueError: no free port")
        await seen.until(lambda: seen.status["engine"].get("said") == "ValueError: no free port")
        said.unlink()
        await seen.until(lambda: "said" not in seen.status["engine"])


async def test_an_engine_that_serves_has_said_nothing(pod: Pod, engine: StubEngine) -> None:
    (pod.root / "run" / "said").write_text("Loading")
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("engine", {}).get("state") == "Serving")
        assert "said" not in seen.status["engine"]
