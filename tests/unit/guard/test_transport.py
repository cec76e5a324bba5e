"""The guard under uvicorn with httptools, which is what vLLM runs: bytes on a socket in, bytes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.guard.fakes import BASE, ENGINE, ROUTING, TOKEN, World
from tests.unit.guard.server import Server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    world = World(tmp_path)
    await world.route()
    async with Server(world) as server:
        yield server


CHAT = "POST /v1/chat/completions HTTP/1.1"
MEDICAL = b'{"model":"medical"}'


async def test_kept_alive_requests_of_every_shape(server: Server) -> None:
    client = await server.connect()
    for head, body in (
        (CHAT, MEDICAL),
        (f"{CHAT}\r\ntransfer-encoding: chunked", b"a\r\n" + MEDICAL[:10] + b"\r\n9\r\n" + MEDICAL[10:] + b"\r\n0\r\n\r\n"),
    ):
        status, answer = await client.ask(head, body)
        assert (status, json.loads(answer)["model"]) == (200, "medical")
        assert server.world.engine.seen[-1].json["model"] == ENGINE
    status, answer = await client.ask(CHAT, b'{"model":"medical","stream":true}')
    assert answer.count(b'"model":"medical"') == 2
    assert answer.endswith(b"data: [DONE]\n\n")
    assert json.loads((await client.ask(CHAT, b"{}"))[1])["model"] == BASE
    client.close()


async def test_expect_continue_and_pipelining(server: Server) -> None:
    client = await server.connect()
    client.send(f"{CHAT}\r\nexpect: 100-continue", MEDICAL)
    assert await client.start() == 100
    assert (await client.answer())[0] == 200
    client.send(CHAT, MEDICAL)
    client.send("GET /health HTTP/1.1")
    assert (await client.answer())[0] == 200
    assert (await client.answer()) == (200, b"Success")
    client.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/load_lora_adapter", 404),
        ("/v1/%6coad_lora_adapter", 404),
        ("/v1/load%5Flora_adapter", 404),
        ("/v1/load_lora_adapter%0A", 404),
        ("/v1/load_lora_adapter/", 404),
        ("/v1/load_lora_adapter?x=/health", 404),
        ("/health/../v1/load_lora_adapter", 404),
        ("/health%2f..%2fv1/load_lora_adapter", 404),
        ("http://x/v1/load_lora_adapter", 404),
        ("/V1/load_lora_adapter", 404),
        ("/adapters", 404),
        ("/invocations", 404),
        ("/%69nvocations", 404),
        ("/v1/chat%2Fcompletions", 200),  # decoded once, it is the route, and mapped like it
        ("http://x/v1/chat/completions", 200),
        ("/v1/chat/completions#x", 200),
    ],
)
async def test_spellings_of_a_target_on_the_wire(server: Server, target: str, status: int) -> None:
    got, _ = await server.ask(f"POST {target} HTTP/1.1", MEDICAL)
    assert got == status
    assert [seen.json for seen in server.world.engine.seen] == ([{"model": ENGINE}] if status == 200 else [])


async def test_a_client_that_hangs_up_ends_the_engines_work(server: Server) -> None:
    engine = server.world.engine
    engine.gate.clear()
    client = await server.connect()
    client.send(CHAT, b'{"model":"medical","stream":true}')
    await client.start()
    assert b'"model":"medical"' in await client.chunk()
    client.close()
    await asyncio.wait_for(engine.aborted.wait(), 5)


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    client = await server.connect()
    client.writer.write(f"{CHAT}\r\ncontent-length: 99999999999\r\n\r\n".encode())
    assert (await client.answer())[0] == 413
    assert await client.reader.read() == b"", "and the connection is closed"


async def test_a_drained_server_closes_the_connections_that_its_clients_keep(server: Server) -> None:
    client = await server.connect()
    assert (await client.ask(CHAT, MEDICAL))[0] == 200
    (server.world.run_dir / "drain").touch()
    assert (await client.ask(CHAT, b'{"stream":true}'))[0] == 200
    assert client.headers["connection"] == "close"
    assert await client.reader.read() == b""
    assert await server.ask("GET /graftwork/ready HTTP/1.1") == (503, b'{"ready":false,"reason":"Draining"}')


async def test_the_agent_speaks_to_it_and_hangs(server: Server) -> None:
    token = f"x-graftwork-token: {TOKEN.decode()}"
    waiting = asyncio.create_task(server.ask(f"GET /graftwork/engine?since=2&wait=60 HTTP/1.1\r\n{token}"))
    status, answer = await server.ask(f"PUT /graftwork/routing HTTP/1.1\r\n{token}", json.dumps({**ROUTING, "aliases": {}}).encode())
    assert (status, json.loads(answer)["version"]) == (200, 3)
    assert json.loads((await asyncio.wait_for(waiting, 5))[1])["version"] == 3
    assert (await server.ask(CHAT, MEDICAL))[0] == 404


async def test_an_upgrade_to_a_websocket_is_403(server: Server) -> None:
    upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    status, _ = await server.ask(f"GET /v1/realtime HTTP/1.1\r\n{upgrade}")
    assert status in (403, 404)  # 404 where uvicorn has no WebSocket library and treats it as plain HTTP


async def test_an_engine_error_is_a_500_and_the_server_lives(server: Server) -> None:
    server.world.engine.fail = ValueError("engine")
    assert (await server.ask(CHAT, MEDICAL))[0] == 500
    server.world.engine.fail = None
    assert (await server.ask(CHAT, MEDICAL))[0] == 200
