"""Every API of the engine alike: names are mapped both ways, what is unknown stays outside, what is wrong is the engine's to explain, caps hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftwork_guard.routes import ALLOWED, Kind

from tests.unit.guard.fakes import ENGINE, OTHER, Call, World

JSON = sorted(path for path, route in ALLOWED.items() if route.kind is Kind.INFERENCE and not route.form)
FORMS = sorted(path for path, route in ALLOWED.items() if route.form)
LABELS = 'alias="medical",digest="3f2a9c41d0e7",version=""'


def test_every_api_that_the_issue_names_is_there() -> None:
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize"} <= set(JSON)
    assert {"/score", "/v1/score", "/rerank", "/v1/rerank", "/pooling", "/classify", "/generative_scoring"} <= set(JSON)
    assert set(FORMS) == {"/v1/audio/transcriptions", "/v1/audio/translations"}


@pytest.mark.parametrize("path", JSON)
async def test_an_alias_is_mapped_there_and_back_and_its_tokens_are_counted(world: World, path: str) -> None:
    answer = await world.call("POST", path, {"model": "medical", "input": "x"})
    assert world.engine.seen[-1].json == {"model": ENGINE, "input": "x"}
    assert answer.json["model"] == "medical"
    assert await world.metric(f'graftwork_tokens_total{{{LABELS},kind="prompt"}}') == 5


@pytest.mark.parametrize("path", JSON)
@pytest.mark.parametrize("name", ["nobody", ENGINE, OTHER])
async def test_an_unknown_model_is_404_and_the_engine_never_hears_of_it(world: World, path: str, name: str) -> None:
    assert (await world.call("POST", path, {"model": name})).status == 404
    assert world.engine.seen == []


@pytest.mark.parametrize("path", JSON)
@pytest.mark.parametrize("body", [b"", b"{", b'["x"]', b"\xff"])
async def test_wrong_json_gets_the_engines_own_answer(world: World, path: str, body: bytes) -> None:
    answer = await Call(world.guard, "POST", path, body).run()
    assert (answer.status, answer.json["error"]["message"]) == (400, "JSON decode error")
    assert world.engine.seen[-1].body == body


@pytest.mark.parametrize("path", [*JSON, *FORMS])
@pytest.mark.parametrize("declared", [True, False])
async def test_the_caps_of_body_and_headers_hold(tmp_path: Path, path: str, declared: bool) -> None:
    world = World(tmp_path, max_body_bytes=100, max_header_bytes=200)
    await world.route()
    assert (await Call(world.guard, "POST", path, b"x" * 101, pieces=1 if declared else 3).run()).status == 413
    assert (await Call(world.guard, "POST", path, b"{}", [(b"x", b"y" * 200)]).run()).status == 431
    assert (await Call(world.guard, "POST", path, b"{}", query=b"q" * 200).run()).status == 431
    assert world.engine.seen == []
