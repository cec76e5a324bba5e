"""Heads and trailers that do not end: the connection does, before they have filled the memory."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graftwork_guard.asgi import App
from graftwork_guard.heads import Bounds, bound_heads, bounded
from graftwork_guard.settings import MAX_HEADER_BYTES

from tests.unit.guard.fakes import ENGINE, World
from tests.unit.guard.server import Server
from tests.unit.guard.wire import Wire, statuses

LIMIT = 32 * 1024
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = CHAT + b"transfer-encoding: chunked\r\n\r\n13\r\n" + b'{"model":"medical"}' + b"\r\n"
PIECE = b"y" * 4096


def wire(app: App) -> Wire:
    made = Wire(app, "httptools")
    made._config.http_protocol_class = bounded(made._config.http_protocol_class, LIMIT)
    return made


class Fed:
    """Pieces without an end, and how many were taken."""

    def __init__(self, first: bytes, piece: bytes = PIECE) -> None:
        self.taken = 0
        self._first, self._piece = first, piece

    def __iter__(self) -> Any:
        yield self._first
        while self.taken < 10 * LIMIT:
            self.taken += len(self._piece)
            yield self._piece


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (CHAT + b"x: ", PIECE),
        (CHAT, b"y: z\r\n" * 500),
        (CHAT, PIECE),
        (b"GET /", PIECE),
        (b"y" * 10, PIECE),
        (b"\r\n", b"\r\n" * 2000),
        (CHUNKED + b"0\r\nx: ", PIECE),
        (CHUNKED + b"0\r\n", b"y: z\r\n" * 500),
        (CHUNKED + b"5;", PIECE),
    ],
    ids=["a value", "small headers", "a name", "a target", "a method", "blank lines", "a trailer", "small trailers", "an extension of a chunk"],
)
async def test_what_does_not_end_is_cut_off(world: World, first: bytes, piece: bytes) -> None:
    fed = Fed(first, piece)
    said = await wire(world.guard).exchange(fed)
    assert statuses(said) in ([431], [400]), "400 is the parser's own, where it takes no such length or character"
    assert b"connection: close" in said
    assert fed.taken <= LIMIT + 4 * len(piece)
    assert world.engine.seen == []


async def test_a_trailer_is_cut_off_with_431(world: World) -> None:
    assert statuses(await wire(world.guard).exchange(Fed(CHUNKED + b"0\r\nx: "))) == [431]


async def test_what_comes_slowly_and_ends_is_served(world: World) -> None:
    body = b'{"model":"medical","say":"' + b"x" * 1_000_000 + b'"}'
    head = CHAT + b"content-length: %d\r\nx: " % len(body)
    pieces = [head, *[b"y" * 1000] * 30, b"\r\n\r\n", *(body[at : at + 1000] for at in range(0, len(body), 1000))]
    again = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    assert statuses(await wire(world.guard).exchange([*pieces, *[again] * 2000])) == [200] * 2001


async def test_many_small_requests_in_one_read_are_served(world: World) -> None:
    ping = b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 1000 + b"\r\n\r\n"
    assert statuses(await wire(world.guard).exchange([ping * 20] * 10)) == [200] * 200


async def test_trailers_do_not_become_headers() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append(list(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    trailer = b"0\r\nx-graftwork-token: a\r\nauthorization: Bearer b\r\n\r\n"
    assert statuses(await wire(application).exchange([CHUNKED, trailer, CHAT + b"content-length: 0\r\n\r\n"])) == [200, 200]
    first, second = ([name for name, _ in headers] for headers in seen)
    assert first == [b"host", b"content-type", b"transfer-encoding"]
    assert second == [b"host", b"content-type", b"content-length"], "and the next request has its own"


async def test_no_answer_falls_into_one_that_is_being_written(world: World) -> None:
    world.engine.gate.clear()
    stream = b'{"model":"medical","stream":true}'
    first = CHAT + b"content-length: %d\r\n\r\n" % len(stream) + stream
    said = await wire(world.guard).exchange([first, *Fed(b"GET /health HTTP/1.1\r\nx: ")])
    assert statuses(said) == [200]
    assert world.engine.seen[-1].json["model"] == ENGINE


async def test_the_server_that_vllm_keeps_in_its_state_is_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.route()
    async with Server(world) as server:
        client = await server.connect()
        client.writer.write(b"GET /health HTTP/1.1\r\nx: ".ljust(MAX_HEADER_BYTES + 1, b"y"))
        assert (await client.answer())[0] == 431
        assert await client.reader.read() == b"", "and the connection is closed"
        assert await server.ask("GET /health HTTP/1.1") == (200, b"Success")


@pytest.mark.parametrize("app", [None, SimpleNamespace(), SimpleNamespace(state=SimpleNamespace(server=SimpleNamespace(config=SimpleNamespace())))])
def test_another_server_is_left_alone_and_told(app: object, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        bound_heads({"type": "lifespan", "app": app}, LIMIT)
    assert "bounded by the server alone" in caplog.text


def test_a_server_is_bounded_once() -> None:
    config = SimpleNamespace(http_protocol_class=type("HttpToolsProtocol", (), {}))
    app = SimpleNamespace(state=SimpleNamespace(server=SimpleNamespace(config=config)))
    bound_heads({"app": app}, LIMIT)
    made = config.http_protocol_class
    assert issubclass(made, Bounds)
    bound_heads({"app": app}, LIMIT)
    assert config.http_protocol_class is made
