"""What an operator would ask a fill for, and a wire between a fill and its source that can be cut at any byte."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from graftwork_agent import filling
from graftwork_agent.inspecting import open_model
from graftwork_agent.model_files import listing_digest

from tests.unit.agent.pod import SCHEMAS

REPOSITORY = Path(__file__).parents[3]
FILL_SCHEMA = json.loads((SCHEMAS / "fill.schema.json").read_text())
RESULT_SCHEMA = json.loads((SCHEMAS / "fill-result.schema.json").read_text())
SECRET = "s3cr3t"


def key_of(source: str, revision: str) -> str:
    """Return the key of a revision (contracts, section 7d)."""
    return hashlib.sha256(json.dumps([source, revision], separators=(",", ":")).encode()).hexdigest()[:12]


def instructions(source: str, env: Mapping[str, str], to: Path, **changes: Any) -> dict[str, Any]:
    """Return what the operator asks for after an inspection of the source."""
    model = open_model(source, env)
    found = {
        "apiVersion": "graftwork.dev/fill/v1",
        "deployment": {"namespace": "ml", "name": "support"},
        "source": f"{model.uri}@{model.revision}" if source.startswith("hf://") else source,
        "revision": model.revision,
        "key": key_of(model.uri, model.revision),
        "files": {"count": len(model.files), "bytes": sum(file.size for file in model.files), "digest": f"sha256:{listing_digest(model.files)}"},
        "keep": [],
        "to": str(to),
        "progressPort": 0,
    } | changes
    jsonschema.validate(found, FILL_SCHEMA)
    return found


@dataclass
class Filler:
    """Runs fills in this process, or in one of their own."""

    env: dict[str, str]
    log: Path
    lines: list[str] = field(default_factory=list)

    def run(self, wanted: Mapping[str, Any], **more: str) -> tuple[int, dict[str, Any]]:
        """Fill; returns exit code and result."""
        code = filling.run({**self.env, **more, "GRAFTWORK_FILL": json.dumps(wanted)})
        return code, self.result()

    def start(
        self, wanted: Mapping[str, Any], program: str = "import sys; from graftwork_agent.__main__ import main; sys.exit(main(['fill']))"
    ) -> subprocess.Popen[bytes]:
        """Begin a fill in a process of its own."""
        path = os.pathsep.join(str(REPOSITORY / part) for part in ("images/agent", "images/common"))
        env = {**os.environ, **self.env, "GRAFTWORK_FILL": json.dumps(wanted), "GRAFTWORK_TERMINATION_LOG": str(self.log), "PYTHONPATH": path}
        return subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE)

    def result(self) -> dict[str, Any]:
        """Return the termination message, checked against what is promised of it."""
        data = self.log.read_bytes()
        assert len(data) <= 4096
        assert SECRET.encode() not in data
        result: dict[str, Any] = json.loads(data)
        jsonschema.validate(result, RESULT_SCHEMA)
        return result


class Wire:
    """Passes a TCP port on and counts what the server sends; at the given byte it calls `at_byte`, once, before it passes that byte on.

    Other connections go on meanwhile.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.sent = 0
        self.cut_at: int | None = None
        self.at_byte: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def accept(self) -> None:
        """Serve until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, to, counted in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, to, counted), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass(self, source: socket.socket, to: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 14):
                if counted:
                    self._count(len(data))
                to.sendall(data)
        except OSError:
            pass
        for end in (source, to):
            end.close()

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size
            cut = self.cut_at is not None and self.sent >= self.cut_at
            if cut:
                self.cut_at = None
        if cut:
            self.at_byte()


@contextmanager
def wire(target: int) -> Iterator[Wire]:
    """Serve a wire to a port of this machine while the block runs."""
    found = Wire(target)
    threading.Thread(target=found.accept, daemon=True).start()
    try:
        yield found
    finally:
        found.close()


def lying(claim: Path) -> dict[str, bytes]:
    """Return all files on a claim."""
    return {str(path.relative_to(claim)): path.read_bytes() for path in sorted(claim.rglob("*")) if path.is_file()}


def model_of(claim: Path, key: str) -> dict[str, bytes]:
    """Return a model's files, without the manifest."""
    found = {name.removeprefix(f"models/{key}/"): data for name, data in lying(claim).items() if name.startswith(f"models/{key}/")}
    found.pop(".graftwork-model.json", None)
    return found
