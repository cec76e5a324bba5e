"""The numbers that are left behind: by alias and version on both endpoints, in a text that Prometheus reads, and in bounded number."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from graftwork_guard.exposition import public_metrics
from graftwork_guard.metrics import RETIRED_KEPT, Metrics
from graftwork_guard.routing import Routing, Target
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.guard.fakes import BASE, ENGINE, METRICS, OTHER, Call, World

CHAT = "/v1/chat/completions"
NEW = "medical--bbbbbbbbbbbb"
LABELS = 'alias="medical",digest="3f2a9c41d0e7",version="7"'
VERSIONS = {ENGINE: 7, NEW: 8}
LORA = "vllm:lora_requests_info"

Sample = tuple[str, tuple[tuple[str, str], ...]]


def parsed(text: bytes) -> dict[Sample, float]:
    """Every sample by name and labels, as Prometheus' own library reads it; no series comes twice."""
    found: dict[Sample, float] = {}
    families: set[str] = set()
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in families, f"{family.name} in two places"
        families.add(family.name)
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def rewritten(*lines: str, own: bytes = b"", base: str = BASE) -> list[str]:
    return public_metrics("".join(f"{line}\n" for line in lines).encode(), base, own).decode().splitlines()


async def test_metrics_split_by_alias_and_version_and_put_the_refused_together(world: World) -> None:
    await world.route(versions=VERSIONS)
    await world.post({"model": "medical"})
    await world.post({"model": "medical", "stream": True, "stream_options": {"include_usage": True}})
    await world.post({"model": "medical", "stream": True})
    await world.post({"model": "medical", "explode": True})
    await world.post({})
    for name in ("nobody", 'evil"\n', "x" * 5000, "legal"):
        await world.post({"model": name})
    assert await world.metric(f"graftwork_requests_total{{{LABELS}}}") == 4
    assert await world.metric(f'graftwork_request_errors_total{{{LABELS},status="4xx"}}') == 1
    assert await world.metric(f'graftwork_request_errors_total{{{LABELS},status="5xx"}}') == 0
    assert await world.metric(f'graftwork_tokens_total{{{LABELS},kind="prompt"}}') == 15
    assert await world.metric(f'graftwork_tokens_total{{{LABELS},kind="completion"}}') == 6
    assert await world.metric(f"graftwork_time_to_first_token_seconds_count{{{LABELS}}}") == 2
    assert await world.metric(f"graftwork_requests_in_flight{{{LABELS}}}") == 0
    assert await world.metric(f'graftwork_requests_total{{alias="{BASE}",digest="",version=""}}') == 1
    assert await world.metric('graftwork_requests_total{alias="",digest="",version=""}') == 4
    assert await world.metric('graftwork_request_errors_total{alias="",digest="",version="",status="4xx"}') == 3
    assert await world.metric('graftwork_request_errors_total{alias="",digest="",version="",status="5xx"}') == 1


async def test_a_stable_version_and_its_candidate_are_counted_apart(world: World) -> None:
    candidate = {"medical": {"engine": NEW, "weight": 100}}
    await world.route(versions=VERSIONS, candidates=candidate)
    await world.post({"model": "medical"})
    await world.route(versions=VERSIONS)
    await world.post({"model": "medical"})
    await world.post({"model": "medical"})
    assert await world.metric('graftwork_requests_total{alias="medical",digest="bbbbbbbbbbbb",version="8"}') == 1
    assert await world.metric(f"graftwork_requests_total{{{LABELS}}}") == 2


async def test_what_is_routed_has_its_series_before_its_first_request(world: World) -> None:
    await world.route(versions=VERSIONS, candidates={"medical": {"engine": NEW, "weight": 5}})
    found = parsed((await world.call("GET", "/graftwork/metrics")).body)
    for digest, version in (("3f2a9c41d0e7", "7"), ("bbbbbbbbbbbb", "8")):
        labels = (("alias", "medical"), ("digest", digest), ("version", version))
        assert found["graftwork_requests_total", labels] == 0
        assert found["graftwork_time_to_first_token_seconds_count", labels] == 0
        assert found["graftwork_tokens_total", (*labels[:2], ("kind", "prompt"), labels[2])] == 0
        assert found["graftwork_request_errors_total", (*labels[:2], ("status", "5xx"), labels[2])] == 0


