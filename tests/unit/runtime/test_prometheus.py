from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from graftwork.clock import SystemClock
from graftwork.cluster import prometheus
from graftwork.cluster.kinds import Key
from graftwork.cluster.prometheus import Prometheus, promql, window_seconds
from graftwork.facts.canary import Numbers, Observation, Question
from graftwork_guard.metrics import Metrics
from graftwork_guard.routing import Target

OPERATOR = Path(__file__).parents[3] / "operator"
KEY = Key("LLMDeployment", "ml", "support")
QUESTION = Question("ml", "support", "medical", 7, 8, datetime(2026, 11, 21, 13, tzinfo=UTC))


def sample(what: str, version: str, value: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"what": what, "version": version, **labels}, "value": [1763730000.1, value]}


def vector(*samples: dict[str, Any]) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": list(samples)}}).encode()


def numbers(seen: Observation) -> tuple[Numbers, Numbers]:
    assert not seen.problem
    return seen.candidate, seen.stable


class Stub:
    """A Prometheus whose answers the test decides; with `held` set it keeps a request until `free`."""

    def __init__(self) -> None:
        self.body, self.code, self.headers = vector(), 200, {"Content-Type": "application/json"}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.held = False
        self.free = asyncio.Event()
        self.asked = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, dict(request.query)))
        self.asked.set()
        if self.held:
            await self.free.wait()
        return web.Response(body=self.body, status=self.code, headers=self.headers)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    found = Stub()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]  # it listens
    yield found
    found.free.set()
    await runner.cleanup()


