"""Bytes to a guard behind uvicorn, as they come from a hostile client: over a real socket, or fed to uvicorn's parsers without one."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from graftwork_guard.asgi import App
from uvicorn.server import ServerState

PARSERS = ("httptools", "h11")  # vLLM runs the first; the second is what uvicorn takes where it is not installed
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
PING = b"GET /graftwork/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def statuses(data: bytes) -> list[int]:
    """Return the statuses of the answers, which never contain a status line in their bodies."""
    return [int(status) for status in STATUS.findall(data)]


def config(app: App, parser: str) -> uvicorn.Config:
    return uvicorn.Config(app, http=parser, ws="none", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)


class Pipe(asyncio.Transport):
    """A connection of which only the server's end exists."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """The bytes are here already."""

    def resume_reading(self) -> None:
        """As above."""


class Wire:
    """uvicorn's protocol around an application, without a socket: what it has to say is said when `exchange` returns."""

    def __init__(self, app: App, parser: str) -> None:
        self._config = config(app, parser)
        self._config.load()

    async def exchange(self, pieces: Iterable[bytes]) -> bytes:
        """Return all that is answered to these bytes, the client being gone at the end; what a task raises is raised."""
        state, pipe = ServerState(), Pipe()
        make: Any = self._config.http_protocol_class
        protocol = make(config=self._config, server_state=state, app_state={})
        protocol.connection_made(pipe)
        for piece in pieces:
            if pipe.closed:
                break
            protocol.data_received(piece)
            await _settled(state)
        protocol.connection_lost(None)
        await _settled(state)
        for task in [*state.tasks]:
            await asyncio.wait_for(task, 10)
        return pipe.sent


async def _settled(state: ServerState) -> None:
    """Let the tasks go as far as they go: an answer takes some turns of the loop, one that waits for the rest of its body takes any number."""
    for _ in range(25):
        if not state.tasks:
            return
        await asyncio.sleep(0)


@contextmanager
def listening(app: App, parser: str) -> Iterator[tuple[str, int]]:
    """Run uvicorn on a socket, in a thread; yields its address."""
    server = uvicorn.Server(config(app, parser))
    ready = threading.Event()
    begin = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await begin(sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign] # uvicorn has no event for it
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def talk(address: tuple[str, int], data: bytes, patience: float = 5) -> bytes:
    """Send bytes and return what comes until the server closes, or says nothing for `patience` seconds."""
    with socket.create_connection(address, timeout=patience) as connection:
        received = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # refused before all of it was sent, or waited for more
        return received
