"""A crashed agent is started again in its container; a signal ends both; what cannot start is left to the kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from graftwork_agent.supervisor import GIVE_UP_AFTER, HEALTHY_SECONDS, LONGEST_PAUSE_SECONDS, Restarts

RUN = (
    "import sys; from graftwork_agent.supervisor import Restarts, run; sys.exit(run([sys.executable, *sys.argv[1:]], Restarts(pauses=(0.01, 0.02))))"
)


def supervised(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "images" / "agent")}
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_child_that_ends_is_started_again_until_it_is_hopeless() -> None:
    process = supervised("-c", "print('started', flush=True); raise SystemExit(3)")
    out, _ = process.communicate(timeout=60)
    assert out.count("started") == GIVE_UP_AFTER + 1
    assert process.returncode == 3


def test_sigterm_reaches_the_child_and_its_clean_end_is_ours() -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    process = supervised("-c", code)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_the_child_does_not_outlive_its_supervisor() -> None:
    process = supervised("-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()")
    assert process.stdout
    child = os.pidfd_open(int(process.stdout.readline()))
    process.kill()
    process.wait(timeout=30)
    with os.fdopen(child) as handle:
        import select

        assert select.select([handle], [], [], 30)[0], "the child is still there"


@pytest.mark.parametrize(("ends", "pause"), [(1, 0.1), (3, 0.4), (GIVE_UP_AFTER, LONGEST_PAUSE_SECONDS)])
def test_pauses_grow(ends: int, pause: float) -> None:
    restarts = Restarts()
    assert [restarts.after(0) for _ in range(ends)][-1] == pytest.approx(pause)


def test_a_healthy_run_begins_a_new_count() -> None:
    restarts = Restarts()
    for _ in range(GIVE_UP_AFTER):
        restarts.after(0)
    assert restarts.after(HEALTHY_SECONDS) == pytest.approx(0.1)
