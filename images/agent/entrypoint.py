#!/usr/bin/env python3
"""The vllm container's first process: `entrypoint.py vllm serve ...`, and its preStop hook: `entrypoint.py --drain`.

Standard library only, one file: it is copied into a volume and run by whatever Python the engine's image has. It absorbs what vLLM 0.32 does with
signals and exit codes: SIGTERM is lost while the engine starts, and a dead engine ends with exit code 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

DEFAULT_DRAIN_SECONDS = 5.0
EXIT_CRASHED = 70  # the engine said 0 and was not asked to end
LAST_OUTPUT_SECONDS = 1.0  # how long the pipes are read after the end, in case something outside the group holds them open
MESSAGE_LENGTH = 1000
RESULT_BYTES = 4096  # the kubelet cuts a longer termination message, and what is left is no JSON
LINE_LENGTH = 8192
RECENT_LINES = 100  # how far back an exception of a running server may explain its end

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# "(EngineCore pid=12) ERROR 11-21 13:00:00 [core.py:870] text": each part may be missing.
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\) ?)?((DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:.]+ )?(\[[^\]]*:\d+\] )?")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt): ?(.*)$")
_PYDANTIC_TAIL = re.compile(r" \[type=\w+, input_value=.*$")

# vLLM's wrappers: they say that something was wrong, not what.
_WRAPPERS = ("Engine core initialization failed", "EngineDeadError", "EngineCore encountered an issue", "WorkerProc initialization failed")
# A runtime death begins with one of these; what was logged before belongs to something else.
_DEATHS = ("EngineCore encountered a fatal error", "died unexpectedly", "engine core exited unexpectedly")
_KNOWN = re.compile(
    r"^Value error, |^vllm( serve)?: error: |To serve at least one request with the model's max seq len|No available memory for the cache blocks"
    r"|Free memory on device|not enough GPU memory|OutOfMemoryError|Cannot find any model weights|SafetensorError|Address already in use"
    r"|HFValidationError|LocalEntryNotFoundError|are not supported for now|does not recognize this architecture|trust_remote_code=True"
    r"|No working C\+\+ compiler"
)
_NOISE = ("resource_tracker", "leaked semaphore", "leaked shared_memory", "warnings.warn(", "For further information visit")


class Cause:
    """Finds the line that tells why vLLM ended, in what it writes. A known cause beats an exception, that beats a wrapper, that beats any line."""

    _KNOWN, _EXCEPTION, _DEATH, _LINE = range(4)

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, str]] = {}
        self._line = 0
        self._started_at: int | None = None
        self._dead = False

    def read(self, line: str) -> None:
        """Take one line of output."""
        text = _plain(line)
        if not text or any(noise in text for noise in _NOISE):
            return
        self._line += 1
        if any(death in text for death in _DEATHS):
            if not self._dead:  # what was logged before explains something else
                self._found = {self._DEATH: (self._line, text)}
            self._dead = True
        elif any(wrapper in text for wrapper in _WRAPPERS):
            self._found.setdefault(self._DEATH, (self._line, text))
        elif _KNOWN.search(text):
            self._note(self._KNOWN, _PYDANTIC_TAIL.sub("", text).removeprefix("Value error, "))
        elif _EXCEPTION.match(text):
            self._note(self._EXCEPTION, text)
        elif self._started_at is None:
            self._note(self._LINE, text)

    def _note(self, rank: int, text: str) -> None:
        """Keep the last of a start, where what comes early may be harmless; after a death the first, where the rest are its consequences."""
        if not (self._dead and rank in self._found):
            self._found[rank] = (self._line, text)

    def started(self) -> None:
        """Forget the start's lines: it succeeded, so they explain nothing."""
        self._found.clear()
        self._started_at = self._line

    def describe(self, status: int) -> str:
        """Return the cause of an end with this status: an exit code, or the negative number of a signal."""
        if status < 0:
            how = f"vLLM was ended by signal {-status}" + (" (SIGKILL: usually the container's memory limit)" if status == -signal.SIGKILL else "")
        else:
            how = f"vLLM ended with exit code {status}"
        oldest = 0 if self._started_at is None or self._dead else self._line - RECENT_LINES
        why = next((text for _rank, (line, text) in sorted(self._found.items()) if line >= oldest), "")
        text = f"{how}: {why}" if why else f"{how} and wrote no reason"
        return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def _plain(line: str) -> str:
    """Return a log line's own text, without colours, the process's prefix, or the JSON around it."""
    text = _ANSI.sub("", line).strip()
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            record = json.loads(text)
            if isinstance(record, dict) and isinstance(record.get("message"), str):
                text = record["message"].strip()
    return _PREFIX.sub("", text, count=1).strip()


