"""What a scrape of a pod tells of each alias and version, in names that clients and routers know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.adapters import Published
from tests.e2e.answers import LongAnswer
from tests.e2e.service import QUESTION, Service
from tests.harness import ask
from tests.harness.kube import Kube

ENGINE_NAME = re.compile(r"--[0-9a-f]{12}")
PATHS = ("/metrics", "/graftwork/metrics")


@pytest.fixture(scope="module")
def two_versions(kube: Kube, taught: Service, swordfish: Published, periwinkle: Published) -> Iterator[str]:
    """An alias that was asked in version 3, then in version 4."""
    for version, adapter in ((3, swordfish), (4, periwinkle)):
        kube.apply(adapter.under("counted", version))
        taught.until_answer("counted", adapter.word)
    yield "counted"
    kube.delete("loraadapter", "counted-3", "counted-4")


def scrape(service: Service, path: str) -> list[Metric]:
    """Return the metric families of the one pod."""
    status, text = ask.get(service.pod()["status"]["podIP"], service.port, path)
    assert status == 200
    return list(text_string_to_metric_families(text))


def value(service: Service, name: str, **labels: str) -> float:
    """Return the sum of the guard's samples of a name that have these labels."""
    samples = [sample for family in scrape(service, "/graftwork/metrics") for sample in family.samples if sample.name == name]
    assert samples or name.endswith("errors_total"), f"there is no {name}"
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def counted(service: Service, alias: str, version: str) -> dict[str, float]:
    """Return every counter of one alias and version."""
    of = {"alias": alias, "version": version}
    return {
        "requests": value(service, "graftwork_requests_total", **of),
        "errors": value(service, "graftwork_request_errors_total", **of),
        "prompt": value(service, "graftwork_tokens_total", **of, kind="prompt"),
        "completion": value(service, "graftwork_tokens_total", **of, kind="completion"),
        "first tokens": value(service, "graftwork_time_to_first_token_seconds_count", **of),
    }


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by how much counters have grown."""
    return {name: after[name] - before[name] for name in before}


def test_each_alias_and_version_has_its_own_counters(two_versions: str, taught: Service) -> None:
    old, new, none = (counted(taught, two_versions, version) for version in ("3", "4", "5"))
    assert old["requests"] >= 1
    assert new["requests"] >= 1
    assert none["requests"] == 0
    answer = taught.ask(two_versions)
    stream = LongAnswer(taught.host, taught.port, two_versions, 20)
    stream.start()
    stream.join(timeout=60)
    wrong = ask.chat(taught.host, taught.port, two_versions, QUESTION, temperature=-1)
    assert (answer.status, stream.failure, wrong.status) == (200, "", 400)
    told = grown(new, counted(taught, two_versions, "4"))
    assert told["requests"] == 3
    assert told["errors"] == 1
    assert told["first tokens"] == 1, "only a stream shows its first token"
    assert told["completion"] == answer.body["usage"]["completion_tokens"] + 20
    assert told["prompt"] > answer.body["usage"]["prompt_tokens"]
    assert counted(taught, two_versions, "3") == old, "the version before is not touched"


def test_requests_in_flight_are_seen_while_they_last_and_not_after(two_versions: str, taught: Service) -> None:
    long = LongAnswer(taught.host, taught.port, two_versions, 400, 4)
    long.start()
    assert long.begun.wait(30)
    during = value(taught, "graftwork_requests_in_flight", alias=two_versions, version="4")
    assert long.is_alive(), "the answer must still come, or this proves nothing"
    long.join(timeout=90)
    assert during == 1
    assert long.failure == ""
    assert value(taught, "graftwork_requests_in_flight", alias=two_versions) == 0


def test_a_name_that_a_client_invents_never_becomes_a_label(taught: Service) -> None:
    before = value(taught, "graftwork_requests_total", alias="")
    assert taught.ask("invented-by-a-client").status == 404
    for path in PATHS:
        _, text = ask.get(taught.pod()["status"]["podIP"], taught.port, path)
        assert "invented" not in text
    assert value(taught, "graftwork_requests_total", alias="") == before + 1


@pytest.mark.parametrize("path", PATHS)
def test_no_engine_name_is_in_what_is_scraped_and_no_series_is_there_twice(two_versions: str, taught: Service, path: str) -> None:
    _, text = ask.get(taught.pod()["status"]["podIP"], taught.port, path)
    assert ENGINE_NAME.findall(text) == []
    series = Counter((sample.name, *sorted(sample.labels.items())) for family in scrape(taught, path) for sample in family.samples)
    assert [each for each, count in series.items() if count > 1] == [], "Prometheus refuses a whole scrape for one of these"


def test_the_engines_own_lora_series_names_aliases(two_versions: str, taught: Service) -> None:
    """Routers look at it to find the pods that have an adapter in their batch."""
    long = LongAnswer(taught.host, taught.port, two_versions, 400, 4)
    long.start()
    assert long.begun.wait(30)
    told = running(taught)
    while two_versions not in told and long.is_alive():  # the engine writes the series after each step
        told = running(taught)
    long.join(timeout=90)
    assert long.failure == ""
    assert two_versions in told


def running(service: Service) -> set[str]:
    """Return the names of the adapters that the engine's series says it has worked on."""
    labels = [sample.labels for family in scrape(service, "/metrics") for sample in family.samples if sample.name == "vllm:lora_requests_info"]
    return {name for each in labels for name in each["running_lora_adapters"].split(",") if name}
