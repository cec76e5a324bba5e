"""Who gets in where keys are required, what they see, and what the engine sees of them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from graftwork_guard.keys import KeysError, credential, parse
from graftwork_guard.routes import ALLOWED, Kind
from graftwork_guard.settings import Settings

from tests.unit.guard.fakes import AGENT, BASE, Call, World
from tests.unit.guard.keyed import A, B, KeyedWorld, bearer, entry

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/design/schemas/keys.schema.json").read_text())
CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/transcriptions"
OPEN = {"/health", "/ping", "/graftwork/ready"}
ASKED = (Kind.INFERENCE, Kind.READ, Kind.MODELS, Kind.METRICS, Kind.GUARD_METRICS)
PUBLIC = sorted((path, route.methods[0]) for path, route in ALLOWED.items() if route.kind in ASKED)
METRICS = ("/metrics", "/graftwork/metrics")


@pytest.fixture
async def world(tmp_path: Path) -> KeyedWorld:
    world = KeyedWorld(tmp_path)
    await world.route()
    return world


async def test_until_keys_have_come_everybody_waits(world: KeyedWorld) -> None:
    for path, method in PUBLIC:
        answer = await world.ask(A, path=path, method=method)
        assert answer.status == (200 if path in OPEN else 503), path
        assert (b"retry-after" in answer.headers) == (path not in OPEN), path
    assert (await world.call("GET", "/graftwork/ready")).status == 200


async def test_without_a_known_key_every_public_route_but_health_is_401(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A))
    for path, method in PUBLIC:
        for headers in ([], bearer(B), [(b"authorization", A.encode())], [(b"authorization", b"Basic " + A.encode())]):
            answer = await world.call(method, path, None if method == "GET" else {}, headers)
            assert answer.status == (200 if path in OPEN else 401), (path, headers)
            if path not in OPEN:
                assert answer.headers[b"www-authenticate"] == b"Bearer"
                assert A.encode() not in answer.body
                assert B.encode() not in answer.body
    assert {seen.path for seen in world.engine.seen} <= OPEN


async def test_the_refusal_has_the_shape_of_the_api(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A))
    wrong = (await world.ask(B)).json["error"]
    assert (wrong["type"], wrong["code"]) == ("invalid_request_error", "invalid_api_key")
    document = (await world.ask(B, path="/v1/messages")).json
    assert (document["type"], document["error"]["type"]) == ("error", "authentication_error")


@pytest.mark.parametrize("headers", [bearer(A), [(b"authorization", b"bearer   " + A.encode() + b" ")], [(b"x-api-key", A.encode())]])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_a_known_key_is_let_in_however_it_is_sent_and_never_reaches_the_engine(world: KeyedWorld, headers: Any, path: str) -> None:
    await world.keys(entry("team-a", A))
    answer = await world.call("POST", path, {"model": "medical"}, headers)
    assert answer.status == 200
    seen = world.engine.seen[-1]
    assert not {b"authorization", b"x-api-key"} & set(seen.headers)
    assert A.encode() not in seen.body
    assert (await world.call("GET", "/health", headers=headers)).status == 200
    assert not {b"authorization", b"x-api-key"} & set(world.engine.seen[-1].headers)


async def test_without_keys_credentials_and_salts_pass_as_they_are(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.route()
    assert (await world.call("POST", CHAT, {"cache_salt": "mine"}, bearer(A))).status == 200
    seen = world.engine.seen[-1]
    assert seen.headers[b"authorization"] == b"Bearer " + A.encode()
    assert seen.json == {"cache_salt": "mine"}
    assert (await world.call("GET", "/v1/models")).status == 200


async def test_keys_that_come_where_none_are_required_are_required_from_then_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.route()
    document = {"apiVersion": "graftwork.dev/keys/v1", "keys": [entry("team-a", A)]}
    assert (await world.call("PUT", "/graftwork/keys", document, AGENT)).status == 200
    assert (await world.post({})).status == 401


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
@pytest.mark.parametrize("name", ["medical", "legal", BASE, "", None])
async def test_a_model_that_the_key_does_not_have_answers_like_one_that_does_not_exist(world: KeyedWorld, path: str, name: str | None) -> None:
    await world.keys(entry("team-a", A, "other"), entry("team-b", B))
    hidden = await world.ask(A, {"model": name}, path)
    unknown = await world.ask(B, {"model": "nobody"}, path)
    assert hidden.status == unknown.status == 404
    assert set(hidden.headers) == set(unknown.headers)
    assert hidden.json == json.loads(unknown.body.replace(b"nobody", (name or "").encode()))
    assert world.engine.seen == []


async def test_a_key_with_the_model_is_served_and_base_and_aliases_are_apart(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, "medical"), entry("team-b", B, BASE))
    assert (await world.ask(A, {"model": "medical"})).status == 200
    assert (await world.ask(A, {})).status == 404
    assert (await world.ask(B, {})).status == 200
    assert (await world.ask(B, {"model": "medical"})).status == 404
    assert (await Call(world.guard, "POST", CHAT, b"no json", bearer(A)).run()).status == 404, "what names no model means the base"


async def test_the_list_of_models_has_those_of_the_key(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, "medical", "legal"), entry("team-b", B))
    assert [card["id"] for card in (await world.ask(A, path="/v1/models", method="GET")).json["data"]] == ["medical"]
    assert [card["id"] for card in (await world.ask(B, path="/v1/models", method="GET")).json["data"]] == [BASE, "medical"]
    assert (await world.call("GET", "/v1/models", headers=AGENT)).status == 200


async def test_metrics_are_told_to_a_scrapers_key_and_to_the_agent_and_to_nobody_else(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A), {**entry("scraper", B), "metrics": True})
    for path in METRICS:
        assert (await world.call("GET", path)).status == 401
        refused = await world.ask(A, path=path, method="GET")
        assert (refused.status, refused.json["error"]["type"]) == (403, "PermissionDeniedError")
        assert b"team-a" not in refused.body
        for headers in (bearer(B), AGENT):
            answer = await world.call("GET", path, headers=headers)
            assert (answer.status, b'key="team-a"' in answer.body) == (200, True)
    assert (await world.call("HEAD", "/metrics")).status == 401


async def test_a_scrapers_key_asks_no_model(world: KeyedWorld) -> None:
    await world.keys({**entry("scraper", B), "metrics": True})
    for name in ("medical", BASE, "", None):
        assert (await world.ask(B, {"model": name})).status == 404
    assert (await world.ask(B, path="/v1/models", method="GET")).json["data"] == []
    assert {seen.path for seen in world.engine.seen} == {"/v1/models"}


async def test_without_keys_metrics_are_everybodys(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.route()
    assert [(await world.call("GET", path)).status for path in METRICS] == [200, 200]


async def test_each_key_has_a_prefix_cache_of_its_own_that_no_salt_of_another_opens(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A), entry("team-b", B))
    salts: dict[tuple[str, object], str] = {}
    for key in (A, B):
        for own in (None, "", "x"):
            await world.ask(key, {"model": "medical", "cache_salt": own})
            salts[key, own] = world.engine.seen[-1].json["cache_salt"]
        await world.ask(key, {"model": "medical"})
        assert world.engine.seen[-1].json["cache_salt"] == salts[key, None] == salts[key, ""], "the same tenant keeps its cache"
    assert len(set(salts.values())) == 4
    await world.ask(B, {"model": "medical", "cache_salt": salts[A, None]})
    assert world.engine.seen[-1].json["cache_salt"] not in salts.values(), "knowing another's salt does not help"
    assert all(len(salt) <= 128 and salt.isalnum() for salt in salts.values()), "what vLLM takes"
    await world.ask(A, {"cache_salt": ["x"]})
    assert world.engine.seen[-1].json["cache_salt"] == ["x"], "the engine refuses it in its own words"


async def test_a_route_whose_prompts_cannot_be_salted_is_not_served_with_keys(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A))
    for path, remedy in (("/v2/embed", "Use /v1/embeddings."), (AUDIO, "Serve speech by a deployment without apiKeysSecret.")):
        answer = await world.ask(A, {}, path)
        assert answer.status == 400
        assert answer.json["error"]["message"].endswith(remedy)
    assert world.engine.seen == []
    assert (await world.ask(A, {}, "/v1/embeddings")).status == 200


async def test_new_keys_replace_all_old_ones_at_once(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A))
    assert (await world.ask(A)).status == 200
    answer = await world.keys(entry("team-b", B), instance=world.guard.state.instance)
    assert (answer.status, answer.json) == (200, {"instance": world.guard.state.instance, "keys": 1})
    assert ((await world.ask(A)).status, (await world.ask(B)).status) == (401, 200)
    assert (await world.keys()).json["keys"] == 0
    assert (await world.ask(B)).status == 401


async def test_a_running_request_outlives_its_key(world: KeyedWorld) -> None:
    await world.keys(entry("team-a", A, concurrent=1))
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, b'{"stream":true}', bearer(A))
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    await world.keys(entry("team-b", B))
    world.engine.gate.set()
    assert (await running).complete
    await world.keys(entry("team-a", A, concurrent=1))
    assert (await world.ask(A)).status == 200


async def test_only_the_agent_gives_keys_and_only_to_the_process_it_means(world: KeyedWorld) -> None:
    document = {"apiVersion": "graftwork.dev/keys/v1", "keys": [entry("team-a", A)]}
    assert (await world.call("PUT", "/graftwork/keys", document)).status == 404
    assert (await world.call("GET", "/graftwork/keys", headers=AGENT)).status == 404
    answer = await world.keys(entry("team-a", A), instance="0123")
    assert (answer.status, answer.json["instance"]) == (409, world.guard.state.instance)
    assert (await world.ask(A)).status == 503


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "graftwork.dev/keys/v2"}, "apiVersion is 'graftwork.dev/keys/v2'"),
        ({"keys": {}}, "keys must be a list"),
        ({"keys": [3]}, "keys[0] is not an object"),
        ({"keys": [{**entry("x", A), "name": "-"}]}, "keys[0].name"),
        ({"keys": [{**entry("x", A), "sha256": A}]}, "keys[0].sha256 (of x)"),
        ({"keys": [{**entry("x", A), "models": "medical"}]}, "keys[0].models (of x)"),
        ({"keys": [{**entry("x", A), "metrics": "yes"}]}, "keys[0].metrics (of x)"),
        ({"keys": [entry("x", A, concurrent=0)]}, "'concurrent': 0"),
        ({"keys": [entry("x", A, perDay=1)]}, "'perDay': 1"),
        ({"keys": [entry("x", A), entry("y", A)]}, "twice"),
        ({"keys": [entry("x", A), entry("x", B)]}, "twice"),
    ],
)
async def test_a_document_that_breaks_the_contract_changes_nothing(world: KeyedWorld, change: dict[str, Any], words: str) -> None:
    await world.keys(entry("team-a", A))
    answer = await world.call("PUT", "/graftwork/keys", {"apiVersion": "graftwork.dev/keys/v1", "keys": [], **change}, AGENT)
    assert answer.status == 400
    assert words in answer.json["error"]
    assert A not in answer.json["error"]
    assert (await world.ask(A)).status == 200


async def test_neither_keys_nor_hashes_are_logged(world: KeyedWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await world.keys(entry("team-a", A))
    await world.keys({**entry("team-a", A), "limits": 3})
    await Call(world.guard, "PUT", "/graftwork/keys", A.encode(), AGENT).run()
    await world.ask(A)
    await world.ask(B)
    assert "keys: 1" in caplog.text
    for secret in (A, B, entry("team-a", A)["sha256"]):
        assert secret not in caplog.text
    assert entry("team-a", A)["sha256"] not in repr(world.guard.access._keyring.by_name)  # type: ignore[union-attr]


def test_the_contracts_example_is_understood() -> None:
    document = {
        "apiVersion": "graftwork.dev/keys/v1",
        "instance": "ab",
        "keys": [entry("team-a", A, "support", requestsPerMinute=600), entry("b.2_C", B)],
    }
    jsonschema.validate(document, SCHEMA)
    ring = parse(document)
    found = ring.find(A.encode())
    assert found is not None
    assert (found.name, found.limits.requests_per_minute, found.may("support"), found.may("medical")) == ("team-a", 600, True, False)
    assert ring.find(b"") is None
    with pytest.raises(KeysError):
        parse([])


def test_bearer_goes_before_x_api_key_and_the_first_header_counts() -> None:
    assert credential([(b"x-api-key", b"x"), *bearer("a"), *bearer("b")]) == b"a"
    assert credential([(b"authorization", b"Basic YQ=="), (b"x-api-key", b"x")]) == b"x"
    assert credential([(b"authorization", b"Bearer")]) == b""


@pytest.mark.parametrize(("text", "required"), [("", False), ("required", True), ("Required", True), ("no", True)])
def test_what_nobody_understands_shuts_the_door(text: str, required: bool) -> None:
    assert Settings.from_env({"GRAFTWORK_KEYS": text}).keys_required is required
