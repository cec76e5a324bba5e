from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from graftwork.cluster.events import QUIET_SECONDS, WAITING, EventRecorder
from graftwork.errors import Forbidden

from tests.unit.runtime.fakes import FakeClock, FakeCluster, obj_of

OBJ = obj_of("LLMDeployment")


class Bench:
    def __init__(self) -> None:
        self.cluster, self.clock = FakeCluster(), FakeClock()
        self.recorder = EventRecorder(self.cluster, self.clock, "operator-1")

    async def notes(self) -> list[str]:
        await self.recorder.drain()
        return [obj["note"] for obj in self.cluster.objects.values()]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    task = asyncio.create_task(made.recorder.run())
    yield made
    task.cancel()


async def test_an_event_says_about_what_why_and_by_whom(bench: Bench) -> None:
    bench.recorder.record(OBJ, "Serving", "it answers")
    await bench.recorder.drain()
    (event,) = bench.cluster.objects.values()
    assert event["regarding"] == {"apiVersion": "graftwork.dev/v1alpha1", "kind": "LLMDeployment", "namespace": "ml", "name": "one", "uid": "uid-one"}
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "Serving", "it answers")
    assert event["eventTime"] == "2026-11-21T13:00:00.000000Z"
    assert event["reportingInstance"] == "operator-1"


async def test_the_same_news_is_written_once_while_it_keeps_coming(bench: Bench) -> None:
    for _ in range(20):
        bench.recorder.record(OBJ, "Serving", "it answers")
        await bench.clock.advance(QUIET_SECONDS * 0.9)
    assert await bench.notes() == ["it answers"]
    await bench.clock.advance(QUIET_SECONDS)
    bench.recorder.record(OBJ, "Serving", "it answers")
    assert len(await bench.notes()) == 2


async def test_other_news_and_other_objects_are_written(bench: Bench) -> None:
    bench.recorder.record(OBJ, "Serving", "a")
    bench.recorder.record(OBJ, "Serving", "b")
    bench.recorder.record(OBJ, "NotServing", "a")
    bench.recorder.record(obj_of("LLMDeployment", "two"), "Serving", "a")
    assert await bench.notes() == ["a", "b", "a", "a"]


async def test_a_refused_event_is_dropped_and_the_next_is_written(bench: Bench) -> None:
    refusals = [Forbidden("no")]
    bench.cluster.fail = lambda verb, kind: refusals.pop() if refusals else None
    bench.recorder.record(OBJ, "Serving", "first")
    bench.recorder.record(OBJ, "Serving", "second")
    assert await bench.notes() == ["second"]


async def test_a_long_note_is_cut(bench: Bench) -> None:
    bench.recorder.record(OBJ, "Serving", "x" * 5000)
    assert len((await bench.notes())[0]) == 1000


async def test_a_flood_is_bounded_and_never_raises() -> None:
    recorder = EventRecorder(FakeCluster(), FakeClock(), "operator-1")
    for number in range(WAITING * 2):
        recorder.record(OBJ, "Serving", str(number))
