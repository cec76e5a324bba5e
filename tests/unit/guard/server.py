"""The guard served by uvicorn with httptools, which is what vLLM runs, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import uvicorn
from graftwork_guard.asgi import App, Receive, Scope, Send

from tests.unit.guard.fakes import World


class Server:
    def __init__(self, world: World, app: App | None = None) -> None:
        self.world = world
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._app = app or world.guard
        config = uvicorn.Config(
            self._application, http="httptools", interface="asgi3", lifespan="on", log_level="warning", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """vLLM's application keeps the server that runs it in its state."""
        await self._app({**scope, "app": SimpleNamespace(state=SimpleNamespace(server=self._server))}, receive, send)

    async def __aenter__(self) -> Server:
        ready = asyncio.Event()
        begin = self._server.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await begin(sockets)
            ready.set()

        self._server.startup = startup  # type: ignore[method-assign] # uvicorn has no event for it
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        await asyncio.wait_for(ready.wait(), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await asyncio.wait_for(self._task, 5)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection(*self._socket.getsockname())
        return Client(reader, writer)

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        client = await self.connect()
        try:
            return await client.ask(head, body)
        finally:
            client.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.headers: dict[str, str] = {}

    def send(self, head: str, body: bytes = b"") -> None:
        length = "" if "chunked" in head else f"content-length: {len(body)}\r\n"
        self.writer.write(f"{head}\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n".encode() + body)

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        self.send(head, body)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        status = await self.start()
        if "content-length" in self.headers:
            return status, await self.reader.readexactly(int(self.headers["content-length"]))
        body = b""
        while piece := await self.chunk():
            body += piece
        return status, body

    async def start(self) -> int:
        status = int((await self.reader.readline()).split()[1])
        self.headers = {}
        while line := (await self.reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            assert name not in self.headers, f"{name} twice"
            self.headers[name] = value
        return status

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        self.writer.close()
