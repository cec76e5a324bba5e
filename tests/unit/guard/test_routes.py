"""Who reaches what: the allow-list, and attempts to get around it."""

from __future__ import annotations

import pytest
from graftwork_guard.routes import ALLOWED, BLOCKED, Kind, classify, unclassified
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import AGENT, World

LOAD = "/v1/load_lora_adapter"
PUBLIC = ["/health", "/ping", "/version", "/load", "/metrics", "/v1/models", "/graftwork/ready", "/graftwork/metrics"]


@pytest.mark.parametrize("path", sorted(BLOCKED))
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_blocked_route_looks_like_an_unknown_one_even_to_the_agent(world: World, method: str, path: str) -> None:
    answer = await world.call(method, path.format(response_id="1", adapter_name="x"), {}, AGENT)
    assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')
    assert world.engine.seen == []


@pytest.mark.parametrize("path", [LOAD, "/v1/unload_lora_adapter", "/graftwork/engine", "/graftwork/routing"])
@pytest.mark.parametrize("headers", [[], [(b"x-graftwork-token", b"")], [(b"x-graftwork-token", b"5f" * 31)], [(b"x-graftwork-token", b"5F" * 32)]])
async def test_the_agents_routes_do_not_exist_for_others(world: World, path: str, headers: list[tuple[bytes, bytes]]) -> None:
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        answer = await world.call(method, path, {}, headers)
        assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')
    assert world.engine.seen == []


async def test_the_agent_loads_and_reads_the_engines_own_list(world: World) -> None:
    assert (await world.call("POST", LOAD, {"lora_name": "a"}, AGENT)).body == b"Success"
    assert world.engine.seen[-1].json == {"lora_name": "a"}
    assert b"/graftwork/adapters/m" in (await world.call("GET", "/v1/models", headers=AGENT)).body


@pytest.mark.parametrize("content", [None, b"", b"short"])
async def test_without_a_proper_token_file_nobody_is_the_agent(cold: World, content: bytes | None) -> None:
    token = cold.run_dir / "token"
    token.unlink()
    if content is not None:
        token.write_bytes(content)
    for value in (content or b"", b"x" * 64):
        assert (await cold.call("POST", LOAD, {}, [(b"x-graftwork-token", value)])).status == 404


@pytest.mark.parametrize("path", PUBLIC)
async def test_public_reads_answer_without_a_token(world: World, path: str) -> None:
    assert (await world.call("GET", path)).status == 200
    assert (await world.call("DELETE", path)).status == 405


async def test_a_wrong_method_names_the_right_ones(world: World) -> None:
    answer = await world.call("GET", "/v1/chat/completions")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"POST")
    assert world.engine.seen == []


def test_a_preflight_is_left_to_the_engines_cors_layer() -> None:
    assert classify("OPTIONS", "/v1/chat/completions").kind is Kind.READ
    assert classify("OPTIONS", "/v1/models").kind is Kind.READ
    assert classify("OPTIONS", LOAD).kind is Kind.UNKNOWN


@pytest.mark.parametrize("path", sorted(path for path, route in ALLOWED.items() if route.kind not in (Kind.INFERENCE, Kind.MODELS)))
async def test_where_no_browser_asks_a_preflight_reaches_nothing(world: World, path: str) -> None:
    """The engine answers OPTIONS /metrics like a GET: with its own names of the adapters."""
    answer = await world.call("OPTIONS", path)
    assert answer.status in (404, 405)
    assert world.engine.seen == []


def _variants(path: str) -> list[str]:
    return [
        f"{path}/",
        f"/{path}",
        path.upper(),
        f"{path}\n",  # a router's `$` also matches before a last newline
        f"{path}%00",
        f"{path};x",
        f"{path}?x",
        f"/x/..{path}",
        path.replace("/", "//"),
        path.replace("/", "/./"),
        path.replace("/", "\\"),
        f"http://engine{path}",
        path.lstrip("/"),
        f"{path} ",
        path.replace("o", "%6f"),  # still encoded after decoding once: another path
    ]


@pytest.mark.parametrize("path", sorted(ALLOWED))
def test_no_other_spelling_of_a_path_is_a_route(path: str) -> None:
    for variant in _variants(path):
        if variant != path:
            assert classify("POST", variant).kind is Kind.UNKNOWN, variant


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "get", ""]))
def test_whatever_is_not_listed_is_unknown(path: str, method: str) -> None:
    kind = classify(method, path).kind
    assert (kind is Kind.UNKNOWN) or path in ALLOWED


def test_a_new_route_of_the_engine_is_noticed() -> None:
    assert unclassified([*ALLOWED, *BLOCKED]) == []
    assert unclassified(["/health", "/v1/new", "/v1/new", "/invocations"]) == ["/v1/new"]
    assert not set(ALLOWED) & BLOCKED


async def test_websockets_are_refused(world: World) -> None:
    sent: list[object] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    await world.guard({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
