"""How requests end, each counted once: answered, failed or abandoned; and since when the series of a target has been counting."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from graftwork_guard.bodies import TooDeepError, adapter_is_gone
from graftwork_guard.metrics import Metrics
from graftwork_guard.routing import Routing, Target

from tests.unit.guard.fakes import BASE, ENGINE, Call, World

CHAT = "/v1/chat/completions"
MEDICAL = 'alias="medical",digest="3f2a9c41d0e7",version=""'
OUTCOMES = ("answered", "failed", "abandoned")


async def ended(world: World, labels: str = MEDICAL) -> tuple[float, ...]:
    return tuple([await world.metric(f'graftwork_requests_ended_total{{{labels},outcome="{outcome}"}}') for outcome in OUTCOMES])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (1, 0, 0)),
        ({"stream": True}, (1, 0, 0)),
        ({"explode": 400}, (1, 0, 0)),
        ({"explode": 500}, (0, 1, 0)),
        ({"stream": True, "break": True}, (0, 1, 0)),
    ],
)
async def test_each_end_is_counted_once_and_a_4xx_is_an_answer(world: World, body: dict[str, Any], expected: tuple[int, ...]) -> None:
    await world.post({"model": "medical", **body})
    assert await ended(world) == expected
    assert await world.metric(f"graftwork_requests_total{{{MEDICAL}}}") == 1


async def test_an_exception_of_the_engine_and_a_fault_of_the_guard_are_failures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.engine.fail = RuntimeError("engine")
    with pytest.raises(RuntimeError):
        await world.post({"model": "medical"})
    world.engine.fail = None
    for place in ("graftwork_guard.reply.public_answer", "graftwork_guard.bodies.encode_request"):
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_: 1 / 0)
            assert (await world.post({"model": "medical"})).status == 500
    assert await ended(world) == (0, 3, 0)
    assert await world.metric(f'graftwork_request_errors_total{{{MEDICAL},status="5xx"}}') == 3


async def test_json_that_is_too_deep_to_be_written_is_a_client_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: object) -> bytes:
        raise TooDeepError

    monkeypatch.setattr("graftwork_guard.bodies.encode_request", too_deep)
    assert (await world.post({"model": "medical"})).status == 400
    assert await ended(world) == (1, 0, 0)
    assert await world.metric(f'graftwork_request_errors_total{{{MEDICAL},status="4xx"}}') == 1


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_client_that_leaves_abandons_its_request_unless_its_answer_had_failed(world: World, breaks: bool) -> None:
    world.engine.gate.clear()
    call = Call(world.guard, "POST", CHAT, json.dumps({"model": "medical", "stream": True}).encode())
    running = asyncio.create_task(call.run())
    await world.engine.streaming.wait()
    if breaks:
        await world.route()  # a request that fails beside it is counted by itself
        assert (await world.post({"model": "medical", "explode": 500})).status == 500
    call.leave()
    await running
    assert await ended(world) == (0, int(breaks), 1)


async def test_what_is_refused_ends_too(world: World) -> None:
    for name in ("nobody", "legal"):
        await world.post({"model": name})
    assert await ended(world, 'alias="",digest="",version=""') == (1, 1, 0)


async def test_what_is_routed_has_zeros_and_the_time_at_which_it_began(world: World) -> None:
    text = (await world.call("GET", "/graftwork/metrics")).body.decode()
    for labels in (MEDICAL, f'alias="{BASE}",digest="",version=""', 'alias="",digest="",version=""'):
        for outcome in OUTCOMES:
            assert f'graftwork_requests_ended_total{{{labels},outcome="{outcome}"}} 0\n' in text
        assert time.time() - 60 < await world.metric(f"graftwork_series_start_time_seconds{{{labels}}}") <= time.time()


def test_a_series_that_was_forgotten_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, target = Metrics(), Target("medical", ENGINE)
    metrics.routed(Routing("support", {"medical": ENGINE}))
    first = metrics.of(target).began
    metrics.routed(Routing("support", {}))
    metrics.routed(Routing("support", {"medical": ENGINE}))
    assert metrics.of(target).began == first, "it was kept"
    for number in range(60):
        metrics.routed(Routing("support", {"other": f"other--{number:012x}"}))
    metrics.routed(Routing("support", {"medical": ENGINE}))
    assert metrics.of(target).began > first


@pytest.mark.parametrize(
    ("status", "text", "engine", "gone"),
    [
        (404, f"The model `{ENGINE}` does not exist. Valid aliases: {BASE}.", ENGINE, True),
        (404, f"The model `{ENGINE}` does not exist.", ENGINE, True),
        (404, f"The model `{ENGINE}` does not exist.", "", False),
        (400, f"The model `{ENGINE}` does not exist.", ENGINE, False),
        (404, "Response with id resp_1 not found.", ENGINE, False),
        (404, "Not Found", ENGINE, False),
    ],
)
def test_no_other_404_is_taken_for_an_adapter_that_is_gone(status: int, text: str, engine: str, gone: bool) -> None:
    body = json.dumps({"error": {"message": text}}).encode()
    assert adapter_is_gone(body, status, Target("medical", engine)) is gone


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_an_adapter_that_was_unloaded_by_hand_is_503_until_the_agent_has_loaded_it_again(world: World, path: str) -> None:
    world.engine.gone.add(ENGINE)
    for stream in (False, True):
        answer = await world.call("POST", path, {"model": "medical", "stream": stream})
        assert (answer.status, answer.headers[b"retry-after"]) == (503, b"2")
        assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
        assert (answer.json.get("type"), answer.json["error"]["type"]) == ("error" if path == "/v1/messages" else None, "ServiceUnavailableError")
        assert ENGINE not in answer.json["error"]["message"]
    assert await ended(world) == (2, 0, 0), "no fault of the files, so none that a canary may see"
    assert await world.metric(f'graftwork_request_errors_total{{{MEDICAL},status="5xx"}}') == 2
    assert await world.metric(f'graftwork_request_errors_total{{{MEDICAL},status="4xx"}}') == 0
    world.engine.gone.clear()
    assert (await world.call("POST", path, {"model": "medical"})).status == 200
