"""The pure parts under arbitrary input: finding a value, cutting a stream, reading a map, and a guard that never falls over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftwork_guard.bodies import TooDeepError, Usage, answer_usage, parse_request, public_models
from graftwork_guard.routes import ALLOWED, MODEL, Kind
from graftwork_guard.routing import Refusal, Routing, RoutingError, Target, decide, parse
from graftwork_guard.scan import find_value, load_value, replace_text
from graftwork_guard.streams import EventStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.guard.fakes import BASE, ENGINE, ROUTING, TOKEN, Call, World, events

PATHS = [("model",), ("response", "model"), ("message", "model")]
TARGET = Target("medical", ENGINE)
_KEYS = st.sampled_from(["model", "response", "message", "usage", "a", 'q"uote', "back\\", "é", ""]) | st.text(max_size=4)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=20)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=6)


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    return document


@given(_OBJECTS, st.sampled_from(PATHS), st.booleans(), st.sampled_from([None, 2]))
def test_a_value_is_found_exactly_where_a_parser_finds_it(
    document: dict[str, Any], path: tuple[str, ...], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    expected = _at(document, path)
    found = load_value(data, path)
    assert found == expected or found is expected
    replaced = json.loads(replace_text(data, path, "new"))
    if isinstance(expected, str):
        holder = _at(document, path[:-1])
        holder[path[-1]] = "new"
    assert replaced == json.loads(json.dumps(document))


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\model 1', max_size=60).map(str.encode), st.sampled_from(PATHS))
def test_text_that_is_no_json_never_breaks_the_search(data: bytes, path: tuple[str, ...]) -> None:
    span = find_value(data, path)
    assert span is None or 0 <= span[0] <= span[1] <= len(data)
    answer_usage(data)
    replace_text(data, path, "new")


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_an_object_or_nothing(data: bytes) -> None:
    assert isinstance(parse_request(data), (dict, type(None)))


def test_depth_beyond_the_parser_is_told_apart_from_wrong_json() -> None:
    with pytest.raises(TooDeepError):
        parse_request(b"[" * 100_000)


_STREAM_BYTES = st.lists(
    st.sampled_from(
        [
            *events("/v1/chat/completions", ENGINE, {"say": "x\n\ny", "stream_options": {"include_usage": True}}),
            *events("/v1/responses", ENGINE, {}),
            *events("/v1/messages", ENGINE, {}),
            b": keep-alive\n\n",
            b"data: [DONE]\n\n",
            b"data: {broken\n\n",
            b"data: {}\r\n\r\n",
            b'data: {"model":"' + ENGINE.encode() + b'"}',
            b"\n",
            b"\r",
            b"\n\n",
            b"data: 1\ndata: 2\n\n",
            b"event: error\n",
        ]
    ),
    max_size=8,
).map(b"".join)


@given(_STREAM_BYTES, st.lists(st.integers(1, 40), max_size=40), st.sampled_from(sorted(ALLOWED)))
def test_how_a_stream_is_cut_makes_no_difference(stream: bytes, sizes: list[int], path: str) -> None:
    route = ALLOWED[path]
    whole, cut = EventStream(route, TARGET), EventStream(route, TARGET)
    expected = whole.feed(stream) + whole.flush()
    got, at = b"", 0
    for size in sizes:
        got += cut.feed(stream[at : at + size])
        at += size
    got += cut.feed(stream[at:]) + cut.flush()
    assert got == expected
    assert (cut.usage, cut.content_seen, cut.failed) == (whole.usage, whole.content_seen, whole.failed)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"])
def test_an_event_leaves_with_the_last_byte_of_its_blank_line(path: str, blank: bytes) -> None:
    stream, whole = EventStream(ALLOWED[path], TARGET), EventStream(ALLOWED[path], TARGET)
    for event in events(path, ENGINE, {"stream_options": {"include_usage": True}}):
        sent = event.replace(b"\n\n", blank)
        pieces = [stream.feed(sent[i : i + 1]) for i in range(len(sent))]
        assert set(pieces[:-1]) == {b""}
        assert pieces[-1] == whole.feed(sent)
        assert ENGINE.encode() not in pieces[-1]
    assert stream.usage == Usage(5, 2)


@given(st.lists(_OBJECTS, max_size=5))
def test_events_change_in_nothing_but_the_model(documents: list[dict[str, Any]]) -> None:
    stream = b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)
    out = EventStream(ALLOWED["/v1/completions"], TARGET).feed(stream)
    expected = [{**document, "model": "medical"} if isinstance(document.get("model"), str) else document for document in documents]
    assert [json.loads(line[6:]) for line in out.decode().split("\n\n")[:-1]] == json.loads(json.dumps(expected))


@pytest.mark.parametrize(("path", "before"), [("/v1/chat/completions", 0), ("/v1/responses", 2), ("/v1/messages", 1)])
def test_the_first_token_is_the_first_content_not_the_first_event(path: str, before: int) -> None:
    stream = EventStream(ALLOWED[path], TARGET)
    for number, event in enumerate(events(path, ENGINE, {})):
        stream.feed(event)
        assert stream.content_seen is (number >= before), number


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_tokens_are_the_last_that_a_stream_reported(path: str) -> None:
    stream = EventStream(ALLOWED[path], TARGET)
    stream.feed(b"".join(events(path, ENGINE, {}, force_usage=True)))
    assert stream.usage == Usage(5, 2)


def test_a_failed_response_counts_as_a_failure_and_an_error_key_in_content_does_not() -> None:
    failed, fine = EventStream(ALLOWED["/v1/responses"], TARGET), EventStream(ALLOWED["/v1/responses"], TARGET)
    failed.feed(b'data: {"response":{"error":{"message":"x"},"model":"' + ENGINE.encode() + b'"}}\n\n')
    fine.feed(b'data: {"response":{"metadata":{"error":{}},"error":null}}\n\n')
    assert (failed.failed, fine.failed) == (True, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "graftwork.dev/routing/v2"}, "apiVersion"),
        ({"base": ""}, "base"),
        ({"ready": 1}, "ready"),
        ({"aliases": []}, "aliases"),
        ({"aliases": {"Medical": ENGINE}}, "aliases"),
        ({"aliases": {"a--b": ENGINE}}, "a--b"),
        ({"aliases": {"x" * 41: ENGINE}}, "40"),
        ({"aliases": {"medical": "text"}}, "aliases['medical']"),
        ({"aliases": {"medical": f"{ENGINE}\n"}}, "aliases['medical']"),
        ({"unavailable": {"legal": {"reason": "x", "retryAfterSeconds": True}}}, "retryAfterSeconds"),
        ({"unavailable": {"legal": "x"}}, "reason"),
        ({"unavailable": None}, "unavailable"),
    ],
)
async def test_a_wrong_map_is_refused_with_its_field_and_changes_nothing(world: World, change: dict[str, object], words: str) -> None:
    with pytest.raises(RoutingError):
        parse({**ROUTING, **change})
    answer = await world.route(**change)
    assert answer.status == 400
    assert words in answer.json["error"]
    assert (await world.post({"model": "medical"})).status == 200


@given(_VALUES)
def test_any_other_document_is_refused(document: object) -> None:
    with pytest.raises(RoutingError):
        parse(document)


@given(_VALUES)
def test_every_model_value_is_decided(model: object) -> None:
    decided = decide(parse(ROUTING), model)
    if isinstance(decided, Target):
        assert decided == Target("medical", ENGINE) if model == "medical" else decided == Target(BASE)
    else:
        assert isinstance(decided, Refusal)
        assert isinstance(model, str)


@given(_VALUES)
def test_any_list_of_models_is_survived(document: object) -> None:
    assert public_models({"data": document}, Routing("b", {"medical": ENGINE}), "")["data"][1]["id"] == "medical"


def test_the_default_place_of_the_model_is_the_top() -> None:
    assert {route.stream_model for route in ALLOWED.values() if route.kind is not Kind.INFERENCE} == {MODEL}


FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nmedical\r\n--b--\r\n'
_HEADERS = st.lists(
    st.tuples(st.sampled_from([b"content-length", b"x-graftwork-token", b"content-type"]), st.binary(max_size=8) | st.just(TOKEN)), max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "X"]),
    st.sampled_from([*ALLOWED, "/x", "", "\x00"]),
    st.binary(max_size=60) | st.builds(lambda x: json.dumps(x).encode(), _OBJECTS) | st.just(FORM),
    _HEADERS,
    st.binary(max_size=20),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=b", b""]),
)
async def test_no_request_makes_the_guard_fall_over(
    tmp_path: Path, method: str, path: str, body: bytes, headers: list[tuple[bytes, bytes]], query: bytes, kind: bytes
) -> None:
    world = World(tmp_path)
    await world.route()
    answer = await Call(world.guard, method, path, body, headers, query, content_type=kind).run()
    assert answer.complete
    assert answer.status != 500
