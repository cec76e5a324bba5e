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


def supervised(*arguments: str, run: str = RUN, flags: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "images" / "agent")}
    command = [sys.executable, *flags, "-c", run, *arguments]
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


def test_a_signal_while_it_waits_for_the_next_start_ends_it_at_once() -> None:
    code = RUN.replace("(0.01, 0.02)", "(60, 60)")
    process = supervised("-c", "print('started', flush=True); raise SystemExit(3)", run=code)
    assert process.stderr
    assert "starting it again in 60.0 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.count("started") == 1


def test_a_command_that_cannot_be_started_is_named() -> None:
    code = RUN.replace("[sys.executable, *sys.argv[1:]]", "['/no/such/python']")
    process = supervised(run=code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "/no/such/python: [Errno 2]" in err


def test_it_stays_small_because_every_serving_pod_has_one() -> None:
    heavy = "{'argparse', 'asyncio', 'ctypes', 'dataclasses', 'logging', 'pathlib', 'subprocess', 'threading', 'typing'}"
    code = f"import sys, graftwork_agent.__main__, graftwork_agent.supervisor; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    process = supervised(run=code, flags=("-S",))
    assert process.wait(timeout=30) == 0, process.communicate()[1]


@pytest.mark.parametrize(("ends", "pause"), [(1, 0.1), (3, 0.4), (GIVE_UP_AFTER, LONGEST_PAUSE_SECONDS)])
def test_pauses_grow(ends: int, pause: float) -> None:
    restarts = Restarts()
    assert [restarts.after(0) for _ in range(ends)][-1] == pytest.approx(pause)


def test_a_healthy_run_begins_a_new_count() -> None:
    restarts = Restarts()
    for _ in range(GIVE_UP_AFTER):
        restarts.after(0)
    assert restarts.after(HEALTHY_SECONDS) == pytest.approx(0.1)
