"""The guard under arbitrary requests: it never falls over, and nothing gets past it by another spelling. Longer: `GRAFTWORK_FUZZ=long`."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graftwork_guard.routing import RoutingError, parse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import BASE, ENGINE, ROUTING, TOKEN
from tests.unit.guard.fuzz_world import (
    ADMINISTRATIVE,
    GUARDED,
    INFERENCE,
    PUBLIC,
    READS,
    SANE,
    Outcome,
    Trap,
    ask,
    canonical,
    fuzz,
    guarded,
    models_in,
)

# Mostly the methods that routes have: with another one, a spelling that slips through would be refused all the same, and not be noticed.
METHODS = st.sampled_from(["GET", "POST"] * 4 + ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "post", ""])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def _percent(path: str, at: int) -> str:
    at %= max(1, len(path))
    return path[:at] + "".join(f"%{byte:02x}" for byte in path[at : at + 1].encode()) + path[at + 1 :]


# Each takes a path and a number and makes another spelling, which some server somewhere takes for the same.
SPELLINGS: list[Any] = [
    lambda path, n: path.upper(),
    lambda path, n: path.swapcase(),
    lambda path, n: path + "/" * (n % 3 + 1),
    lambda path, n: "/" * (n % 2 + 1) + path,
    lambda path, n: path.replace("/", "//", n % 3 + 1),
    lambda path, n: path.replace("/", "\\", n % 3 + 1),
    lambda path, n: path.replace("/", "/./", n % 3 + 1),
    lambda path, n: path.replace("/", "\uff0f", n % 3 + 1),
    lambda path, n: path.replace("_", "-"),
    _percent,
    lambda path, n: _percent(path, n).replace("%", "%25"),
    lambda path, n: path.replace("/", "%2f", n % 3 + 1),
    lambda path, n: path.replace("/", "%c0%af", n % 3 + 1),  # overlong
    lambda path, n: path + ["\0", "\n", "\r\n", "\t", " ", "\u200b", "%00", "%0a", ".", "..", ".json", "*", "~", ":443"][n % 14],
    lambda path, n: path + [";a=b", "?a=b", "#a", "?/health", ";/health", "%3f", "%23"][n % 7],
    lambda path, n: ["/health/..", "/health/../", "/v1/models/../..", "/.", "/x/..", "/health%2f..", "/metrics"][n % 7] + path,
    lambda path, n: ["http://h", "https://h:443", "//h", "h", "*", " ", "\t", "http:"][n % 8] + path,
    lambda path, n: path.lstrip("/"),
    lambda path, n: path[: n % (len(path) + 1)],
    lambda path, n: path + path,
]


@st.composite
def paths(draw: st.DrawFn) -> str:
    """A known path after some changes of its spelling; now and then anything at all."""
    path = draw(st.sampled_from([*ADMINISTRATIVE, *GUARDED, *INFERENCE, *READS, "/graftwork/ready"]) | st.text(max_size=40))
    for change, number in draw(st.lists(st.tuples(st.sampled_from(SPELLINGS), st.integers(0, 60)), min_size=draw(st.integers(0, 1)), max_size=2)):
        path = change(path, number)
    return path


# What is almost the token. The token itself belongs to the agent: whoever has it is the agent.
NEARLY = [
    b"",
    TOKEN[:-1],
    TOKEN + b"0",
    TOKEN.upper(),
    TOKEN + b"\0",
    TOKEN + b" ",
    b" " + TOKEN,
    TOKEN + b"," + TOKEN,
    b"Bearer " + TOKEN,
    b"\xff" * 64,
]
HEADERS = st.lists(
    st.tuples(st.just(b"x-graftwork-token"), st.sampled_from(NEARLY))
    | st.tuples(
        st.sampled_from(
            [b"x_graftwork_token", b"authorization", b"x-forwarded-prefix", b"x-original-url", b"x-rewrite-url", b"x-http-method-override"]
        ),
        st.sampled_from([TOKEN, b"/v1/load_lora_adapter", b"PUT"]),
    )
    | st.tuples(st.sampled_from([b"x-amzn-sagemaker-adapter-identifier", b"x-amzn-sagemaker-session-id"]), st.sampled_from([ENGINE.encode(), b"x"]))
    | st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"-1", b"+5", b"5, 6", b"9" * 30, b"9" * 5000, b"\xb2", b"1e9", b"", b"0x10"]))
    | st.tuples(st.sampled_from([b"content-type", b"host", b"expect", b"transfer-encoding", b"accept", b"x-session-id"]), st.binary(max_size=12)),
    max_size=4,
)
QUERIES = st.sampled_from([b"", b"model=x", b"since=1&wait=nan", b"wait=inf&since=", b"since=\xff&wait=9e999", b"%", b"a" * 300]) | st.binary(
    max_size=20
)

MODELS = st.sampled_from(
    ["medical", "legal", BASE, ENGINE, "", "MEDICAL", "medical ", " medical", "medical\0", "medical--", "../medical", "\ud800", "ｍedical", "x" * 300]
)
ODD = st.sampled_from([None, True, 0, 1e308, float("nan"), float("inf"), 10**30, [], ["medical"], [ENGINE], {}, {"model": ENGINE}, {"name": ENGINE}])
VALUES = st.recursive(
    MODELS | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", "stream"]), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["model", "model", "Model", "model ", "m\\u006fdel", "messages", "stream", "background", "user", "lora_name", "lora_path"])


def _text(pairs: list[tuple[str, Any]]) -> str:
    """Write an object with its keys as they stand, doubled or escaped, which no dictionary could hold."""
    return "{" + ",".join(f'"{key}":{json.dumps(value)}' for key, value in pairs) + "}"


def _encoded(text: str, how: str) -> bytes:
    return codecs.encode(text, how, "surrogatepass") if how != "latin-1" else text.encode("latin-1", "replace")


OBJECTS = st.builds(
    _encoded,
    st.builds(_text, st.lists(st.tuples(KEYS, VALUES), max_size=5)),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7", "latin-1"]),
)
CORRUPT = st.builds(
    lambda body, at, byte: body[: at % (len(body) + 1)] + byte + body[at % (len(body) + 1) :], OBJECTS, st.integers(0, 300), st.binary(max_size=2)
)
DEEP = st.builds(
    lambda depth, mark: mark * depth + b'{"model":"medical"}' if mark == b"[" else b'{"model":"medical","a":' + b"[" * depth + b"]" * depth + b"}",
    st.sampled_from([500, 990, 3000, 100_000]),
    st.sampled_from([b"[", b"{"]),
)
DIGITS = st.builds(
    lambda n, at: b'{"model":"%s","n":%s}' % (at, b"1" * n), st.sampled_from([4300, 4301, 9000]), st.sampled_from([b"medical", ENGINE.encode()])
)
BODIES = st.one_of(OBJECTS, OBJECTS, CORRUPT, st.binary(max_size=80), DEEP, DIGITS)


def scope_of(method: str, path: str, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    raw = path.encode("utf-8", "surrogatepass")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": raw,
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"x"), *(headers or [])],
        "client": ("10.0.0.1", 1),
    }


def proper(outcome: Outcome, method: str) -> None:
    assert outcome.complete, "no answer"
    assert outcome.status in SANE, (outcome.status, outcome.body[:200])
    assert method == "HEAD" or int(outcome.headers.get(b"content-length", len(outcome.body))) == len(outcome.body)


def cut(body: bytes, pieces: int) -> list[bytes]:
    size = max(1, -(-len(body) // pieces))
    return [body[at : at + size] for at in range(0, len(body), size)]


def test_the_lists_of_this_test_contradict_neither_each_other_nor_the_guards() -> None:
    assert not PUBLIC & {*ADMINISTRATIVE, *GUARDED}
    assert {*INFERENCE, *READS} <= PUBLIC
    assert [canonical(path) for path in ("/V1//x/../load_lora_adapter/", "http://h/%2576%31/load%5Flora_adapter;a?b")] == [
        "/v1/load_lora_adapter"
    ] * 2
    assert models_in(b'{"model":"a","b":{"model":"c"},"model":"d"}') == ["a", "d"]


@pytest.mark.parametrize("given_token", NEARLY)
def test_what_is_almost_the_token_opens_nothing(runner: asyncio.Runner, run_dir: Path, given_token: bytes) -> None:
    trap = Trap()
    guard = guarded(trap, run_dir)
    for method, path in (("POST", "/v1/load_lora_adapter"), ("POST", "/v1/unload_lora_adapter"), ("GET", GUARDED[0]), ("PUT", GUARDED[1])):
        body = [json.dumps({**ROUTING, "aliases": {}}).encode()]
        outcome = runner.run(ask(guard, scope_of(method, path, headers=[(b"x-graftwork-token", given_token)]), body))
        assert (outcome.status, trap.reached) == (404, []), path
    assert runner.run(ask(guard, scope_of("PUT", GUARDED[1], headers=[(b"x-graftwork-token", TOKEN)]), body)).status == 200, "and the token does"


@pytest.mark.parametrize("change", range(len(SPELLINGS)))
def test_another_spelling_of_a_public_path_is_no_path(runner: asyncio.Runner, run_dir: Path, change: int) -> None:
    """The engine's router would take some of them for the same; the guard must not judge one path and pass on another."""
    trap = Trap()
    guard = guarded(trap, run_dir)
    for path in [*INFERENCE, *READS]:
        method = "GET" if path in READS else "POST"
        for number in range(14):
            runner.run(ask(guard, scope_of(method, SPELLINGS[change](path, number)), [b"{}"]))
    assert trap.breaches() == []


