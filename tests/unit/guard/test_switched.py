"""The engine that answers with and without the guard: which header chooses, and that nothing but the guard lies between."""

from __future__ import annotations

import json

from tests.harness import guard_switch, switched
from tests.unit.guard.fakes import ENGINE, Call, World

CHAT = "/v1/chat/completions"


def test_the_header_is_the_one_that_the_middleware_looks_for() -> None:
    assert [(name.encode(), value.encode()) for name, value in switched.HEADER.items()] == [guard_switch.PLAIN]


async def test_a_request_with_the_header_reaches_the_engine_as_it_is(world: World) -> None:
    switch = guard_switch.Switch(world.engine)
    switch._guard = world.guard
    for model, headers in (("medical", []), (ENGINE, [guard_switch.PLAIN])):
        answer = await Call(switch, "POST", CHAT, json.dumps({"model": model}).encode(), headers).run()
        assert (answer.status, answer.json["model"]) == (200, model)