async def test_a_request_in_flight_shows(world: World) -> None:
    world.engine.gate.clear()
    task = asyncio.create_task(Call(world.guard, "POST", CHAT, b'{"model": "medical", "stream": true}').run())
    await world.engine.streaming.wait()
    assert await world.metric('graftwork_requests_in_flight{alias="medical"') == 1
    world.engine.gate.set()
    await task
    assert await world.metric('graftwork_requests_in_flight{alias="medical"') == 0


def _served(metrics: Metrics) -> set[Target]:
    return set(metrics._series)


def test_versions_that_come_and_go_do_not_gather_for_ever() -> None:
    metrics = Metrics()
    first = Target("old", "old--aaaaaaaaaaaa")
    metrics.routed(Routing("support", {"old": first.engine}))
    for number in range(500):
        metrics.routed(Routing("support", {"old": first.engine, "medical": f"medical--{number:012x}"}))
        metrics.of(Target("medical", f"medical--{number:012x}")).requests += 1
    metrics.routed(Routing("support", {"medical": f"medical--{499:012x}"}))
    kept = [Target("medical", f"medical--{number:012x}") for number in range(451, 500)]
    assert _served(metrics) >= {*kept[:-1], first}, "what left the map last is kept, however long it had been there"
    assert metrics.render().count(b"graftwork_requests_total{") == RETIRED_KEPT + 3  # the base, what is routed now, and the refused


def test_a_version_with_a_request_in_flight_is_not_forgotten_and_one_that_comes_back_goes_on() -> None:
    metrics = Metrics()
    busy, back = Target("busy", "busy--aaaaaaaaaaaa"), Target("back", "back--aaaaaaaaaaaa")
    metrics.routed(Routing("support", {"busy": busy.engine, "back": back.engine}))
    metrics.of(busy).in_flight, metrics.of(back).requests = 1, 3
    for number in range(200):
        metrics.routed(Routing("support", {"medical": f"medical--{number:012x}"} | ({"back": back.engine} if number % 40 == 0 else {})))
    assert {busy, back} <= _served(metrics)
    assert metrics.of(back).requests == 3


def test_the_histogram_is_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.3, 999.0):
        metrics.of(Target("b")).first_token(seconds)
    text = metrics.render().decode()
    assert '_bucket{alias="b",digest="",version="",le="0.01"} 1\n' in text
    assert '_bucket{alias="b",digest="",version="",le="0.5"} 2\n' in text
    assert '_bucket{alias="b",digest="",version="",le="160.0"} 2\n' in text
    assert '_bucket{alias="b",digest="",version="",le="+Inf"} 3\n' in text
    assert '_seconds_sum{alias="b",digest="",version=""} 999.31\n' in text


async def test_one_scrape_has_the_engines_metrics_with_aliases_and_the_guards(world: World) -> None:
    await world.route(versions=VERSIONS)
    await world.post({"model": "medical"})
    answer = await world.call("GET", "/metrics", headers=[(b"accept-encoding", b"gzip"), (b"accept", b"application/openmetrics-text; version=1.0.0")])
    assert answer.headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    found = parsed(answer.body)
    labels = (("max_lora", "4"), ("running_lora_adapters", "medical,legal"), ("waiting_lora_adapters", ""))
    assert {key: value for key, value in found.items() if key[0] == LORA} == {(LORA, labels): 1763740002.1}
    assert found["vllm:num_requests_running", (("engine", "0"), ("model_name", BASE))] == 1
    assert found["process_open_fds", ()] == 38
    assert found["graftwork_requests_total", (("alias", "medical"), ("digest", "3f2a9c41d0e7"), ("version", "7"))] == 1
    assert ENGINE.encode() not in answer.body
    assert OTHER.encode() not in answer.body
    assert b"graftwork_" in (await world.call("GET", "/graftwork/metrics")).body
    assert b"vllm:" not in (await world.call("GET", "/graftwork/metrics")).body


