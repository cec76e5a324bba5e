"""Hostile bytes on the wire: other spellings of administrative routes, smuggled requests, broken framing. Longer: `GRAFTWORK_FUZZ=long`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from graftwork_guard.middleware import Guard
from graftwork_guard.routing import parse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import BASE, ENGINE, ROUTING, TOKEN
from tests.unit.guard.fuzz_world import ADMINISTRATIVE, BREACH, GUARDED, LONG, SANE, Trap, fuzz, guarded
from tests.unit.guard.wire import PARSERS, PING, Wire, listening, statuses, talk

LOAD = "/v1/load_lora_adapter"
STATUSES = SANE | {501, 505}

# Target of a request line for a path: what a server may decode, fold or resolve to it.
TARGETS = [
    b"%s",
    b"%s/",
    b"%s//",
    b"/%s",
    b"//x%s",
    b"/.%s",
    b"/x/..%s",
    b"/health/../%s",
    b"/health/%%2e%%2e%s",
    b"/health%%2f..%s",
    b"/%%2e%s",
    b"%s%%00",
    b"%s%%0a",
    b"%s%%0d%%0aX:%%20y",
    b"%s%%20",
    b"%s%%09",
    b"%s%%2f",
    b"%s%%3fa=b",
    b"%s%%23",
    b"%s%%3b",
    b"%s%%c0%%80",
    b"%s%%ff",
    b"%s%%",
    b"%s%%u0000",
    b"%s;a=b",
    b"%s?a=b",
    b"%s?/health",
    b"%s#/health",
    b"/health?%s",
    b"/health#%s",
    b"/health;%s",
    b"/metrics%s",
    b"/v1/models%s",
    b"http://x%s",
    b"HTTP://x:8000%s",
    b"https://u:p@x%s",
    b"http://x/health/..%s",
    b"http:%s",
    b"x://%s",
    b"*%s",
    b"x%s",
    b"\\%s",
    b"%s\\",
    b"%s\xff",
    b"\xef\xbc\x8f%s",
    b"%s\x00",
    b"%s\x0b",
    b"%s\t",
    b"%s x",
]
PUBLIC_HERE = {b"/health?%s", b"/health#%s"}  # these may be /health, whatever stands behind it


def spelled(path: str) -> Iterator[tuple[bytes, frozenset[int]]]:
    """Yield (target, statuses that are right for it) of every spelling of an administrative path."""
    raw = path.encode()
    refused = frozenset({400, 404, 431})
    for template in TARGETS:
        yield template % raw, frozenset({200, 400, 404, 405}) if template in PUBLIC_HERE else refused
    whole = b"/" + b"".join(b"%%%02x" % byte for byte in raw[1:])
    for target in (raw.upper(), raw.swapcase(), raw[1:], raw.replace(b"_", b"%5F"), raw.replace(b"/", b"%2F"), raw.replace(b"/", b"%252f")):
        yield target, refused
    for target in (
        whole,
        whole.upper(),
        whole.replace(b"%", b"%25"),
        raw.replace(b"/", b"%c0%af"),
        raw.replace(b"/", b"\\"),
        raw.replace(b"/", b"//"),
    ):
        yield target, refused


def request(target: bytes, method: bytes = b"POST", body: bytes = b"{}", headers: bytes = b"") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + headers + _length(body) + b"\r\n" + body


def _length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


ADMIN = request(LOAD.encode(), body=b'{"lora_name":"a","lora_path":"/etc"}')
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
MEDICAL = b'{"model":"medical"}'
CHUNKED = b"13\r\n" + MEDICAL + b"\r\n0\r\n\r\n"
ZERO = b"0\r\n\r\n"
WS = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def _both(first: bytes, second: bytes, body: bytes) -> bytes:
    return CHAT + first + b"\r\n" + second + b"\r\n\r\n" + body


# Each is followed by a plain request that ends the connection. Asserted of all: nothing administrative is reached, every answer is a sane one.
ATTACKS: dict[str, bytes] = {
    "a public request, then an administrative one": HEALTH + ADMIN,
    "many public requests, then administrative ones": HEALTH * 5 + ADMIN * 5 + CHAT + _length(MEDICAL) + b"\r\n" + MEDICAL + ADMIN,
    "an administrative one first": ADMIN + HEALTH,
    "a refused one whose body is an administrative request": request(b"/adapters", body=ADMIN) + HEALTH,
    "a GET with a body that is one": request(b"/health", b"GET", ADMIN),
    "a body longer than it says": CHAT + b"content-length: 2\r\n\r\n{}" + ADMIN,
    "content-length 0 before one": CHAT + b"content-length: 0\r\n\r\n" + ADMIN,
    "no length at all": CHAT + b"\r\n" + ADMIN,
    "CL then TE": _both(b"content-length: 4", b"transfer-encoding: chunked", ZERO + ADMIN),
    "TE then CL": _both(b"transfer-encoding: chunked", b"content-length: 4", b"5c\r\n" + ADMIN + b"\r\n" + ZERO),
    "TE in another spelling": _both(b"content-length: 5", b"Transfer-Encoding:\tChunked", ZERO + ADMIN),
    "TE with a blank before the colon": _both(b"content-length: 5", b"transfer-encoding : chunked", ZERO + ADMIN),
    "TE with a vertical tab": _both(b"content-length: 5", b"transfer-encoding: \x0bchunked", ZERO + ADMIN),
    "TE folded": _both(b"content-length: 5", b"transfer-encoding:\r\n chunked", ZERO + ADMIN),
    "TE twice": _both(b"transfer-encoding: chunked", b"transfer-encoding: identity", ZERO + ADMIN),
    "TE identity": _both(b"transfer-encoding: identity", b"content-length: 5", ZERO + ADMIN),
    "TE unknown": _both(b"transfer-encoding: xchunked", b"content-length: 5", ZERO + ADMIN),
    "TE list": _both(b"transfer-encoding: gzip, chunked", b"x: y", ZERO + ADMIN),
    "TE chunked not last": _both(b"transfer-encoding: chunked, gzip", b"x: y", ZERO + ADMIN),
    "TE in quotes": _both(b'transfer-encoding: "chunked"', b"content-length: 5", ZERO + ADMIN),
    "two lengths": _both(b"content-length: 2", b"content-length: 200", b"{}" + ADMIN),
    "two equal lengths": _both(b"content-length: 2", b"content-length: 2", b"{}" + ADMIN),
    "a list of lengths": _both(b"content-length: 2, 200", b"x: y", b"{}" + ADMIN),
    **{
        f"length {value!r}": _both(b"content-length: " + value, b"x: y", b"{}" + ADMIN)
        for value in (b"+2", b"-2", b"0x2", b"2e0", b"2 ", b"", b" ", b"9" * 5000)
    },
    **{
        f"chunk size {size!r}": _both(b"transfer-encoding: chunked", b"x: y", size + b"\r\n{}\r\n" + ZERO + ADMIN)
        for size in (b"2", b"02", b"2;x", b'2;x="\r\n"', b"0x2", b"-2", b"+2", b" 2", b"2 ", b"g", b"", b"f" * 17, b"2\n", b"2\r", b"2;\n")
    },
    "chunks with bare line feeds": _both(b"transfer-encoding: chunked", b"x: y", b"2\n{}\n0\n\n" + ADMIN),
    "a chunk longer than it says": _both(b"transfer-encoding: chunked", b"x: y", b"2\r\n{}" + ADMIN + ZERO),
    "trailers that are headers": _both(
        b"transfer-encoding: chunked",
        b"trailer: content-length",
        b"13\r\n" + MEDICAL + b"\r\n0\r\ncontent-length: 500\r\nx-amzn-sagemaker-adapter-identifier: a\r\nx-graftwork-token: x\r\n\r\n" + ADMIN,
    ),
    "trailers that are a request": _both(b"transfer-encoding: chunked", b"x: y", b"2\r\n{}\r\n0\r\n" + ADMIN),
    "expect, refused": request(LOAD.encode(), headers=b"expect: 100-continue\r\n") + ADMIN,
    "expect, served": CHAT + b"expect: 100-continue\r\n" + _length(MEDICAL) + b"\r\n" + MEDICAL + ADMIN,
    "expect something else": CHAT + b"expect: 200-ok\r\n" + _length(MEDICAL) + b"\r\n" + MEDICAL + ADMIN,
    "bare line feeds": HEALTH.replace(b"\r\n", b"\n") + ADMIN.replace(b"\r\n", b"\n"),
    "bare carriage returns": HEALTH.replace(b"\r\n", b"\r") + ADMIN,
    "blank lines first": b"\r\n\r\n\n" + ADMIN,
    "a header line without a colon": b"GET /health HTTP/1.1\r\nhost: x\r\nPOST /adapters HTTP/1.1\r\n\r\n" + ADMIN,
    "a folded header": b"GET /health HTTP/1.1\r\nhost: x\r\nx: a\r\n POST /adapters HTTP/1.1\r\n\r\n" + ADMIN,
    "a line break in a value": b"GET /health HTTP/1.1\r\nhost: x\r\nx: a\rPOST /adapters HTTP/1.1\r\n\r\n" + ADMIN,
    "a zero byte in a name": b"GET /health HTTP/1.1\r\nho\0st: x\r\n\r\n" + ADMIN,
    "a zero byte in a value": b"GET /health HTTP/1.1\r\nhost: x\0y\r\n\r\n" + ADMIN,
    "a blank before the first header": b"GET /health HTTP/1.1\r\n host: x\r\n\r\n" + ADMIN,
    "no host": b"GET /health HTTP/1.1\r\n\r\n" + ADMIN.replace(b"host: x\r\n", b""),
    "two hosts": b"GET /health HTTP/1.1\r\nhost: x\r\nhost: /adapters\r\n\r\n" + ADMIN,
    "the host of the agent": ADMIN.replace(b"host: x", b"host: 127.0.0.1:8000\r\nx-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1"),
    "paths in headers": HEALTH.replace(b"host: x", b"host: x/v1/load_lora_adapter\r\nx-original-url: /adapters\r\nx-rewrite-url: /sleep"),
    "another method in a header": CHAT + b"x-http-method-override: DELETE\r\n" + _length(MEDICAL) + b"\r\n" + MEDICAL,
    "nearly the token": ADMIN.replace(b"host: x", b"host: x\r\nx-graftwork-token: " + TOKEN[:-1]),
    "the token under another name": ADMIN.replace(b"host: x", b"host: x\r\nx_graftwork_token: " + TOKEN),
    "the token folded": ADMIN.replace(b"host: x", b"host: x\r\nx-graftwork-token: " + TOKEN[:32] + b"\r\n " + TOKEN[32:]),
    "a wrong token before the right one": ADMIN.replace(b"host: x", b"host: x\r\nx-graftwork-token: a\r\nx-graftwork-token: " + TOKEN),
    "HTTP/1.0": b"POST /v1/load_lora_adapter HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" + ADMIN,
    "HTTP/0.9": b"GET /v1/load_lora_adapter\r\n" + ADMIN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ADMIN,
    "HTTP/9.9": ADMIN.replace(b"HTTP/1.1", b"HTTP/9.9"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + ADMIN,
    "a tunnel": b"CONNECT /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "a tunnel to a host": b"CONNECT x:8000 HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "a preflight": b"OPTIONS /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\norigin: http://y\r\naccess-control-request-method: POST\r\n\r\n",
    "TRACE": b"TRACE /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "a lower-case method": b"post /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "an unknown method": b"BREW /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "a websocket": b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\n" + WS + b"\r\n" + ADMIN,
    "a websocket to an administrative route": b"GET /v1/load_lora_adapter HTTP/1.1\r\nhost: x\r\n" + WS + b"\r\n" + ADMIN,
    "an upgrade with a body": request(b"/v1/chat/completions", body=MEDICAL, headers=WS) + ADMIN,
    "an upgrade to HTTP/2": HEALTH.replace(
        b"\r\n\r\n", b"\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
    )
    + ADMIN,
    "a name of the engine": CHAT + _length(b'{"model":"%s"}' % ENGINE.encode()) + b"\r\n" + b'{"model":"%s"}' % ENGINE.encode(),
    "a header of 1 MB": b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n" + ADMIN,
    "a target of 1 MB": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n" + ADMIN,
    "20,000 headers": b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n" + ADMIN,
    "trailers of 1 MB": _both(b"transfer-encoding: chunked", b"x: y", b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 160_000 + b"\r\n" + ADMIN),
    "100,000 nested lists": request(b"/v1/chat/completions", body=b'{"model":"medical","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}") + ADMIN,
    **{
        f"a body in {encoding}": request(b"/v1/chat/completions", body=f'{{"model":"{ENGINE}","\ud800":"x"}}'.encode(encoding, "surrogatepass"))
        + ADMIN
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be")
    },
    "a doubled key": request(b"/v1/chat/completions", body=b'{"model":"medical","model":"%s"}' % ENGINE.encode()) + ADMIN,
    "a doubled key, the base last": request(b"/v1/chat/completions", body=b'{"model":"%s","model":"support"}' % ENGINE.encode()) + ADMIN,
    "an escaped key": request(b"/v1/chat/completions", body=b'{"m\\u006fdel":"%s","model":"medical"}' % ENGINE.encode()) + ADMIN,
    "numbers that are none": request(b"/v1/chat/completions", body=b'{"model":NaN,"a":-Infinity,"b":1e999,"c":1E400}') + ADMIN,
}
# After these a server may take what follows for another protocol's, or for a chunk's: the plain request is not answered, and the client ends it.
SWALLOWED = {name for name in ATTACKS if "tunnel" in name or "websocket" in name or "upgrade" in name or "fffff" in name}


@pytest.fixture(scope="module")
def trap() -> Trap:
    return Trap()


@pytest.fixture(scope="module")
def guard(trap: Trap, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return guarded(trap, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module", params=PARSERS)
def wire(request: pytest.FixtureRequest, guard: Guard) -> Wire:
    return Wire(guard, request.param)


@pytest.fixture(scope="module", params=PARSERS)
def address(request: pytest.FixtureRequest, guard: Guard) -> Iterator[tuple[str, int]]:
    with listening(guard, request.param) as address:
        yield address


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(autouse=True)
def nothing_reached_yet(trap: Trap) -> None:
    trap.reached.clear()


def held(trap: Trap, guard: Guard, answer: bytes) -> None:
    assert trap.breaches() == []
    assert BREACH not in answer
    assert set(statuses(answer)) <= STATUSES | {100}, answer[:400]
    assert guard.state.routing == parse(ROUTING, BASE), "the map was changed"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_no_spelling_of_a_public_route_is_judged_as_one_path_and_passed_on_as_another(
    runner: asyncio.Runner, trap: Trap, guard: Guard, wire: Wire, method: bytes
) -> None:
    for path in ["/health", "/v1/chat/completions", "/v1/models"]:
        for target, _ in spelled(path):
            held(trap, guard, runner.run(wire.exchange([request(target, method)])))
    assert {found.path for found in trap.reached} >= {"/health", "/v1/models"} if method == b"GET" else {"/v1/chat/completions"}


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_no_spelling_of_an_administrative_route_is_one(runner: asyncio.Runner, trap: Trap, guard: Guard, wire: Wire, method: bytes) -> None:
    for path in [*ADMINISTRATIVE[:: 1 if LONG else 6], *GUARDED]:
        for target, right in spelled(path):
            answer = runner.run(wire.exchange([request(target, b"PUT" if path in GUARDED and method == b"POST" else method)]))
            held(trap, guard, answer)
            assert statuses(answer), target
            assert set(statuses(answer)) <= right, target


@pytest.mark.parametrize("name", ATTACKS)
def test_smuggled_and_broken_requests_reach_nothing(runner: asyncio.Runner, trap: Trap, guard: Guard, wire: Wire, name: str) -> None:
    """The same bytes at once, and in pieces that respect no border."""
    data = ATTACKS[name]
    for size in (len(data), len(data) // 50 if len(data) > 2000 else 7):
        answer = runner.run(wire.exchange([*(data[at : at + size] for at in range(0, len(data), size)), PING]))
        held(trap, guard, answer)


def test_every_attack_is_answered_on_a_real_connection_and_the_process_lives(trap: Trap, guard: Guard, address: tuple[str, int]) -> None:
    for name, data in ATTACKS.items():
        trap.reached.clear()
        answer = talk(address, data + PING, patience=0.2 if name in SWALLOWED else 5)
        held(trap, guard, answer)
        # A client that is still writing may see a reset in place of the answer.
        assert statuses(answer) or len(data) > 100_000 or name in SWALLOWED, name
        assert statuses(talk(address, PING)) == [200], name


def test_every_spelling_is_refused_on_a_real_connection(trap: Trap, guard: Guard, address: tuple[str, int]) -> None:
    for target, right in spelled(LOAD):
        answer = talk(address, request(target) + PING)
        held(trap, guard, answer)
        assert statuses(answer)[0] in right, target
        assert statuses(answer)[1:] in ([], [200]), target


def test_pipelined_requests_are_judged_one_by_one(runner: asyncio.Runner, trap: Trap, wire: Wire) -> None:
    """That the attacks above are held off is worth something only because the same connection serves what is allowed."""
    data = HEALTH + ADMIN + request(b"/v1/chat/completions", body=MEDICAL) + ADMIN + HEALTH
    assert statuses(runner.run(wire.exchange([data]))) == [200, 404, 200, 404, 200]
    assert [(found.path, found.body) for found in trap.reached] == [
        ("/health", b""),
        ("/v1/chat/completions", b'{"model":"%s"}' % ENGINE.encode()),
        ("/health", b""),
    ]
    agent = ADMIN.replace(b"host: x", b"host: x\r\nx-graftwork-token: " + TOKEN)
    assert statuses(runner.run(wire.exchange([agent + ADMIN]))) == [200, 404], "the token is of one request, not of a connection"


SEEDS = st.sampled_from([data for name, data in ATTACKS.items() if len(data) < 2000 and "token" not in name])
BYTES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"/",
        b"%",
        b"%2f",
        b"%00",
        b";",
        b"?",
        b"#",
        b"\xff",
        b"chunked",
        b"0",
        b"5",
        b",",
        b"HTTP/1.1",
    ]
) | st.binary(max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Two attacks in a row with some of their bytes changed, in pieces."""
    data = b"".join(draw(st.lists(SEEDS, min_size=1, max_size=2))) + HEALTH
    for at, gone, instead in draw(st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, 4), BYTES), max_size=6)):
        data = data[:at] + instead + data[at + gone :]
    ends = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True) if end > begin]


@fuzz(120)
@given(pieces=streams())
def test_no_change_of_the_bytes_opens_a_way(runner: asyncio.Runner, trap: Trap, guard: Guard, wire: Wire, pieces: list[bytes]) -> None:
    trap.reached.clear()
    answer = runner.run(wire.exchange([*pieces, PING]))
    held(trap, guard, answer)
