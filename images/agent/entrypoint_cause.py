"""The line that tells why vLLM ended, or does not serve, among those that it writes. Standard library only, as the entrypoint that uses it."""

from __future__ import annotations

import contextlib
import json
import re
import signal

MESSAGE_LENGTH = 1000
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
# What a status shows everybody who may read it: no value that is called a secret, stands in a URL before the host, or looks like a well-known token.
_NAMES = r"api[-_]?key|access[-_]?key(?:[-_]?id)?|token|secret|passw(?:or)?d|authorization"
_NAMED = rf"(?<![a-z])({_NAMES})(['\"]?\s*[=:]\s*)([\[(]*['\"]?)[^\s'\",)}}\]]+"
_SECRETS = (
    (re.compile(r"\b(bearer|basic) [\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(_NAMED, re.IGNORECASE), r"\1\2\3***"),
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (re.compile(r"(://[^\s?'\"]+)\?[^\s'\",)]+"), r"\1?***"),  # presigned: the query is the key
    (re.compile(r"\b(hf_|sk-|ghp_|AKIA|ASIA)[A-Za-z0-9_-]{8,}"), r"\1***"),
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
        return self._because(how)

    def stopped(self) -> str:
        """Return what there is to say of a start that was ended from outside."""
        return self._because("vLLM was told to stop before it served")

    def now(self) -> tuple[bool, str]:
        """Return the best line so far, and whether it is more than one like any other."""
        rank, text = self._best()
        return rank < self._LINE, _short(text)

    def _best(self) -> tuple[int, str]:
        oldest = 0 if self._started_at is None or self._dead else self._line - RECENT_LINES
        return next(((rank, text) for rank, (line, text) in sorted(self._found.items()) if line >= oldest), (self._LINE, ""))

    def _because(self, how: str) -> str:
        why = self._best()[1]
        return _short(f"{how}: {why}" if why else f"{how} and wrote no reason")


def _short(text: str) -> str:
    """Return the text without secrets, at most MESSAGE_LENGTH characters of it."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
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