async def test_before_the_first_routing_both_are_readable(cold: World) -> None:
    assert parsed((await cold.call("GET", "/metrics")).body)["process_open_fds", ()] == 38
    assert parsed((await cold.call("GET", "/graftwork/metrics")).body) == {}


def _lora(running: Iterable[str], waiting: Iterable[str], time: float) -> str:
    return f'{LORA}{{max_lora="4",running_lora_adapters="{",".join(running)}",waiting_lora_adapters="{",".join(waiting)}"}} {time}'


@given(st.lists(st.tuples(st.lists(st.sampled_from([ENGINE, NEW, OTHER, "own-name"]), max_size=4), st.integers(0, 10**10)), min_size=1, max_size=30))
def test_of_all_combinations_of_adapters_the_newest_stays_with_each_alias_once(states: list[tuple[list[str], int]]) -> None:
    lines = rewritten(*(_lora(names, reversed(names), float(time)) for names, time in states))
    assert len(lines) == 1
    newest = max(time for _, time in states)
    running = [names for names, time in states if time == newest][-1]
    aliases = list(dict.fromkeys(name.partition("--")[0] for name in running))
    behind = list(dict.fromkeys(name.partition("--")[0] for name in reversed(running)))
    assert lines[0] == _lora(aliases, behind, float(newest))


def test_a_name_anywhere_else_becomes_its_alias_and_series_that_fall_together_are_added_up() -> None:
    lines = rewritten(
        "# HELP x Requests per adapter.",
        "# TYPE x counter",
        f'x_total{{model_name="{ENGINE}",finished="stop"}} 2.0',
        f'x_total{{model_name="{OTHER}",finished="stop"}} 5.0',
        f'x_total{{model_name="{NEW}",finished="stop"}} 3.0',
        f'x_created{{model_name="{ENGINE}"}} 20.0',
        f'x_created{{model_name="{NEW}"}} 10.0',
        f'y{{path="/adapters/{ENGINE}/x"}} 1.0',
        'y{path="a--b"} 1.0',
        f'y{{path="{ENGINE}0"}} 1.0',
    )
    assert lines == [
        "# HELP x Requests per adapter.",
        "# TYPE x counter",
        'x_total{model_name="medical",finished="stop"} 5.0',
        'x_total{model_name="legal",finished="stop"} 5.0',
        'x_created{model_name="medical"} 10.0',
        'y{path="/adapters/medical/x"} 1.0',
        'y{path="a--b"} 1.0',
        f'y{{path="{ENGINE}0"}} 1.0',
    ]


def test_a_base_that_is_called_like_an_adapter_keeps_its_name() -> None:
    assert rewritten(f'x{{model_name="{ENGINE}"}} 1.0', base=ENGINE) == [f'x{{model_name="{ENGINE}"}} 1.0']


def test_what_is_behind_the_end_of_openmetrics_would_not_be_read_so_nothing_is_put_there() -> None:
    assert rewritten("x 1.0", "# EOF", own=b"y 2.0\n") == ["x 1.0", "# EOF"]
    assert public_metrics(b"x 1.0", BASE, b"y 2.0\n") == b"x 1.0\ny 2.0\n"
    assert public_metrics(b"", BASE, b"y 2.0\n") == b"y 2.0\n"


@given(st.binary(max_size=80) | st.text(alphabet='vllm:ora_{}",= \n-#0123abc', max_size=120).map(str.encode))
def test_any_text_of_the_engine_is_survived(text: bytes) -> None:
    assert public_metrics(text, BASE, b"y 2.0\n").endswith((b"y 2.0\n", b"# EOF", b"# EOF\n"))


@pytest.mark.parametrize("status", [500, 503])
async def test_an_engine_that_has_no_metrics_to_give_is_passed_on(world: World, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async def failing(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"down"})  # type: ignore[operator]

    monkeypatch.setattr(world.guard, "app", failing)
    answer = await world.call("GET", "/metrics")
    assert (answer.status, answer.body) == (status, b"down")


def test_the_fake_engines_metrics_are_text_that_prometheus_reads() -> None:
    assert len(parsed(METRICS)) == 5