class Woken:
    """Counts wakes and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.event = asyncio.Event()

    def __call__(self, key: Key, after: float = 0) -> None:
        self.keys.append(key)
        self.event.set()

    async def next(self) -> None:
        async with asyncio.timeout(20):
            await self.event.wait()
        self.event.clear()


@pytest.fixture
async def woken() -> Woken:
    return Woken()


@pytest.fixture
async def client(stub: Stub, woken: Woken) -> AsyncIterator[Prometheus]:
    found = Prometheus(stub.url + "/prefix/", woken, SystemClock(), timeout_seconds=15)
    yield found
    await found.close()


async def test_the_numbers_of_both_versions_come_from_one_query(stub: Stub, client: Prometheus) -> None:
    stub.body = vector(
        sample("answered", "7", "900"),
        sample("failed", "7", "0"),
        sample("answered", "8", "97.6"),
        sample("failed", "8", "2"),
        sample("abandoned", "8", "7"),
        sample("ttft_sum", "7", "20"),
        sample("ttft_count", "7", "100"),
        sample("ttft_sum", "8", "5"),
        sample("ttft_count", "8", "20"),
    )
    seen = await client.observe(QUESTION)
    assert (seen.candidate, seen.stable) == (Numbers(99.6, 2.0, 5.0, 20.0, 7.0), Numbers(900.0, 0.0, 20.0, 100.0))
    assert seen.lasted_seconds == pytest.approx((datetime.now(UTC) - QUESTION.since).total_seconds(), abs=30)  # type: ignore[operator]
    assert (seen.candidate.ttft, seen.stable.ttft) == (0.25, 0.2)
    ((path, query),) = stub.requests
    assert path == "/prefix/api/v1/query"
    assert 'alias="medical",version=~"7|8"' in query["query"]


async def test_no_series_is_no_number_and_neither_are_nan_and_infinity(stub: Stub, client: Prometheus) -> None:
    assert numbers(await client.observe(QUESTION)) == (Numbers(), Numbers())
    stub.body = vector(sample("answered", "8", "NaN"), sample("failed", "8", "+Inf"), sample("ttft_sum", "8", "NaN"), sample("answered", "7", "-Inf"))
    assert numbers(await client.observe(QUESTION)) == (Numbers(), Numbers())
    assert Numbers(50.0, 0.0, 0.0, 0.0).ttft is None


async def test_requests_whose_failures_nobody_tells_are_no_data_and_not_without_failures(stub: Stub, client: Prometheus) -> None:
    stub.body = vector(sample("answered", "8", "100"), sample("answered", "7", "100"), sample("failed", "7", "0"))
    seen = await client.observe(QUESTION)
    assert (seen.candidate.requests, seen.stable.requests) == (None, 100.0)
    stub.body = vector(sample("failed", "8", "3"))
    assert (await client.observe(QUESTION)).candidate.requests is None


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (500, b'{"status":"error","error":"out of memory"}', "refused the query: HTTP Status Code 500"),
        (422, b'{"status":"error","errorType":"execution","error":"too many samples"}', "too many samples"),
        (503, b"Service Unavailable", "503"),
        (200, b"<html>sign in</html>", "not Prometheus' API; correct prometheus.url"),
        (200, b"{}", "not Prometheus' API"),
        (200, b'{"data": null}', "not Prometheus' API"),
        (200, b'{"data": {"result": 3}}', "not a vector"),
        (200, b'{"data": {"result": [{"metric": {}, "value": [1, "3"]}]}}', "not a vector"),
        (200, b'{"data": {"result": [{"metric": {"what": "answered", "version": "8"}, "value": [1]}]}}', "not a vector"),
        (200, b'{"data": {"result": [{"metric": {"what": "answered", "version": "8"}, "value": [1, "x"]}]}}', "not a vector"),
        (200, b'{"data": {"result": [3]}}', "not a vector"),
        (200, vector() + b"\xff\xfe", "not Prometheus' API"),
    ],
    ids=str,
)
async def test_an_answer_that_is_none_is_a_problem_in_the_same_words_each_time(
    stub: Stub, client: Prometheus, code: int, body: bytes, words: str
) -> None:
    stub.code, stub.body = code, body
    first, again = await client.observe(QUESTION), await client.observe(QUESTION)
    assert words in first.problem
    assert first.problem.startswith("Prometheus at 127.0.0.1:")
    assert first == again
    assert len(stub.requests) == 2  # no retries behind our back: the next look is the retry


async def test_nobody_at_the_address_is_a_problem_that_does_not_show_credentials() -> None:
    client = Prometheus("http://admin:hunter2@127.0.0.1:1", lambda key, after=0: None, SystemClock())
    seen = await client.observe(QUESTION)
    assert seen.problem == "Prometheus at 127.0.0.1:1 cannot be reached (ConnectionError)"
    await client.close()


async def test_an_error_that_nobody_foresaw_is_a_problem_and_the_next_look_asks_again(
    stub: Stub, client: Prometheus, woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(query: str) -> object:
        raise RecursionError(query)

    monkeypatch.setattr(client, "_query", fails)
    client.ask(KEY, QUESTION, 0)
    await woken.next()
    answer = client.ask(KEY, QUESTION, 60)
    assert answer
    assert "could not be asked (RecursionError)" in answer.problem
    monkeypatch.undo()
    client.ask(KEY, QUESTION, 0)
    await woken.next()
    renewed = client.ask(KEY, QUESTION, 60)
    assert renewed
    assert renewed.problem == ""


async def test_one_that_hangs_is_given_up(stub: Stub, woken: Woken) -> None:
    stub.held = True
    client = Prometheus(stub.url, woken, SystemClock(), timeout_seconds=0.3)
    assert "did not answer within 0.3 s" in (await client.observe(QUESTION)).problem
    await client.close()


async def test_asking_never_waits_and_an_answer_wakes_the_resource(stub: Stub, client: Prometheus, woken: Woken) -> None:
    stub.held = True
    assert client.ask(KEY, QUESTION, 60) is None
    await stub.asked.wait()
    assert client.ask(KEY, QUESTION, 0) is None  # one request at a time
    stub.body = vector(sample("answered", "8", "50"), sample("failed", "8", "0"))
    stub.free.set()
    await woken.next()
    assert woken.keys == [KEY]
    answer = client.ask(KEY, QUESTION, 60)
    assert answer
    assert answer.candidate.requests == 50
    assert len(stub.requests) == 1
    stub.body = vector(sample("answered", "8", "51"), sample("failed", "8", "0"))
    assert client.ask(KEY, QUESTION, 0) == answer
    await woken.next()
    renewed = client.ask(KEY, QUESTION, 60)
    assert renewed
    assert renewed.candidate.requests == 51


async def test_the_answer_to_another_step_is_no_answer(stub: Stub, client: Prometheus, woken: Woken) -> None:
    client.ask(KEY, QUESTION, 60)
    await woken.next()
    assert client.ask(KEY, QUESTION, 60) is not None
    later = Question(**{**QUESTION.__dict__, "since": datetime(2026, 11, 21, 14, tzinfo=UTC)})
    assert client.ask(KEY, later, 60) is None
    await woken.next()
    assert client.ask(KEY, later, 60) is not None


async def test_what_is_forgotten_is_asked_anew(client: Prometheus, woken: Woken) -> None:
    client.ask(KEY, QUESTION, 60)
    await woken.next()
    client.forget(KEY, but=["medical"])
    assert client.ask(KEY, QUESTION, 60) is not None
    client.forget(Key("LLMDeployment", "ml", "other"))
    assert client.ask(KEY, QUESTION, 60) is not None
    client.forget(KEY)
    assert client.ask(KEY, QUESTION, 60) is None


def test_the_window_reaches_back_to_the_beginning_of_the_step() -> None:
    assert QUESTION.since
    assert window_seconds(QUESTION, QUESTION.since + timedelta(seconds=299.2)) == 300
    assert window_seconds(QUESTION, QUESTION.since) == 1
    assert "[300s]" in promql(QUESTION, 300)
    assert "offset 300s" in promql(QUESTION, 300)


def test_only_pods_of_this_deployment_are_counted() -> None:
    match = re.search(r'pod=~"([^"]*)"', promql(QUESTION, 300))
    assert match
    for pod, ours in (
        ("support-7d9f8b6c5d-x2x7p", True),
        ("support-7d9f8x2x7p", True),  # the pod of a long name
        ("support-eu-7d9f8b6c5d-x2x7p", False),
        ("my-support-7d9f8b6c5d-x2x7p", False),
    ):
        assert bool(re.fullmatch(match[1], pod)) is ours


def test_the_query_asks_for_metrics_and_labels_that_the_guard_has() -> None:
    """The names are the guard's: one that it renames would be no data for ever, or no errors."""
    metrics = Metrics()
    metrics.of(Target("medical", "medical--3f2a9c41d0e7")).first_token(0.1)
    text = metrics.render().decode()
    for name, _ in prometheus.METRICS.values():
        assert re.search(rf'^{name}{{[^}}]*alias="medical"', text, re.MULTILINE), name
    ended = re.findall(rf'^{prometheus.ENDED}{{(alias="medical"[^}}]*),outcome="(\w+)"}} 0$', text, re.MULTILINE)
    assert {outcome for _, outcome in ended} == {"answered", "failed", "abandoned"}  # zeros too: a series that is not there is no data
    (labels,) = {labels for labels, _ in ended}
    assert re.search(rf"^{prometheus.STARTED}{{{re.escape(labels)}}} 1[0-9.]{{9,}}$", text, re.MULTILINE), "joined by the same labels, in seconds"


def test_the_operator_loads_the_client_only_when_it_asks_and_never_pandas() -> None:
    program = (
        "import sys, graftwork.process; assert 'prometheus_api_client' not in sys.modules;"
        "import prometheus_api_client.prometheus_connect;"
        "heavy = {'pandas', 'numpy', 'matplotlib', 'dateparser'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(OPERATOR)})