@fuzz(200)
@given(METHODS, paths(), QUERIES, HEADERS, BODIES)
def test_nothing_but_the_public_list_is_reached_without_the_token(
    runner: asyncio.Runner, run_dir: Path, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    trap = Trap()
    guard = guarded(trap, run_dir)
    version = guard.state.version
    outcome = runner.run(ask(guard, scope_of(method, path, query, headers), cut(body, 2)))
    assert trap.breaches() == []
    proper(outcome, method)
    assert guard.state.version == version, "the map or the engine's state was changed"
    assert guard.state.document()["inflight"] == {}


@fuzz(250)
@given(st.sampled_from(INFERENCE), HEADERS, BODIES, st.integers(1, 4))
def test_the_engine_reads_the_base_or_a_routed_name_whatever_the_body_says(
    runner: asyncio.Runner, run_dir: Path, path: str, headers: list[tuple[bytes, bytes]], body: bytes, pieces: int
) -> None:
    trap = Trap()
    outcome = runner.run(ask(guarded(trap, run_dir), scope_of("POST", path, b"", headers), cut(body, pieces)))
    assert trap.breaches() == []
    proper(outcome, "POST")
    asked = models_in(body)
    for found in trap.reached:
        if ENGINE in [model for model in models_in(found.body) if isinstance(model, str)]:
            assert asked[-1] == "medical", "an engine's name is reached by its alias only"
    if asked and isinstance(asked[-1], str) and asked[-1] not in ("", BASE, "medical"):
        assert trap.reached == []
        assert outcome.status in ((503 if asked[-1] == "legal" else 404), 400, 413)  # or nested too deeply, or said to be too long


@fuzz(100)
@given(
    st.sampled_from(INFERENCE + READS),
    st.sampled_from([200, 201, 400, 404, 500]),
    st.sampled_from([b"application/json", b"application/json; charset=utf-8", b"text/event-stream", b"text/plain", b"", b"audio/wav"]),
    st.lists(
        BODIES | st.sampled_from([b"data: ", b"\n\n", b"\r\n", b"data: [DONE]\n\n", b'data: {"model":"', b"event: x\n"]), min_size=1, max_size=5
    ),
)
def test_whatever_the_engine_answers_the_client_gets_a_whole_answer(
    runner: asyncio.Runner, run_dir: Path, path: str, status: int, kind: bytes, parts: list[bytes]
) -> None:
    trap = Trap(answered=[(status, kind, parts)])
    method = "GET" if path in READS else "POST"
    outcome = runner.run(ask(guarded(trap, run_dir), scope_of(method, path), [b'{"model":"medical"}']))
    assert outcome.complete
    assert outcome.status == status or (path == "/v1/models" and outcome.status == 500), "a list that cannot be read is not shown"
    assert int(outcome.headers.get(b"content-length", len(outcome.body))) == len(outcome.body)


DOCUMENTS = st.builds(
    lambda changes, dropped: {key: value for key, value in {**ROUTING, **changes}.items() if key not in dropped},
    st.dictionaries(
        st.sampled_from([*ROUTING, "instance", "replicas", "candidates", "versions"]), VALUES | st.dictionaries(MODELS, VALUES, max_size=3)
    ),
    st.sets(st.sampled_from([*ROUTING]), max_size=2),
)


@fuzz(150)
@given(DOCUMENTS | VALUES)
def test_a_map_is_taken_whole_or_refused_whole(document: Any) -> None:
    try:
        routing = parse(document, BASE)
    except RoutingError:
        return
    assert all(alias.isascii() and "--" not in alias for alias in routing.aliases)
    assert all(name.partition("--")[2].isalnum() for name in routing.engine_names)


@fuzz(40)
@given(paths(), HEADERS, st.binary(max_size=10))
def test_a_websocket_reaches_no_route(runner: asyncio.Runner, run_dir: Path, path: str, headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    trap = Trap()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {**scope_of("GET", path, query, headers), "type": "websocket", "subprotocols": []}
    runner.run(asyncio.wait_for(guarded(trap, run_dir)(scope, receive, send), 10))
    assert trap.reached == []
    assert sent == ["websocket.close"]


HUGE = [
    ("a header of 1 MB", {"headers": [(b"x", b"a" * 1_000_000)]}, 431),
    ("50,000 small headers", {"headers": [(b"x", b"1")] * 50_000}, 431),
    ("a query of 1 MB", {"query": b"a" * 1_000_000}, 431),
    ("a path of 1 MB", {"path": "/health" * 150_000}, 431),
]


@pytest.mark.parametrize(("what", "parts", "status"), HUGE, ids=[row[0] for row in HUGE])
def test_heads_over_the_limit_are_refused(runner: asyncio.Runner, run_dir: Path, what: str, parts: dict[str, Any], status: int) -> None:
    trap = Trap()
    outcome = runner.run(ask(guarded(trap, run_dir), scope_of("GET", **{"path": "/health", **parts}), []))
    assert (outcome.status, outcome.headers.get(b"connection"), trap.reached) == (status, b"close", [])
