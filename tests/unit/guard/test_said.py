"""What an engine that starts, or hangs, says is written down for the agent: at once what matters, seldom what does not, and never a secret."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import entrypoint
import pytest
from entrypoint_cause import Cause

HANGS = "import time; print('INFO 11-21 13:00:00 [x.py:1] Waiting for the other workers', flush=True); time.sleep(60)"
SERVES = (
    "import os, pathlib, sys, time; print('Loading', flush=True); run = pathlib.Path(os.environ['GRAFTWORK_RUN_DIR'])\n"
    "while not (run / 'said').exists(): time.sleep(0.01)\n"
    "(run / 'serving').touch(); print('serving', flush=True)\n"
    "while (run / 'said').exists(): time.sleep(0.01)\n"
    "print('forgotten', flush=True); time.sleep(60)"
)
FAST = "import sys, entrypoint; entrypoint.SAY_SECONDS = 0.05; sys.exit(entrypoint.main(sys.argv[1:], __import__('os').environ))"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """One file, a clock to turn, and an engine to speak for."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.cause, self.path = Clock(), Cause(), folder / "said"
        self.said = entrypoint.Said(self.path, self.clock)

    def after(self, seconds: float, *lines: str) -> str:
        for line in lines:
            self.cause.read(line)
        self.clock.now += seconds
        assert 0 < self.said.tell(self.cause) <= entrypoint.SAY_SECONDS
        return self.path.read_text() if self.path.exists() else ""


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_what_matters_is_written_within_seconds_and_any_other_line_seldom(told: Told) -> None:
    assert told.after(0) == ""
    assert told.after(5) == "", "it has said nothing"
    assert told.after(5, "INFO 11-21 13:00:00 [x.py:1] Loading shards: 1%") == "Loading shards: 1%"
    assert told.after(5, "Loading shards: 2%") == "Loading shards: 1%"
    assert told.after(24, "Loading shards: 90%") == "Loading shards: 1%"
    assert told.after(5, "Loading shards: 99%") == "Loading shards: 99%"
    assert told.after(1, "ValueError: no free port") == "Loading shards: 99%", "the file is looked at every five seconds"
    assert told.after(4) == "ValueError: no free port"
    assert told.after(5, "retrying") == "ValueError: no free port", "a cause is not covered by the lines after it"


def test_the_wait_ends_when_it_is_time_to_write_again(told: Told) -> None:
    told.after(5, "Loading")
    told.clock.now += 2
    assert told.said.tell(told.cause) == 3


def test_it_is_replaced_as_a_whole_and_bounded(told: Told) -> None:
    assert told.after(5, "ValueError: " + "é" * 5000).endswith("…")
    assert len(told.path.read_text()) == 1000
    assert [item.name for item in told.path.parent.iterdir()] == ["said"]
    told.said.forget()
    told.said.forget()
    assert not told.path.exists()


def test_a_folder_that_takes_no_file_does_not_stop_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(tmp_path / "missing")
    assert told.after(5, "ValueError: x") == ""
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "missing").mkdir()
    assert told.after(5) == "ValueError: x", "it is tried again"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("RuntimeError: cannot reach https://user:hunter2@s3.example.com/models", "RuntimeError: cannot reach https://***@s3.example.com/models"),
        ("ValueError: api_key='hunter2hunter2' is no key", "ValueError: api_key='***' is no key"),
        ("ValueError: {'HF_TOKEN': 'hunter2', 'port': 8000}", "ValueError: {'HF_TOKEN': '***', 'port': 8000}"),
        ("ValueError: AWS_SECRET_ACCESS_KEY=hunter2", "ValueError: AWS_SECRET_ACCESS_KEY=***"),
        ("ValueError: Authorization: Bearer hunter2hunter2", "ValueError: Authorization: *** ***"),
        ("OSError: hf_hunter2hunter2 was refused", "OSError: hf_*** was refused"),
        (
            "aiohttp.ClientError: https://s3.example.com/cat.png?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2 answered 403",
            "aiohttp.ClientError: https://s3.example.com/cat.png?*** answered 403",
        ),
        ("ValueError: {'api_key': ['hunter2']}", "ValueError: {'api_key': ['***']}"),
        ("ValueError: passwd=hunter2", "ValueError: passwd=***"),
        (
            "vllm: error: argument --max-num-batched-tokens: invalid int value: 'x'",
            "vllm: error: argument --max-num-batched-tokens: invalid int value: 'x'",
        ),
        ("ValueError: tokenizer: Qwen has max_tokens=5", "ValueError: tokenizer: Qwen has max_tokens=5"),
    ],
)
def test_no_secret_is_written_down_nor_told_at_the_end(told: Told, line: str, shown: str) -> None:
    assert told.after(5, line) == shown
    assert told.cause.describe(1) == f"vLLM ended with exit code 1: {shown}"


def environment(run_dir: Path) -> dict[str, str]:
    log = str(run_dir / "termination-log")
    return {**os.environ, "PYTHONPATH": str(Path(entrypoint.__file__).parent), "GRAFTWORK_RUN_DIR": str(run_dir), "GRAFTWORK_TERMINATION_LOG": log}


def test_a_process_that_hangs_is_quoted_while_it_does(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAST, sys.executable, "-u", "-c", HANGS], env=environment(tmp_path), stdout=subprocess.PIPE
    ) as process:
        said, deadline = tmp_path / "said", time.monotonic() + 20
        while not said.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert said.read_text() == "Waiting for the other workers"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert not said.exists()


def test_what_a_start_said_is_forgotten_when_it_serves(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAST, sys.executable, "-u", "-c", SERVES], env=environment(tmp_path), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"Loading\n", b"serving\n", b"forgotten\n"]
        process.kill()
