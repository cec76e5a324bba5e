"""Between a stable version and its candidate: exact in the mean, one way for a session, monotone in the weight, and never elsewhere."""

from __future__ import annotations

import asyncio
import math
import random
from hashlib import sha256
from typing import Any

import pytest
from graftwork_guard.choice import draw_number, session_number, session_of, takes_candidate
from graftwork_guard.routing import Candidate, Refusal, Routing, RoutingError, Target, Unavailable, decide, parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.guard.fakes import ENGINE, OTHER, ROUTING, Call, World

NEW = "medical--bbbbbbbbbbbb"
CHAT = "/v1/chat/completions"
DRAWS = 10_000
WEIGHTS = st.integers(0, 100)
SESSIONS = st.binary(min_size=1, max_size=40)
ALIASES = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,15}", fullmatch=True)


def within_five_sigma(hits: int, weight: int) -> bool:
    share = weight / 100
    return abs(hits - DRAWS * share) <= 5 * math.sqrt(DRAWS * share * (1 - share))


def routed(weight: int) -> Routing:
    return Routing("support", {"medical": ENGINE, "legal": OTHER}, candidates={"medical": Candidate(NEW, weight)}, versions={NEW: "8", ENGINE: "7"})


def decided(weight: int, session: bytes = b"", draw: int = 0) -> Target:
    target = decide(routed(weight), "medical", lambda: session, lambda: draw)
    assert isinstance(target, Target)
    return target


@settings(derandomize=True, max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(0, 2**32))
@example(0, 1)
@example(1, 1)
@example(100, 1)
def test_draws_match_the_weight_within_binomial_error(weight: int, seed: int) -> None:
    source = random.Random(seed)
    hits = sum(takes_candidate(weight, "medical", b"", lambda: source.randrange(100)) for _ in range(DRAWS))
    assert within_five_sigma(hits, weight)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(WEIGHTS, ALIASES, st.binary(max_size=8))
@example(50, "medical", b"")
def test_sessions_match_the_weight_within_binomial_error(weight: int, alias: str, prefix: bytes) -> None:
    hits = sum(takes_candidate(weight, alias, prefix + b"%d" % number, draw_number) for number in range(DRAWS))
    assert within_five_sigma(hits, weight)


def test_the_real_draw_is_even() -> None:
    numbers = [draw_number() for _ in range(DRAWS)]
    assert set(numbers) == set(range(100))
    assert all(within_five_sigma(sum(number < weight for number in numbers), weight) for weight in (1, 10, 50, 99))


@given(ALIASES, SESSIONS)
def test_the_number_of_a_session_is_the_contracts(alias: str, session: bytes) -> None:
    assert session_number(alias, session) == int.from_bytes(sha256(alias.encode() + b"\0" + session).digest()[:8], "big") % 100


@given(SESSIONS, WEIGHTS, WEIGHTS, st.integers(0, 99), st.integers(0, 99))
def test_a_session_stays_where_it_is_and_leaves_the_candidate_only_when_the_weight_falls(session: bytes, a: int, b: int, x: int, y: int) -> None:
    low, high = sorted((a, b))
    assert decided(low, session, x) == decided(low, session, y), "no draw moves it"
    if decided(low, session).engine == NEW:
        assert decided(high, session).engine == NEW


@given(st.integers(0, 99), SESSIONS | st.just(b""))
def test_at_0_never_at_100_always(draw: int, session: bytes) -> None:
    assert decided(0, session, draw) == Target("medical", ENGINE, "7")
    assert decided(100, session, draw) == Target("medical", NEW, "8")


NAMES = ["medical", "legal", "support", "tax", ENGINE, NEW, "", None]
ENGINES = st.sampled_from([ENGINE, OTHER, NEW])


@given(
    st.dictionaries(st.sampled_from(["medical", "legal"]), ENGINES),
    st.dictionaries(st.sampled_from(["medical", "legal"]), st.tuples(ENGINES, WEIGHTS)),
    st.sampled_from(NAMES),
    SESSIONS | st.just(b""),
    st.integers(0, 99),
)
def test_nothing_is_ever_sent_to_a_name_that_the_map_does_not_have(
    aliases: dict[str, str], tried: dict[str, tuple[str, int]], model: str | None, session: bytes, draw: int
) -> None:
    waiting = {alias: Unavailable("AdapterLoading", 5) for alias in ("medical", "legal") if alias not in aliases}
    routing = Routing("support", aliases, waiting, candidates={alias: Candidate(*item) for alias, item in tried.items()})
    target = decide(routing, model, lambda: session, lambda: draw)
    if isinstance(target, Target):
        expected = {aliases.get(str(model)), tried[str(model)][0] if model in tried and tried[str(model)][1] else None}
        assert target.engine in (expected if model in (*aliases, *tried) else {""})
        assert target.engine in {"", *routing.engine_names}
    else:
        assert isinstance(target, Refusal)
    assert routing.engine_names == {*aliases.values(), *(item[0] for item in tried.values())}


def test_a_session_is_told_by_its_header_then_by_the_user_and_else_not_at_all() -> None:
    assert session_of([(b"x-session-id", b"s1")], "u") == b"s1"
    assert session_of([(b"x-session-id", b"")], "u") == b"u"
    assert session_of([], "é\ud800") == "é".encode() + b"\xed\xa0\x80"
    for user in (None, "", 7, ["u"], {"id": "u"}):
        assert session_of([], user) == b""


