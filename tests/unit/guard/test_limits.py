"""How much a key may ask: the buckets by themselves, and what a client sees of them."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from graftwork_guard.asgi import Receive
from graftwork_guard.limits import Limits, Meter, duration, share
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import AGENT, Call
from tests.unit.guard.keyed import A, B, KeyedWorld, bearer, entry

CHAT = "/v1/chat/completions"


@pytest.fixture
async def world(tmp_path: Path) -> KeyedWorld:
    world = KeyedWorld(tmp_path)
    await world.route()
    return world


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.25, "250ms"), (1, "1s"), (1.01, "2s"), (59.5, "1m0s"), (90, "1m30s"), (3600, "1h0m0s"), (4505, "1h15m5s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("limit", "replicas", "part"), [(600, 1, 600), (600, 3, 200), (100, 3, 33), (2, 3, 1), (1, 1000, 1), (5, 0, 5)])
def test_a_pod_has_its_share_and_at_least_one(limit: int, replicas: int, part: int) -> None:
    assert share(limit, replicas) == part


@given(st.integers(1, 50), st.integers(1, 5), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_no_window_of_time_lets_more_in_than_one_bucket_and_what_flowed_in(limit: int, replicas: int, pauses: list[float]) -> None:
    now = [0.0]
    meter = Meter(Limits(requests_per_minute=limit), lambda: now[0])
    size, let_in = share(limit, replicas), 0
    for pause in pauses:
        now[0] += pause
        excess = meter.enter(replicas)
        let_in += excess is None
        if excess:
            assert excess.retry_after_seconds >= 1
            later = now[0] + excess.retry_after_seconds + 1e-6
            twin = Meter(Limits(requests_per_minute=limit), lambda at=later: at)
            twin._requests._used, twin._requests._at = meter._requests._used, meter._requests._at
            assert twin.enter(replicas) is None, "who waits as long as told is let in"
        assert let_in <= size + now[0] * size / 60 + 1e-6


async def test_requests_per_minute_then_429_with_what_clients_of_openai_know(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, requestsPerMinute=3), entry("team-b", B))
    for left in (2, 1, 0):
        answer = await world.ask(A, {"model": "medical"})
        assert answer.status == 200
        assert answer.headers[b"x-ratelimit-limit-requests"] == b"3"
        assert answer.headers[b"x-ratelimit-remaining-requests"] == str(left).encode()
    assert answer.headers[b"x-ratelimit-reset-requests"] == b"1m0s"
    refused = await world.ask(A, {"model": "medical"})
    assert (refused.status, refused.headers[b"retry-after"]) == (429, b"20")
    assert (refused.json["error"]["type"], refused.json["error"]["code"]) == ("requests", "rate_limit_exceeded")
    assert "3 requests per minute" in refused.json["error"]["message"]
    assert refused.headers[b"x-ratelimit-remaining-requests"] == b"0"
    messages = await world.ask(A, {"model": "medical"}, "/v1/messages")
    assert (messages.status, messages.json["error"]["type"]) == (429, "rate_limit_error")
    assert (await world.ask(B)).status == 200, "another key has limits of its own, or none"
    world.now += 20
    assert (await world.ask(A)).status == 200
    assert (await world.ask(A)).status == 429
    assert len(world.engine.seen) == 5


async def test_a_key_without_limits_gets_no_headers(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A))
    assert not [name for name in (await world.ask(A)).headers if name.startswith(b"x-ratelimit")]


async def test_limits_are_divided_by_the_ready_replicas(world: KeyedWorld) -> None:
    await world.route(replicas=3)
    await world.keys(entry("team-a", A, requestsPerMinute=7, concurrent=1))
    statuses = [(await world.ask(A)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    await world.route(replicas=1)
    answer = await world.ask(A)
    assert (answer.status, answer.headers[b"x-ratelimit-limit-requests"]) == (200, b"7"), "what was used stays used, the rest is there at once"
    assert answer.headers[b"x-ratelimit-remaining-requests"] == b"4"


@pytest.mark.parametrize("replicas", [0, "2", True, 1.5])
async def test_replicas_that_are_no_number_of_pods_are_refused(world: KeyedWorld, replicas: object) -> None:
    assert (await world.route(replicas=replicas)).status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {}),
        (CHAT, {"stream": True}),
        ("/v1/completions", {"stream": True}),
        ("/v1/responses", {"stream": True}),
        ("/v1/messages", {"stream": True}),
    ],
)
async def test_tokens_are_taken_after_the_answer_and_debt_is_paid_first(world: KeyedWorld, path: str, body: dict[str, object]) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=6))
    assert (await world.ask(A, body, path)).status == 200  # costs 7
    refused = await world.ask(A, body, path)
    assert (refused.status, refused.headers[b"retry-after"]) == (429, b"20"), "1 of debt and 1 to go on, at one in 10 s"
    assert refused.headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert refused.headers[b"x-ratelimit-reset-tokens"] == b"1m10s"
    if path == CHAT:
        assert refused.json["error"]["type"] == "tokens"
    world.now += 20
    assert (await world.ask(A, body, path)).status == 200


async def test_the_headers_of_a_whole_answer_include_its_own_tokens(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=100))
    answer = await world.ask(A)
    assert (answer.headers[b"x-ratelimit-limit-tokens"], answer.headers[b"x-ratelimit-remaining-tokens"]) == (b"100", b"93")
    assert b"x-ratelimit-limit-requests" not in answer.headers


async def test_concurrent_requests_are_counted_until_their_answers_end(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, concurrent=2))
    world.engine.gate.clear()
    calls = [Call(world.guard, "POST", CHAT, b'{"stream":true}', bearer(A)) for _ in range(2)]
    running = [asyncio.create_task(call.run()) for call in calls]
    await world.engine.streaming.wait()
    while len(world.engine.seen) < 2:
        await asyncio.sleep(0)
    refused = await world.ask(A)
    assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
    assert "2 requests at once" in refused.json["error"]["message"]
    calls[0].leave()
    await running[0]
    assert (await world.ask(A)).status == 200
    world.engine.gate.set()
    await running[1]


async def test_what_is_refused_by_name_or_shape_lets_its_place_go(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, concurrent=1))
    for document in ({"model": "nobody"}, {"model": "legal"}, {"explode": 1}):
        assert (await world.ask(A, document)).status in (400, 404, 503)
    world.engine.fail = RuntimeError("seen")
    with pytest.raises(RuntimeError):
        await world.ask(A)
    world.engine.fail = None
    assert (await world.ask(A)).status == 200


async def test_leaving_early_is_not_free(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=1000))
    body = b'{"stream":true,"messages":"' + b"x" * 400 + b'"}'
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, body, bearer(A))
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    call.leave()
    await running
    left = int((await world.ask(A)).headers[b"x-ratelimit-remaining-tokens"]) + 7
    assert 800 < left < 900, "the prompt by its size, and one event"


@pytest.mark.parametrize(("path", "held"), [(CHAT, 4), ("/v1/responses", 4), ("/v1/messages", 3)])
async def test_who_leaves_after_the_usage_was_told_pays_what_was_used(world: KeyedWorld, path: str, held: int) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=1000))
    world.engine.gate.clear()
    world.engine.held = held
    call = Call(world.guard, "POST", path, json.dumps({"stream": True, "messages": "x" * 400, "say": "word " * 80}).encode(), bearer(A))
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    call.leave()
    await running
    world.engine.gate.set()
    left = int((await world.ask(A)).headers[b"x-ratelimit-remaining-tokens"]) + 7
    assert 1000 - left == 7, "five of the prompt and two of the answer, as the engine said"


async def test_text_that_came_in_few_events_is_charged_by_its_bytes(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=1000))
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, json.dumps({"stream": True, "say": "word " * 80}).encode(), bearer(A))
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    call.leave()
    await running
    left = int((await world.ask(A)).headers[b"x-ratelimit-remaining-tokens"]) + 7
    assert 1000 - left == pytest.approx(110 + 100, abs=10), "440 bytes of request, 400 bytes of text"


@pytest.mark.parametrize(
    ("path", "body", "charged"),
    [
        (CHAT, {"max_tokens": 40}, 40),
        (CHAT, {"max_completion_tokens": 30, "max_tokens": 500, "n": 2}, 60),
        (CHAT, {"max_output_tokens": 1}, 1000),
        ("/v1/chat/completions/batch", {"max_tokens": 20, "messages": [[{}], [{}], [{}]]}, 60),
        ("/v1/completions", {"max_tokens": "25", "prompt": ["a", "b"]}, 50),
        ("/v1/completions", {"max_tokens": 25, "prompt": [1, 2, 3]}, 25),
        ("/v1/responses", {"max_output_tokens": 70}, 70),
        ("/v1/messages", {"max_tokens": 80}, 80),
        ("/v1/messages/count_tokens", {"max_tokens": 80}, 0),
        ("/v1/embeddings", {}, 0),
        (CHAT, {}, 1000),
    ],
)
async def test_a_whole_answer_that_is_left_before_it_comes_is_charged_by_its_time_and_by_what_it_asked_for(
    world: KeyedWorld, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object], charged: int
) -> None:
    async def thinking(_scope: object, receive: Receive, _send: object) -> None:
        while (await receive())["type"] != "http.disconnect":
            asked.set()

    asked = asyncio.Event()
    await world.keys(entry("team-a", A, tokensPerMinute=1000))
    monkeypatch.setattr("graftwork_guard.usage.TOKENS_PER_SECOND", 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(world.guard, "app", thinking)
        call = Call(world.guard, "POST", path, json.dumps(body).encode(), bearer(A))
        running = asyncio.create_task(call.run())
        await asked.wait()
        call.leave()
        await running
    world.now += 0.07  # one token flows back, so that somebody is let in
    answer = await world.ask(A, {"explode": 400})
    left = int(answer.headers[b"x-ratelimit-remaining-tokens"])
    prompt = min(1000, len(json.dumps(body)) // 4 + charged)
    assert 1000 - left == pytest.approx(prompt, abs=50 if charged == 1000 else 2)


async def test_an_estimate_costs_a_minute_at_most(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, tokensPerMinute=60))
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, b'{"stream":true,"image":"' + b"x" * 100_000 + b'"}', bearer(A))
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    call.leave()
    await running
    world.engine.gate.set()
    assert (await world.ask(A)).status == 429
    world.now += 1
    assert (await world.ask(A)).status == 200


async def test_what_a_key_used_goes_on_when_keys_are_replaced(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, requestsPerMinute=2))
    await world.ask(A)
    await world.ask(A)
    await world.keys(entry("team-a", B, requestsPerMinute=2), entry("other", A))
    assert (await world.ask(B)).status == 429, "a new key for the same name is the same tenant"
    await world.keys(entry("team-a", B, requestsPerMinute=3))
    assert (await world.ask(B)).status == 200


async def test_metrics_count_by_the_names_of_the_keys_that_there_are(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, requestsPerMinute=1), entry("team-b", B))
    await world.ask(A, {"stream": True})
    await world.ask(A)
    await world.ask("gw-nobody-knows-me")
    assert await world.metric('graftwork_key_requests_total{key="team-a"}') == 1
    assert await world.metric('graftwork_key_requests_total{key="team-b"}') == 0
    assert await world.metric('graftwork_key_tokens_total{key="team-a",kind="prompt"}') == 5
    assert await world.metric('graftwork_key_tokens_total{key="team-a",kind="completion"}') == 2
    assert await world.metric('graftwork_key_refused_total{key="team-a",limit="requests"}') == 1
    await world.keys(entry("team-b", B))
    text = (await world.call("GET", "/graftwork/metrics", headers=AGENT)).body
    assert b"team-a" not in text
    assert b'key="team-b"' in text


def test_a_meter_never_refuses_for_ever() -> None:
    now = [0.0]
    meter = Meter(Limits(tokens_per_minute=10), lambda: now[0])
    meter.use(1e6)
    excess = meter.enter(1)
    assert excess is not None
    now[0] += excess.retry_after_seconds
    assert meter.enter(1) is None
    assert math.isfinite(excess.retry_after_seconds)