class Lines:
    """Cuts a byte stream into lines, however it arrives; a line beyond LINE_LENGTH loses its end."""

    def __init__(self, cause: Cause) -> None:
        self._cause = cause
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE_LENGTH]
        for line in lines:
            self._cause.read(line[:LINE_LENGTH].decode("utf-8", "replace"))

    def flush(self) -> None:
        """Take what is left as the last line."""
        self.feed(b"\n")


class Entrypoint:
    """Runs one child, and answers for its end."""

    def __init__(self, command: Sequence[str], run_dir: Path, termination_log: Path) -> None:
        self._command = list(command)
        self._run_dir = run_dir
        self._termination_log = termination_log
        self._cause = Cause()
        self._child = 0
        self._status: int | None = None
        self._asked: int | None = None
        self._serving = False

    def run(self) -> int:
        """Return the exit code for the container."""
        self._clean_up()
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only wakes the loop
        try:
            # Its own session: the whole group can be killed, and a terminal's Ctrl-C comes once, through us.
            child = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            self._report(f"vLLM cannot be started: {self._command[0]}: {error.strerror}")
            return 127
        self._child = child.pid
        if self._asked is not None:  # asked between the handlers and the start
            self._forward(self._asked)
        assert child.stdout is not None
        assert child.stderr is not None
        self._watch(wake_read, {child.stdout.fileno(): 1, child.stderr.fileno(): 2})
        assert self._status is not None
        child.returncode = self._status  # it was reaped here, with all others
        return self._ended(self._status)

    def _clean_up(self) -> None:
        """Remove what the container's last life left in its volumes: markers, and a socket that vLLM would take for a running server."""
        for path in (self._run_dir / "serving", self._run_dir / "drain"):
            _remove(path)
        socket_path = _option(self._command, "--uds")
        if socket_path:
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.lstat(socket_path).st_mode):
                    os.unlink(socket_path)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self._asked = number
        if self._child:
            self._forward(number)

    def _forward(self, number: int) -> None:
        """Hand a signal on. Before HTTP listens vLLM may lose it and keep the GPU for the whole grace period, so then it becomes SIGKILL."""
        if self._status is not None:
            return
        if not self._is_serving():
            _kill_group(self._child)
            return
        drain = self._run_dir / "drain"
        with contextlib.suppress(OSError):
            drain.touch()
            os.utime(drain, (0, 0))  # older than any wait: the guard refuses new requests now, which vLLM would answer with 500
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)

    def _is_serving(self) -> bool:
        if not self._serving and (self._run_dir / "serving").exists():
            self._serving = True
            self._cause.started()
        return self._serving

    def _watch(self, wake: int, outputs: Mapping[int, int]) -> None:
        """Pass output on and reap, until the child has ended and its output is read."""
        selector = selectors.DefaultSelector()
        selector.register(wake, selectors.EVENT_READ)
        lines = {source: Lines(self._cause) for source in outputs}
        for source in outputs:
            selector.register(source, selectors.EVENT_READ)
        open_outputs = set(outputs)
        deadline: float | None = None
        while self._status is None or open_outputs:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = selector.select(wait)
            if not ready and deadline is not None and time.monotonic() >= deadline:
                break
            for key, _events in ready:
                if key.fd == wake:
                    _read(wake)
                    continue
                data = _read(key.fd)
                if data:
                    _write(outputs[key.fd], data)
                    self._is_serving()
                    lines[key.fd].feed(data)
                else:
                    selector.unregister(key.fd)
                    open_outputs.discard(key.fd)
            if self._reap() and deadline is None:
                _kill_group(self._child)
                deadline = time.monotonic() + LAST_OUTPUT_SECONDS
        for rest in lines.values():
            rest.flush()

    def _reap(self) -> bool:
        """Reap every child that has ended, ours and the orphans that the first process of a container inherits; tell whether ours is among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._child:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None

    def _ended(self, status: int) -> int:
        _remove(self._run_dir / "serving")
        if self._asked is not None and not self._serving:
            return 128 + self._asked
        if self._asked is not None:
            return 128 - status if status < 0 else status
        self._report(self._cause.describe(status))
        return 128 - status if status < 0 else status or EXIT_CRASHED

    def _report(self, cause: str) -> None:
        print(f"entrypoint: {cause}", file=sys.stderr, flush=True)
        try:
            self._termination_log.write_bytes(result(cause))
        except OSError as error:
            print(f"entrypoint: {self._termination_log} cannot be written: {error}", file=sys.stderr, flush=True)


def result(cause: str) -> bytes:
    """Return the termination message, with as much of the cause as fits: bytes count, and JSON writes some characters as six of them."""
    low, high = 0, len(cause)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_result(cause, middle)) <= RESULT_BYTES else (low, middle - 1)
    return _result(cause, low)


def _result(cause: str, length: int) -> bytes:
    message = cause if length >= len(cause) else cause[:length] + "…"
    document = {"apiVersion": "graftwork.dev/result/v1", "outcome": "Failed", "reason": "EngineCrashed", "message": message}
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def _option(command: Sequence[str], name: str) -> str:
    """Return the value of `--name value` or `--name=value`, or nothing."""
    for argument, following in zip(command, (*command[1:], ""), strict=True):
        if argument == name:
            return following
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return ""


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"entrypoint: {path} cannot be removed: {error}", file=sys.stderr, flush=True)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except BlockingIOError:
        return b""


def _write(target: int, data: bytes) -> None:
    """Write everything; output that nobody reads any more is dropped, so that the engine does not stop for it."""
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError):
        while view:
            view = view[os.write(target, view) :]


def drain(run_dir: Path, env: Mapping[str, str]) -> int:
    """Ask the guard to send its clients elsewhere, and return when they have gone; at once if HTTP never listened, because then there are none."""
    wait_seconds = DEFAULT_DRAIN_SECONDS
    text = env.get("GRAFTWORK_DRAIN_SECONDS") or str(DEFAULT_DRAIN_SECONDS)
    try:
        wait_seconds = max(0.0, float(text))
    except ValueError:
        print(f"entrypoint: GRAFTWORK_DRAIN_SECONDS is {text!r}; it must be a number. {wait_seconds} is used.", file=sys.stderr)
    with contextlib.suppress(FileExistsError):
        (run_dir / "drain").touch(exist_ok=False)
    if (run_dir / "serving").exists():
        time.sleep(wait_seconds)
    return 0


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Return the exit code of the command line."""
    run_dir = Path(env.get("GRAFTWORK_RUN_DIR") or "/graftwork/run")
    if list(arguments) == ["--drain"]:
        return drain(run_dir, env)
    if not arguments or arguments[0].startswith("-"):
        print("usage: entrypoint.py <command> [<argument> ...] | entrypoint.py --drain", file=sys.stderr)
        return 2
    return Entrypoint(arguments, run_dir, Path(env.get("GRAFTWORK_TERMINATION_LOG") or "/dev/termination-log")).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