def test_what_has_no_candidate_asks_for_no_session_and_draws_nothing() -> None:
    def never() -> Any:
        raise AssertionError

    for model in ("legal", "support", None, "nobody"):
        decide(routed(50), model, never, never)


async def test_requests_of_one_session_keep_their_version_and_the_answer_says_the_alias(world: World) -> None:
    await world.route(candidates={"medical": {"engine": NEW, "weight": 50}})
    there = [name for name in map(str, range(40)) if session_number("medical", name.encode()) < 50]
    here = [name for name in map(str, range(40)) if session_number("medical", name.encode()) >= 50]
    assert there
    assert here
    for name, engine in [(name, NEW) for name in there] + [(name, ENGINE) for name in here]:
        by_header = await Call(world.guard, "POST", CHAT, b'{"model":"medical","user":"x"}', [(b"x-session-id", name.encode())]).run()
        assert world.engine.seen[-1].json["model"] == engine
        by_user = await world.post({"model": "medical", "user": name, "stream": True})
        assert world.engine.seen[-1].json["model"] == engine
        assert by_header.json["model"] == "medical"
        assert {document["model"] for document in by_user.event_documents} == {"medical"}


async def test_a_pin_moves_every_session_with_the_next_request(world: World) -> None:
    await world.route(candidates={"medical": {"engine": NEW, "weight": 100}})
    await world.post({"model": "medical", "user": "u"})
    await world.route()
    await world.post({"model": "medical", "user": "u"})
    assert [seen.json["model"] for seen in world.engine.seen] == [NEW, ENGINE]


async def test_the_share_of_a_candidate_is_served_while_the_stable_version_is_not_loaded(world: World) -> None:
    await world.route(candidates={"legal": {"engine": NEW, "weight": 100}})
    assert (await world.post({"model": "legal"})).status == 200
    await world.route(candidates={"legal": {"engine": NEW, "weight": 0}})
    assert (await world.post({"model": "legal"})).status == 503


async def test_a_candidate_that_is_still_routed_wakes_nobody_and_one_that_no_longer_is_does(world: World) -> None:
    await world.route(candidates={"medical": {"engine": NEW, "weight": 100}})
    before = await world.engine_state()
    await world.post({"model": "medical"})
    assert (await world.engine_state())["version"] == before["version"]
    world.engine.gate.clear()
    task = asyncio.create_task(world.post({"model": "medical", "stream": True}))
    await world.engine.streaming.wait()
    await world.route()
    document = await world.engine_state()
    assert document["inflight"] == {NEW: 1}
    waiting = asyncio.create_task(world.engine_state(f"since={document['version']}&wait=30".encode()))
    await asyncio.sleep(0)
    world.engine.gate.set()
    answer = await task
    assert {event["model"] for event in answer.event_documents} == {"medical"}
    assert (await asyncio.wait_for(waiting, 5))["inflight"] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": []}, "candidates is []"),
        ({"candidates": {"Medical": {"engine": NEW, "weight": 1}}}, "'Medical'"),
        ({"candidates": {"medical": NEW}}, "engine adapter name"),
        ({"candidates": {"medical": {"engine": "text", "weight": 1}}}, "'text'"),
        ({"candidates": {"medical": {"engine": f"{NEW}\n", "weight": 1}}}, "engine adapter name"),
        ({"candidates": {"medical": {"engine": NEW}}}, "from 0 to 100"),
        ({"candidates": {"medical": {"engine": NEW, "weight": 101}}}, "from 0 to 100"),
        ({"candidates": {"medical": {"engine": NEW, "weight": -1}}}, "-1"),
        ({"candidates": {"medical": {"engine": NEW, "weight": True}}}, "True"),
        ({"candidates": {"medical": {"engine": NEW, "weight": 1.0}}}, "1.0"),
        ({"candidates": {"tax": {"engine": NEW, "weight": 1}}}, "candidates['tax']"),
        ({"versions": None}, "versions is None"),
        ({"versions": {"medical": 1}}, "versions has 'medical'"),
        ({"versions": {ENGINE: 0}}, "is 0; it must be a whole number >= 1"),
        ({"versions": {ENGINE: "8"}}, "is '8'"),
        ({"versions": {ENGINE: True}}, "is True"),
        ({"replicas": 0}, "replicas is 0"),
        ({"replicas": "3"}, "replicas is '3'"),
        ({"replicas": True}, "replicas is True"),
        ({"instance": 7}, "instance is 7"),
        ({"instance": ""}, "instance is ''"),
    ],
)
async def test_a_wrong_map_is_refused_with_field_value_and_rule_and_changes_nothing(world: World, change: dict[str, object], words: str) -> None:
    with pytest.raises(RoutingError):
        parse({**ROUTING, **change})
    before = await world.engine_state()
    answer = await world.route(**change)
    assert answer.status == 400
    assert words in answer.json["error"]
    assert await world.engine_state() == before


async def test_a_map_for_another_process_is_409_and_changes_nothing(cold: World) -> None:
    before = await cold.engine_state()
    answer = await cold.route(instance="feedfeedfeedfeed")
    assert (answer.status, answer.json["instance"]) == (409, before["instance"])
    assert "feedfeedfeedfeed" in answer.json["error"]
    assert await cold.engine_state() == before
    assert (await cold.post({})).status == 503, "still no routing"
    assert (await cold.route(instance=before["instance"])).status == 200
