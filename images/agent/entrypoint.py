#!/usr/bin/env python3
"""The vllm container's first process: `entrypoint.py vllm serve ...`, and its preStop hook: `entrypoint.py --drain`.

Standard library only: it is copied into a volume with entrypoint_cause.py and run by whatever Python the engine's image has. It absorbs what vLLM
0.32 does with signals and exit codes: SIGTERM is lost while the engine starts, and a dead engine ends with exit code 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from entrypoint_cause import Cause, Lines

DEFAULT_DRAIN_SECONDS = 5.0
EXIT_CRASHED = 70  # the engine said 0 and was not asked to end
LAST_OUTPUT_SECONDS = 1.0  # how long the pipes are read after the end, in case something outside the group holds them open
RESULT_BYTES = 4096  # the kubelet cuts a longer termination message, and what is left is no JSON
SAY_SECONDS = 5.0  # how often what a start says of importance is written down for the agent
SAY_LINES_SECONDS = 30.0  # how often a line like any other is: a slow start writes many, and each one wakes the operator


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
        self._said = Said(run_dir / "said")

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
        for path in (self._run_dir / "serving", self._run_dir / "drain", self._said.path):
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
            self._said.forget()
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
            say = None if self._status is not None or self._is_serving() else self._said.tell(self._cause)
            wait = say if deadline is None else max(0.0, deadline - time.monotonic())
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
        self._said.forget()
        if self._asked is not None and not self._serving:  # a startup probe that gave up asks so too, and this is all that is left of why
            self._report(self._cause.stopped())
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


class Said:
    """The file that tells the agent what a start says of why it does not serve yet; gone once it serves, or has ended."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._text = ""
        self._at = self._due = clock()

    def tell(self, cause: Cause) -> float:
        """Write what is known now if it is time to, and return the seconds until it is again. The start never waits for this."""
        now = self._clock()
        if now < self._due:
            return self._due - now
        self._due = now + SAY_SECONDS
        important, text = cause.now()
        if text == self._text or not (important or not self._text or now - self._at >= SAY_LINES_SECONDS):
            return SAY_SECONDS
        partial = self.path.with_name(".said.new")
        try:
            partial.write_text(text, encoding="utf-8", errors="replace")
            partial.rename(self.path)
            self._text, self._at = text, now
        except OSError as error:
            print(f"entrypoint: {self.path} cannot be written: {error}", file=sys.stderr, flush=True)
        return SAY_SECONDS

    def forget(self) -> None:
        """Remove it."""
        _remove(self.path)


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
