"""What a client sees of its model's name, and what the engine sees of the client's body."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.guard.fakes import BASE, ENGINE, OTHER, Call, World

CHAT = "/v1/chat/completions"
STREAMS = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"]


async def test_an_alias_goes_to_its_engine_adapter_and_comes_back_as_the_alias(world: World) -> None:
    answer = await world.post({"model": "medical", "say": ENGINE})
    assert world.engine.seen[-1].json == {"model": ENGINE, "say": ENGINE}
    assert answer.json["model"] == "medical"
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    assert answer.json["choices"][0]["message"]["content"] == ENGINE, "what the model says is not touched"


@pytest.mark.parametrize("body", [{"model": BASE}, {}, {"model": None}, {"model": ""}])
async def test_the_base_is_asked_by_its_name_or_by_none(world: World, body: dict[str, object]) -> None:
    answer = await world.post(body)
    assert world.engine.seen[-1].json == body
    assert answer.json["model"] == BASE


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_every_event_of_a_stream_names_the_alias(world: World, path: str, cut: int) -> None:
    world.engine.cut = cut
    answer = await world.call("POST", path, {"model": "medical", "stream": True, "metadata": {"model": "mine"}})
    assert ENGINE.encode() not in answer.body
    assert b'"model":"medical"' in answer.body
    assert answer.complete
    if path == CHAT:
        assert [document["model"] for document in answer.event_documents] == ["medical", "medical"]
        assert b": keep-alive\n\n" in answer.body
        assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "shape"), [(CHAT, {"error": {"type": "NotFoundError", "param": "model", "code": 404}}), ("/v1/messages", {"type": "error", "error": {}})]
)
@pytest.mark.parametrize("name", ["nobody", ENGINE, OTHER, "Medical", "medical ", "text", "../x"])
async def test_unknown_names_are_404_in_the_shape_of_the_api_and_never_reach_the_engine(
    world: World, path: str, shape: dict[str, object], name: str
) -> None:
    answer = await world.call("POST", path, {"model": name})
    assert answer.status == 404
    error = answer.json["error"]
    assert error["message"] == f"The model `{name}` does not exist."
    assert error["type"] == "NotFoundError"
    assert set(answer.json) == set(shape)
    assert world.engine.seen == []


async def test_a_huge_name_is_not_echoed(world: World) -> None:
    answer = await world.post({"model": "x" * 1_000_000})
    assert answer.status == 404
    assert len(answer.body) < 500


async def test_an_alias_that_is_loading_says_when_to_come_again(world: World) -> None:
    answer = await world.post({"model": "legal"})
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    assert "AdapterLoading" in answer.json["error"]["message"]


async def test_before_the_first_routing_nothing_is_served(cold: World) -> None:
    answer = await cold.post({})
    assert answer.status == 503
    assert b"retry-after" in answer.headers


async def test_the_engine_reads_what_was_judged_when_keys_are_doubled(world: World) -> None:
    body = b'{"model": "%s", "metadata": {"model": "%s"}, "model": "medical"}' % (OTHER.encode(), OTHER.encode())
    await Call(world.guard, "POST", CHAT, body).run()
    assert world.engine.seen[-1].body == json.dumps({"model": ENGINE, "metadata": {"model": OTHER}}, separators=(",", ":")).encode()


async def test_a_key_hidden_by_escapes_or_another_encoding_is_the_same_key(world: World) -> None:
    for body in (b'{"mod\\u0065l": "medical"}', '{"model": "medical"}'.encode("utf-16"), b'\xef\xbb\xbf{"model": "medical"}'):
        assert (await Call(world.guard, "POST", CHAT, body).run()).status == 200
        assert world.engine.seen[-1].json == {"model": ENGINE}


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"medical"', b"\xff\xfe\x00", b'{"model": "x"} tail', b"9" * 5000])
async def test_what_is_no_json_object_reaches_the_engine_untouched(world: World, body: bytes) -> None:
    world.engine.fail = RuntimeError("seen")
    with pytest.raises(RuntimeError):
        await Call(world.guard, "POST", CHAT, body).run()
    assert world.engine.seen[-1].body == body


async def test_numbers_and_lone_surrogates_survive(world: World) -> None:
    body = b'{"model":"medical","seed":123456789012345678901234567890,"t":1e-05,"f":0.1,"s":"\\ud800","n":NaN,"z":-0.0}'
    await Call(world.guard, "POST", CHAT, body).run()
    assert world.engine.seen[-1].body == body.replace(b'"medical"', f'"{ENGINE}"'.encode())


async def test_json_nested_too_deep_is_refused(world: World) -> None:
    answer = await Call(world.guard, "POST", CHAT, b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}").run()
    assert answer.status == 400
    assert world.engine.seen == []


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413_and_ends_the_connection(tmp_path: Path, declared: bool) -> None:
    world = World(tmp_path, max_body_bytes=1000)
    await world.route()
    answer = await Call(world.guard, "POST", CHAT, b"x" * 1001, pieces=1 if declared else 4).run()
    assert (answer.status, answer.headers[b"connection"]) == (413, b"close")
    fits = b'{"x":"' + b"y" * 992 + b'"}'
    assert (await Call(world.guard, "POST", CHAT, fits, pieces=4).run()).status == 200


async def test_a_large_chunked_body_arrives_whole_with_its_length(world: World) -> None:
    text = "€" * 200_000
    body = json.dumps({"model": "medical", "say": text}, ensure_ascii=False).encode()
    answer = await Call(world.guard, "POST", CHAT, body, [(b"transfer-encoding", b"chunked")], pieces=9).run()
    seen = world.engine.seen[-1]
    assert seen.json == {"model": ENGINE, "say": text}
    assert seen.headers[b"content-length"] == str(len(seen.body)).encode()
    assert b"transfer-encoding" not in seen.headers
    assert answer.json["choices"][0]["message"]["content"] == text
    assert answer.json["model"] == "medical"


async def test_headers_over_the_limit_are_431(world: World) -> None:
    answer = await world.call("POST", CHAT, {}, [(b"x", b"y" * 40_000)])
    assert answer.status == 431
    assert world.engine.seen == []


async def test_very_many_small_headers_are_431_too(world: World) -> None:
    assert (await world.call("POST", CHAT, {}, [(b"x", b"")] * 900)).status == 200
    assert (await world.call("POST", CHAT, {}, [(b"x", b"")] * 1100)).status == 431


async def test_errors_of_the_engine_and_inside_streams_name_the_alias(world: World) -> None:
    answer = await world.post({"model": "medical", "explode": True})
    assert answer.json["error"]["message"] == "bad request for medical"
    stream = await world.post({"model": "medical", "stream": True, "break": True})
    assert stream.event_documents[-1]["error"]["message"] == "engine lost medical"
    assert await world.metric('graftwork_request_errors_total{alias="medical",digest="3f2a9c41d0e7",version="",status="4xx"}') == 1
    assert await world.metric('graftwork_request_errors_total{alias="medical",digest="3f2a9c41d0e7",version="",status="stream"}') == 1


async def test_headers_that_could_choose_an_adapter_and_the_token_do_not_reach_the_engine(world: World) -> None:
    await world.call("POST", CHAT, {}, [(b"x-amzn-sagemaker-adapter-identifier", b"x"), (b"x-graftwork-token", b"wrong"), (b"x-request-id", b"7")])
    names = set(world.engine.seen[-1].headers)
    assert b"x-request-id" in names
    assert not names & {b"x-amzn-sagemaker-adapter-identifier", b"x-graftwork-token"}


async def test_background_answers_are_refused_because_nothing_would_count_them(world: World) -> None:
    answer = await world.call("POST", "/v1/responses", {"model": "medical", "background": True})
    assert answer.status == 400
    assert world.engine.seen == []


async def test_the_list_of_models_shows_the_base_and_the_aliases_without_paths(world: World) -> None:
    cards = (await world.call("GET", "/v1/models")).json["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [(BASE, BASE, None), ("medical", "medical", BASE)]
    assert cards[0]["max_model_len"] == 2048


async def test_before_the_first_routing_the_list_has_only_the_base(cold: World) -> None:
    assert [card["id"] for card in (await cold.call("GET", "/v1/models")).json["data"]] == [BASE]


async def test_an_error_of_the_engine_is_the_engines_to_handle(world: World) -> None:
    world.engine.fail = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await world.post({"model": "medical"})
    assert (await world.engine_state())["inflight"] in ({}, {ENGINE: 1})
    assert await world.metric('graftwork_request_errors_total{alias="medical",digest="3f2a9c41d0e7",version="",status="5xx"}') == 1
    assert await world.metric('graftwork_request_errors_total{alias="",digest="",version="",status="5xx"}') == 0


async def test_a_fault_of_the_guard_is_a_500_for_that_request_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("graftwork_guard.middleware.decide", lambda *_: 1 / 0)
        assert (await world.post({"model": "medical"})).status == 500
    with monkeypatch.context() as patch:
        patch.setattr("graftwork_guard.reply.public_answer", lambda *_: 1 / 0)
        assert (await world.post({"model": "medical"})).status == 500
    assert "ZeroDivisionError" in caplog.text
    assert (await world.post({"model": "medical"})).status == 200
