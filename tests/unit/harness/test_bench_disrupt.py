"""The parts of the disruptions of `make bench-serving` that need no cluster."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import plain
from tests.harness import grids, records
from tests.harness.bench_disrupt import MIGRATION, TITLE, Outcome, figures, require_loss
from tests.harness.bench_serving import arguments
from tests.harness.disrupt import DISRUPTIONS, chosen, restarted
from tests.harness.kube import Kube
from tests.harness.records import Figure
from tests.harness.sides import ours, theirs
from tests.harness.windows import Count

IMAGES = {"agent": "agent:1", "engine-cpu": "engine:1"}
KUBE = Kube("kubectl", records.ROOT / "none")
NOTHING = Count(0, 0, 0, 0)


def outcome(requests: int = 600, lost: int = 0, cut: int = 0, fewest: int = 2, killed: int = 0) -> Outcome:
    return Outcome(Count(requests, requests // 2, lost, cut), Count(killed, 0, killed, 0), fewest, 71.234)


def test_a_row_says_what_each_side_lost_and_holds_only_without_loss() -> None:
    made = {each.figure.split(": ", 2)[2]: each for each in figures(DISRUPTIONS["flag"], outcome(), outcome(lost=7, killed=2, fewest=1))}
    assert {name: each.value for name, each in made.items()} == {
        "requests": 600,
        "lost": 0,
        "streams cut": 0,
        "fewest ready pods": 2,
        "pods below the ready floor": 0,
        "seconds": 71.2,
        "plain: requests": 600,
        "plain: lost": 9,
        "plain: fewest ready pods": 1,
    }
    assert [name for name, each in made.items() if each.holds is not None] == ["lost", "streams cut", "pods below the ready floor"]
    bad = figures(DISRUPTIONS["flag"], outcome(lost=1, cut=1, fewest=1), None)
    assert [each.figure.rpartition(": ")[2] for each in bad if each.holds is False] == ["lost", "streams cut", "pods below the ready floor"]


@pytest.mark.parametrize(("name", "floor"), [("drain", 1), ("eviction", 1), ("crash", 1), ("flag", 2), ("scale-down", 2), ("operator", 2)])
def test_the_floor_is_what_the_disruption_leaves(name: str, floor: int) -> None:
    row = {each.figure.rpartition(": ")[2]: each.value for each in figures(DISRUPTIONS[name], outcome(fewest=floor - 1), None)}
    assert row["pods below the ready floor"] == 1


def test_what_failed_with_a_killed_pod_has_its_own_figure_and_no_limit() -> None:
    (its,) = [each for each in figures(DISRUPTIONS["crash"], outcome(killed=5), None) if each.figure.endswith("killed pod")]
    assert (its.value, its.holds) == (5, None)
    assert not [each for each in figures(MIGRATION, outcome(), None) if each.figure.endswith("killed pod")]


def test_without_streams_there_is_no_row() -> None:
    with pytest.raises(AssertionError, match="0% of the requests were streams"):
        figures(MIGRATION, Outcome(Count(600, 0, 0, 0), NOTHING, 2, 1), None)


def test_a_comparison_in_which_the_plain_side_lost_nothing_is_void() -> None:
    require_loss("drain", outcome(lost=1))
    require_loss("crash", outcome(killed=1))
    with pytest.raises(AssertionError, match="lost none of 600 requests"):
        require_loss("drain", outcome())


def test_disruptions_are_chosen_by_name() -> None:
    assert chosen("") == list(DISRUPTIONS)
    assert chosen("drain,crash") == ["drain", "crash"]
    with pytest.raises(SystemExit):
        arguments(["--disruptions", "drain,fire"])
    with pytest.raises(SystemExit):
        arguments(["--only", "migrate", "--where", "api-server"])


def test_each_change_of_the_plain_side_changes_its_pods_and_nothing_else() -> None:
    side = theirs(KUBE, IMAGES)
    seen = [side.objects()]
    for change in ({"flags": ("--seed", "1")}, {"reference": "engine:again"}, {"revision": "aaaa"}):
        vars(side).update(change)
        seen.append(side.objects())
    templates = [made["spec"]["template"] for made, _ in seen]
    assert all(before != after for before, after in itertools.pairwise(templates))
    assert {str(service) for _, service in seen} == {str(plain.objects(IMAGES)[1])}


def test_both_sides_are_told_apart_by_their_labels() -> None:
    assert ours(KUBE).selector != theirs(KUBE, IMAGES).selector


def pod(uid: str, restarts: int, ready: str = "True") -> dict[str, Any]:
    status = {"conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [{"name": "vllm", "restartCount": restarts}]}
    return {"metadata": {"uid": uid}, "status": status}


def test_a_crash_is_over_when_one_engine_has_started_again_in_the_same_pods() -> None:
    before = [pod("a", 0), pod("b", 3)]
    good = restarted(before)
    assert not good(copy.deepcopy(before))
    assert not good([pod("a", 1, ready="False"), pod("b", 3)])
    assert not good([pod("c", 1), pod("b", 3)])
    assert good([pod("a", 1), pod("b", 3)])


def test_figures_of_one_title_are_one_table_with_a_line_per_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    row = figures(DISRUPTIONS["flag"], outcome(lost=1), outcome(lost=7))
    records.write("serving", "make bench-serving", [Figure("RSS", 137, "MB", 150, [137]), *row, *figures(MIGRATION, outcome(), None)])
    path = records.write("serving", "make bench-serving", figures(DISRUPTIONS["drain"], outcome(fewest=1), None))
    lines = path.with_suffix(".md").read_text().splitlines()
    assert f"## {TITLE}" in lines
    header, _, flag, drain, migration = lines[lines.index(f"## {TITLE}") + 2 :][:5]
    assert header.startswith("|  | requests | lost | streams cut | fewest ready pods |")
    assert drain.startswith("| kubectl drain | 600 | 0 | 0 | 1 | 0 |")
    assert flag.startswith("| flag change | 600 | **1** |")
    assert migration.startswith(f"| {MIGRATION.name} | 600 | 0 |")
    assert "Limits: lost 0, streams cut 0, pods below the ready floor 0." in lines
    assert "| RSS | 137 MB | 150 MB | yes | 1 |" in lines


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a: b: c: d", ("a", "b", "c: d")), ("300 at once: p99", None), ("a", None)],
)
def test_a_name_of_three_parts_is_of_a_grid(name: str, expected: tuple[str, str, str] | None) -> None:
    assert grids.parts(name) == expected
