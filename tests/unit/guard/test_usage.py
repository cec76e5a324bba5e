"""Every stream is counted, and no client sees that it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork_guard.bodies import Usage
from graftwork_guard.routes import ALLOWED
from graftwork_guard.routing import Target
from graftwork_guard.streams import EventStream
from graftwork_guard.usage import asked, truth
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.unit.guard.fakes import ENGINE, World, events

WANTED = {"include_usage": True, "continuous_usage_stats": False}
_ENGINES = TypeAdapter(bool | None)  # what vLLM's request models are made of


@given(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=6) | st.lists(st.booleans(), max_size=1)
    | st.sampled_from(["1", "0", "on", "Off", "T", "f", "TRUE", "false", "y", "N", "yes", "no", " true", "true ", "1.0", 10**30, "truе"])
)  # fmt: skip
def test_a_truth_value_is_read_as_the_engine_reads_it(value: object) -> None:
    try:
        expected: bool | None = bool(_ENGINES.validate_python(value))
    except ValidationError:
        expected = None
    assert truth(value) == expected


@pytest.mark.parametrize(
    ("document", "options"),
    [
        ({"stream": True}, WANTED),
        ({"stream": "yes"}, WANTED),
        ({"stream": 1, "stream_options": None}, WANTED),
        ({"stream": True, "stream_options": {}}, WANTED),
        ({"stream": True, "stream_options": {"include_usage": False}}, WANTED),
        ({"stream": True, "stream_options": {"include_usage": "no"}}, WANTED),
        ({"stream": True, "stream_options": {"include_usage": None, "continuous_usage_stats": True, "x": 1}}, {**WANTED, "x": 1}),
    ],
)
def test_a_stream_that_would_not_report_is_made_to(document: dict[str, Any], options: dict[str, Any]) -> None:
    before = json.dumps(document)
    assert asked(document) == ({**document, "stream_options": options}, True)
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"stream": False},
        {"stream": "maybe"},
        {"stream": False, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"stream": True, "stream_options": {"include_usage": "on"}},
        {"stream": True, "stream_options": {"include_usage": "maybe"}},
        {"stream": True, "stream_options": ["include_usage"]},
    ],
)
def test_what_reports_or_is_wrong_stays_as_it_is(document: dict[str, Any]) -> None:
    assert asked(document) == (document, False)


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_a_client_that_did_not_ask_gets_the_stream_that_it_would_have_had(world: World, cut: int) -> None:
    world.engine.cut = cut
    answer = await world.post({"model": "medical", "stream": True})
    expected = b"".join(events("/v1/chat/completions", ENGINE, {})).replace(ENGINE.encode(), b"medical")
    assert answer.body == expected
    assert world.engine.seen[-1].json["stream_options"] == WANTED
    assert await world.metric('graftwork_tokens_total{alias="medical",digest="3f2a9c41d0e7",version="",kind="completion"}') == 2


async def test_a_client_that_asked_keeps_its_usage(world: World) -> None:
    answer = await world.post({"model": "medical", "stream": True, "stream_options": {"include_usage": True}})
    assert answer.event_documents[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 2}


async def test_whole_answers_and_other_apis_are_asked_nothing(world: World) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/chat/completions/batch"):
        await world.call("POST", path, {"stream": path in ("/v1/responses", "/v1/messages")})
        assert "stream_options" not in world.engine.seen[-1].json, path


def test_an_engine_that_was_told_to_report_to_everybody_does() -> None:
    stream = EventStream(ALLOWED["/v1/completions"], Target("medical", ENGINE), hide_usage=True)
    out = stream.feed(b"".join(events("/v1/completions", ENGINE, {"stream_options": {"include_usage": True}}, force_usage=True)))
    assert b'"choices":[],"usage"' in out
    assert stream.usage == Usage(5, 2)


def test_content_that_looks_like_usage_is_not_taken_out() -> None:
    stream = EventStream(ALLOWED["/v1/completions"], Target("medical", ENGINE), hide_usage=True)
    event = b'data: {"choices":[{"delta":{"usage":{"prompt_tokens":9}}}]}\n\n'
    assert stream.feed(event) == event
    assert stream.usage is None
