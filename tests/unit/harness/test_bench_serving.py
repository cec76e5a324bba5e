"""The parts of `make bench-serving` that need no cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness import audit
from tests.harness.audit import OPERATOR, Call, Tail
from tests.harness.bench_create import CHILDREN, NAMESPACE, made_at, manifest, quantile_edge, took_seconds, value, writes_of
from tests.harness.bench_serving import arguments, command


def call(verb: str, resource: str, name: str, *, user: str = OPERATOR, code: int = 201, received: float = 0, answered: float = 0) -> Call:
    return Call(user, verb, "", resource, NAMESPACE, name, code, received, answered)


def line(verb: str, resource: str, name: str, namespace: str = NAMESPACE, user: str = OPERATOR, **more: Any) -> str:
    event = {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, "namespace": namespace, "name": name},
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": "2026-11-21T10:00:00.250000Z",
        "stageTimestamp": "2026-11-21T10:00:01.000000Z",
        **more,
    }
    return json.dumps(event, separators=(",", ":")) + "\n"


SUFFIXES = {"configmaps": "-adapters", "controllerrevisions": "-0123456789abcdef"}
CREATED = [
    call("create", "llmdeployments", "a-1", user="admin", received=10, answered=10.01),
    *(call("patch", each, f"a-1{SUFFIXES.get(each, '')}", answered=10.1 + number) for number, each in enumerate(sorted(CHILDREN))),
    call("patch", "llmdeployments/status", "a-1", code=200),
    call("create", "events", "a-1.0f", code=201),
]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "make bench-serving"),
        (["--only", "many"], "make bench-serving ONLY=many"),
        (["--where", "api-server", "--many", "30"], 'make bench-serving ARGS="--where api-server --many 30"'),
    ],
)
def test_the_record_says_the_command_that_measures_the_same_again(argv: list[str], expected: str) -> None:
    assert command(arguments(argv)) == expected


def test_writes_of_a_create_are_the_children_the_status_and_the_events_of_the_operator_alone() -> None:
    other = [call("patch", "llmdeployments/status", "a-2"), call("get", "services", "a-1"), call("update", "leases", "a-1"), *CREATED]
    assert len(writes_of(other, OPERATOR, "a-1")) == len(CHILDREN) + 2


def test_children_are_there_when_the_last_kind_was_answered_for_first() -> None:
    again = call("patch", "services", "a-1", code=200, answered=99)
    assert took_seconds([*CREATED, again], OPERATOR, "a-1") == pytest.approx(4.1)


def test_a_refused_child_is_not_there() -> None:
    refused = [call(each.verb, each.resource, each.name, user=each.user, code=422 if each.resource == "services" else each.code) for each in CREATED]
    assert made_at(refused, OPERATOR, ["a-1"]) == {}
    assert list(made_at(CREATED, OPERATOR, ["a-1", "a-2"])) == ["a-1"]


def test_a_tail_has_what_came_after_it_and_reads_a_half_written_line_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "audit.json"
    log.write_text(line("create", "services", "before"))
    tail = Tail(log, NAMESPACE)
    whole, other = line("patch", "services", "one"), line("patch", "services", "elsewhere", namespace="other")
    with log.open("a") as file:
        file.write(other + whole[:40])
    assert tail.read() == []
    with log.open("a") as file:
        file.write(whole[40:])
    (found,) = tail.read()
    assert (found.name, found.answered - found.received) == ("one", 0.75)
    assert len(tail.read()) == 1


def test_writes_are_counted_by_what_was_written(tmp_path: Path) -> None:
    log = tmp_path / "audit.json"
    log.write_text(line("patch", "services", "one") + line("get", "services", "one") + line("patch", "services", "one", user="somebody"))
    assert audit.writes(log) == {f"patch services {NAMESPACE}/one": 1}


HISTOGRAM = """# TYPE s histogram
s_bucket{kind="A",le="1.0"} %d
s_bucket{kind="A",le="2.5"} %d
s_bucket{kind="A",le="+Inf"} %d
s_bucket{kind="B",le="1.0"} 7
s_bucket{kind="B",le="2.5"} 7
s_bucket{kind="B",le="+Inf"} 7
"""


@pytest.mark.parametrize(("after", "edge"), [((110, 110, 110), 1.0), ((100, 110, 110), 2.5), ((107, 108, 110), float("inf"))])
def test_a_quantile_is_told_by_its_bucket_of_what_came_in_between(after: tuple[int, int, int], edge: float) -> None:
    assert quantile_edge("s", 0.99, HISTOGRAM % (10, 10, 10), HISTOGRAM % after, kind="A") == edge


def test_a_histogram_that_counted_nothing_is_no_figure() -> None:
    with pytest.raises(AssertionError, match="counted nothing"):
        quantile_edge("s", 0.99, HISTOGRAM % (1, 1, 1), HISTOGRAM % (1, 1, 1), kind="A")


def test_a_series_is_summed_over_the_labels_that_are_not_named() -> None:
    text = '# TYPE p counter\np_total{kind="A",result="ok"} 3\np_total{kind="A",result="error"} 2\np_total{kind="B",result="ok"} 9\n'
    assert value(text, "p_total", kind="A") == 5


def test_no_node_takes_the_pods_and_nothing_has_to_be_looked_up_for_them() -> None:
    spec = manifest("x")["spec"]
    assert spec["pod"]["nodeSelector"]
    assert spec["model"]["source"].startswith("pvc://")
