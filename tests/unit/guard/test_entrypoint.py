"""The entrypoint with real processes: scripts that behave like vLLM where it is awkward."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ENTRYPOINT = Path(__file__).parents[3] / "images" / "agent" / "entrypoint.py"
# Tells "ready" on its output once its handlers stand. LOSES_TERM is vLLM while it starts, ENDS_ON_TERM while it serves.
LOSES_TERM = "import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
ENDS_ON_TERM = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('ready', flush=True); time.sleep(60)"


class Run:
    def __init__(self, tmp_path: Path) -> None:
        self.run_dir = tmp_path / "run"
        self.run_dir.mkdir(exist_ok=True)
        self.log = tmp_path / "termination-log"
        self.env = {
            **os.environ,
            "GRAFTWORK_RUN_DIR": str(self.run_dir),
            "GRAFTWORK_TERMINATION_LOG": str(self.log),
            "GRAFTWORK_DRAIN_SECONDS": "0.2",
        }

    @contextmanager
    def start(self, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, str(ENTRYPOINT), sys.executable, "-u", "-c", script, *arguments]
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self, script: str, *arguments: str) -> tuple[int, str, str]:
        with self.start(script, *arguments) as process:
            out, err = process.communicate(timeout=20)
            return process.returncode, out, err

    @property
    def result(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.log.read_text())
        assert len(self.log.read_bytes()) <= 4096
        assert {key: document[key] for key in ("apiVersion", "outcome", "reason")} == {
            "apiVersion": "graftwork.dev/result/v1",
            "outcome": "Failed",
            "reason": "EngineCrashed",
        }
        return document


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_during_the_start_ends_it_within_a_second(run: Run, number: int, code: int) -> None:
    with run.start(LOSES_TERM) as process:
        _ready(process)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == code
        assert time.monotonic() - begun < 1
    assert run.result["message"] == "vLLM was told to stop before it served: ready", "a startup probe that gave up leaves nothing else"


def test_a_stop_while_serving_is_handed_on_and_closes_the_guard(run: Run) -> None:
    with run.start(ENDS_ON_TERM) as process:
        _ready(process)
        (run.run_dir / "serving").touch()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (run.run_dir / "drain").stat().st_mtime == 0
    assert not (run.run_dir / "serving").exists()
    assert not run.log.exists()


def test_an_engine_that_dies_with_exit_code_0_is_a_failure_with_its_cause(run: Run) -> None:
    script = """if True:
        import os, pathlib, sys
        print("INFO 11-21 13:00:00 [x.py:1] SafetensorError: of a refused adapter, an hour ago")
        pathlib.Path(os.environ["GRAFTWORK_RUN_DIR"], "serving").touch()
        err = lambda text: print("\\x1b[0;36m(EngineCore pid=9)\\x1b[0;0m ERROR 11-21 13:00:00 [core.py:870] " + text, file=sys.stderr)
        err("EngineCore encountered a fatal error.")
        err("Traceback (most recent call last):")
        err("FileNotFoundError: adapter_model.safetensors")
        err("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.")
        print("RuntimeError: cannot schedule", file=sys.stderr)
        print("resource_tracker: There appear to be 1 leaked semaphore objects", file=sys.stderr)"""
    code, _, err = run.finish(script)
    assert code == 70
    assert run.result["message"] == "vLLM ended with exit code 0: FileNotFoundError: adapter_model.safetensors"
    assert "EngineCore encountered a fatal error." in err, "output is passed on"


def test_an_engine_that_was_killed_is_told_by_the_server_that_missed_it(run: Run) -> None:
    """As recorded from vLLM 0.32 after SIGKILL of its EngineCore."""
    script = """if True:
        import os, pathlib
        pathlib.Path(os.environ["GRAFTWORK_RUN_DIR"], "serving").touch()
        log = lambda text: print("(APIServer pid=7) WARNING 11-21 14:04:42 [core_client.py:817] " + text)
        log("[shutdown] MPClient: engine core exited unexpectedly; starting cleanup")
        log("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.")
        log("[shutdown] MPClient: complete")"""
    assert run.finish(script)[0] == 70
    assert run.result["message"] == "vLLM ended with exit code 0: [shutdown] MPClient: engine core exited unexpectedly; starting cleanup"


START_FAILURES = {
    "vllm serve: error: argument --dtype: invalid choice: 'x'": "usage: vllm [options]\nvllm serve: error: argument --dtype: invalid choice: 'x'",
    "vllm: error: unrecognized arguments: --foo": "vllm: error: unrecognized arguments: --foo",
    "User-specified max_model_len (9) is greater than the derived": (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, User-specified max_model_len (9) is greater than the derived [type=value_error, input_value=Args(()), input_type=x]\n"
        "    For further information visit https://errors.pydantic.dev/2/v/value_error"
    ),
    "RuntimeError: Cannot find any model weights with `/models/base`": (
        "(Worker pid=7) ERROR 11-21 13:00:00 [w.py:5] RuntimeError: Cannot find any model weights with `/models/base`\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    ),
    "ValueError: To serve at least one request with the model's max seq len (4096), (1 GiB KV cache is needed": (
        "(EngineCore pid=7) ERROR 11-21 13:00:00 [core.py:5] ValueError: To serve at least one request with the model's max seq len (4096), "
        "(1 GiB KV cache is needed\nRuntimeError: Engine core initialization failed. See root cause above."
    ),
    "OSError: [Errno 98] Address already in use": "Traceback (most recent call last):\nOSError: [Errno 98] Address already in use",
    "ModuleNotFoundError: No module named 'graftwork_guard'": "Traceback:\nModuleNotFoundError: No module named 'graftwork_guard'",
    "SafetensorError: Error while deserializing header": '{"levelname": "ERROR", "message": "SafetensorError: Error while deserializing header"}',
    "out of luck": "out of luck",
}


@pytest.mark.parametrize("cause", START_FAILURES)
def test_a_failed_start_tells_its_cause(run: Run, cause: str) -> None:
    code, _, err = run.finish("import sys; print(sys.argv[1], file=sys.stderr); sys.exit(1)", START_FAILURES[cause])
    assert code == 1
    assert run.result["message"] == f"vLLM ended with exit code 1: {cause}"
    assert START_FAILURES[cause] in err


def test_a_start_that_says_nothing_and_one_that_says_too_much(run: Run) -> None:
    assert run.finish("raise SystemExit(3)")[0] == 3
    assert run.result["message"] == "vLLM ended with exit code 3 and wrote no reason"
    assert run.finish("print('ValueError: ' + 'é' * 100_000); raise SystemExit(2)")[0] == 2
    assert len(run.result["message"]) == 1000


def test_being_killed_is_told_apart_and_old_lines_do_not_explain_it(run: Run) -> None:
    script = """if True:
        import os, pathlib
        pathlib.Path(os.environ["GRAFTWORK_RUN_DIR"], "serving").touch()
        print("ValueError: a client's mistake")
        for _ in range(200): print("INFO: 200 OK")
        os.kill(os.getpid(), 9)"""
    assert run.finish(script)[0] == 137
    assert run.result["message"] == "vLLM was ended by signal 9 (SIGKILL: usually the container's memory limit) and wrote no reason"


def test_a_command_that_is_not_there_is_named(run: Run) -> None:
    process = subprocess.run([sys.executable, str(ENTRYPOINT), "/no/such/vllm"], env=run.env, capture_output=True, check=False, timeout=20)
    assert process.returncode == 127
    assert "/no/such/vllm: No such file or directory" in run.result["message"]


def test_what_the_child_leaves_behind_is_killed_with_it(run: Run) -> None:
    script = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); sys.exit(4)"
    begun = time.monotonic()
    code, out, _ = run.finish(script)
    assert code == 4
    assert time.monotonic() - begun < 10, "its open output did not hold us up"
    with pytest.raises(ProcessLookupError):
        _alive(int(out))


def _alive(pid: int) -> None:
    """Raise ProcessLookupError if the process has ended; one that only waits to be reaped has."""
    os.kill(pid, 0)
    if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
        raise ProcessLookupError


def test_a_restart_finds_no_markers_and_no_socket_of_its_last_life(run: Run, tmp_path: Path) -> None:
    for name in ("serving", "drain", "said"):
        (run.run_dir / name).touch()
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    script = "import os, sys; print(sorted(os.listdir(os.environ['GRAFTWORK_RUN_DIR'])), os.path.exists(sys.argv[2]))"
    assert run.finish(script, "--uds", str(path))[1] == "[] False\n"
    path.write_text("not a socket")
    assert run.finish(script, "--uds", str(path))[1] == "[] True\n"


def test_output_is_passed_on_byte_by_byte_and_to_the_same_stream(run: Run) -> None:
    script = "import os; os.write(1, b'a\\xff' * 200_000); os.write(2, b'no newline')"
    with run.start("pass") as process:
        process.communicate()
    done = subprocess.run([sys.executable, str(ENTRYPOINT), sys.executable, "-c", script], env=run.env, capture_output=True, check=False, timeout=20)
    assert done.stdout == b"a\xff" * 200_000
    assert done.stderr.startswith(b"no newline")


def test_orphans_are_reaped(run: Run) -> None:
    """The first process of a container inherits them; here it is made one by PR_SET_CHILD_SUBREAPER."""
    script = f"""if True:
        import ctypes, os, subprocess, sys, time
        ctypes.CDLL(None).prctl(36, 1)
        os.execv(sys.executable, [sys.executable, {str(ENTRYPOINT)!r}, sys.executable, "-c", '''if True:
            import os, sys, time
            if os.fork() == 0:
                if os.fork() == 0: time.sleep(0.05); os._exit(0)
                os._exit(0)
            os.wait()
            me = os.getppid()
            children = lambda: open(f"/proc/{{me}}/task/{{me}}/children").read().split()
            deadline = time.monotonic() + 10
            while len(children()) != 1 and time.monotonic() < deadline: time.sleep(0.01)
            time.sleep(0.1)
            print(len(children()))'''])"""
    done = subprocess.run([sys.executable, "-c", script], env=run.env, capture_output=True, text=True, check=False, timeout=20)
    assert done.stdout == "1\n", done.stderr


def test_the_drain_waits_only_for_a_server_that_has_clients(run: Run) -> None:
    def drain() -> float:
        begun = time.monotonic()
        assert subprocess.run([sys.executable, str(ENTRYPOINT), "--drain"], env=run.env, check=False, timeout=20).returncode == 0
        return time.monotonic() - begun

    run.env["GRAFTWORK_DRAIN_SECONDS"] = "2"
    assert drain() < 2
    made = (run.run_dir / "drain").stat().st_mtime_ns
    (run.run_dir / "serving").touch()
    assert drain() >= 2
    assert (run.run_dir / "drain").stat().st_mtime_ns == made, "a second hook does not begin the wait again"


def test_no_command_is_an_error_with_the_usage(run: Run) -> None:
    done = subprocess.run([sys.executable, str(ENTRYPOINT)], env=run.env, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀", "\x01", '"', "\udc80"])
def test_a_long_cause_is_cut_so_that_the_message_stays_json_of_4096_bytes(run: Run, letter: str) -> None:
    spec = importlib.util.spec_from_file_location("entrypoint", ENTRYPOINT)
    assert spec
    assert spec.loader
    entrypoint = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entrypoint)
    for length in (10, 600, 682, 1000, 1360, 5000):
        data = entrypoint.result(letter * length)
        assert len(data) <= 4096
        message = json.loads(data)["message"]
        kept = message.removesuffix("…")
        shown = letter.encode("utf-8", "replace").decode()
        assert kept == shown * len(kept)
        assert len(kept) == length or len(data) > 4096 - 12


def test_a_line_of_wide_letters_is_a_whole_result(run: Run) -> None:
    code, _, _ = run.finish("import sys; sys.stderr.write('ValueError: ' + chr(0x1F600) * 1990); sys.exit(1)")
    assert code == 1
    assert run.result["message"].endswith("…")
