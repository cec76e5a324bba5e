"""Refusals that come before the body was read, on a real connection."""

from __future__ import annotations

from pathlib import Path

from tests.unit.guard.keyed import A, KeyedWorld, entry
from tests.unit.guard.test_transport import Server

POST = "POST /v1/chat/completions HTTP/1.1"


async def test_a_connection_goes_on_after_a_refusal_whose_body_nobody_read(tmp_path: Path) -> None:
    world = KeyedWorld(tmp_path)
    await world.route()
    await world.keys(entry("team-a", A, requestsPerMinute=1))
    body = b'{"messages":"' + b"x" * 1_000_000 + b'"}'
    async with Server(world) as server:
        client = await server.connect()
        assert (await client.ask(POST, body))[0] == 401
        assert client.headers["www-authenticate"] == "Bearer"
        assert (await client.ask(f"{POST}\r\nauthorization: Bearer {A}", body))[0] == 200
        assert client.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await client.ask(f"{POST}\r\nauthorization: Bearer {A}", body))[0] == 429
        assert client.headers["retry-after"] == "60"
        assert (await client.ask(f"{POST}\r\nX-API-Key: {A}x", body))[0] == 401
        client.close()
    assert len(world.engine.seen) == 1
