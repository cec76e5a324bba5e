"""Which version is stable and which one a candidate: by promotion, pin, what served before and what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from graftwork.facts.adapters import Adapter, Selection
from graftwork.facts.canary import Settings, Standing
from graftwork.facts.routes import Route
from graftwork.plan import adapters_file
from graftwork.plan.adapters import Rules, Seen, select
from graftwork.plan.promotion import CANARY, MANUAL, Promotion
from graftwork.reasons import Reason
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plan.test_adapters import BASE, KNOWN, SCHEMA, adapter, prefer, reason, rules

VERSIONS = {version: adapter("medical", version) for version in range(1, 10)}
SERVED = replace(KNOWN, served={"medical": "medical-7"})


def by(mode: str, **fields: Any) -> Rules:
    return rules(promotions={"medical": Promotion(mode, Settings(steps=(10, 50)))}, **fields)


def versions(*numbers: int) -> list[Adapter]:
    return [VERSIONS[number] for number in numbers]


def engine(number: int) -> str:
    return VERSIONS[number].engine_name


def candidate(selection: Selection) -> tuple[str, int] | None:
    plan = selection.aliases[0]
    return (plan.candidate.name, plan.weight) if plan.candidate else None


def told(text: str, seen: Seen, loaded: frozenset[str] | None = None) -> Seen:
    """Return what is seen after pods were told this."""
    config_map = {"data": {"adapters.json": text}}
    listed = adapters_file.listed(config_map)
    return replace(seen, listed=listed, routes=adapters_file.routes(config_map), loaded=listed if loaded is None else loaded)


@pytest.mark.parametrize("mode", [MANUAL, CANARY])
def test_the_first_version_of_a_new_alias_is_served_at_once(mode: str) -> None:
    selection = select(versions(1), by(mode), KNOWN)
    assert prefer(selection, "medical") == ["medical-1"]
    assert candidate(selection) is None


@pytest.mark.parametrize("mode", [MANUAL, CANARY])
def test_what_serves_stays_and_the_newest_is_a_candidate_without_requests(mode: str) -> None:
    selection = select(versions(6, 7, 8, 9), by(mode), SERVED)
    assert prefer(selection, "medical") == ["medical-7", "medical-6"]
    assert candidate(selection) == ("medical-9", 0)
    assert reason(selection, "medical-8") is Reason.SUPERSEDED
    assert "medical-9 is newer and is the candidate" in selection.decisions["medical-8"].message
    assert selection.decisions["medical-9"].offered


@pytest.mark.parametrize("mode", [MANUAL, CANARY])
def test_a_lost_status_promotes_nothing_because_the_config_map_knows_what_serves(mode: str) -> None:
    seen = replace(KNOWN, routes={"medical": Route((engine(7), engine(6)), engine(8), 50)}, listed=frozenset([engine(6), engine(7), engine(8)]))
    selection = select(versions(6, 7, 8), by(mode), seen)
    assert prefer(selection, "medical") == ["medical-7", "medical-6"]
    assert candidate(selection) == ("medical-8", 0)


def test_the_share_is_that_of_the_candidates_own_step() -> None:
    running = replace(SERVED, standings={"medical": Standing("medical-8", 2)})
    assert candidate(select(versions(7, 8), by(CANARY), running)) == ("medical-8", 50)
    assert candidate(select(versions(7, 8, 9), by(CANARY), running)) == ("medical-9", 0)
    assert candidate(select(versions(7, 8), by(MANUAL), replace(SERVED, standings={"medical": Standing("medical-8")}))) == ("medical-8", 0)


@pytest.mark.parametrize("pin", ["medical-7", "medical-6", "medical-8"])
def test_a_pin_ends_a_canary_and_wins_at_once(pin: str) -> None:
    running = replace(SERVED, standings={"medical": Standing("medical-8", 2)}, loaded=frozenset(map(engine, (6, 7, 8))))
    selection = select(versions(6, 7, 8), by(CANARY, pins={"medical": pin}), running)
    assert prefer(selection, "medical")[0] == pin
    assert candidate(selection) is None


def test_a_manual_pin_is_served_and_what_is_newer_is_loaded_for_the_next_switch() -> None:
    selection = select(versions(6, 7, 8, 9), by(MANUAL, pins={"medical": "medical-8"}), SERVED)
    assert prefer(selection, "medical")[0] == "medical-8"
    assert candidate(selection) == ("medical-9", 0)


@pytest.mark.parametrize("mode", [MANUAL, CANARY])
def test_a_pin_to_a_version_that_is_not_loaded_leaves_what_serves_until_it_is(mode: str) -> None:
    pinned = by(mode, pins={"medical": "medical-3"})
    seen = told(adapters_file.content(select(versions(8), by(mode), KNOWN), by(mode)), replace(KNOWN, served={"medical": "medical-8"}))
    first = select(versions(2, 3, 8), pinned, seen)
    assert prefer(first, "medical") == ["medical-3", "medical-8", "medical-2"]  # the kept one may be loaded sooner than the wanted one
    assert candidate(first) is None
    text = adapters_file.content(first, pinned)
    waiting = told(text, replace(KNOWN, served={"medical": "medical-3"}), loaded=frozenset([engine(8), engine(2)]))
    assert adapters_file.content(select(versions(2, 3, 8), pinned, waiting), pinned) == text
    there = told(text, replace(KNOWN, served={"medical": "medical-3"}), loaded=frozenset([engine(8), engine(3)]))
    after = select(versions(2, 3, 8), pinned, there)
    assert prefer(after, "medical") == ["medical-3", "medical-2"]
    assert candidate(after) == (("medical-8", 0) if mode == MANUAL else None)


def test_a_pin_to_a_version_that_is_not_loaded_keeps_serving_while_an_older_pin_has_its_own_candidate() -> None:
    pinned = by(MANUAL, pins={"medical": "medical-3"})
    before = by(MANUAL, pins={"medical": "medical-8"})
    seen = told(adapters_file.content(select(versions(8, 9), before, SERVED), before), replace(KNOWN, served={"medical": "medical-8"}))
    selection = select(versions(3, 8, 9), pinned, seen)
    assert prefer(selection, "medical") == ["medical-3", "medical-8"]
    assert candidate(selection) == ("medical-9", 0)


def test_a_pin_to_nothing_leaves_a_canary_off_and_what_serves_served() -> None:
    selection = select(versions(7, 8), by(CANARY, pins={"medical": "medical-3"}), SERVED)
    assert prefer(selection, "medical") == ["medical-7"]
    assert "medical-7 is served instead" in selection.notes["medical"]
    assert candidate(selection) is None


def test_a_failed_version_stays_loaded_without_requests_and_says_why() -> None:
    failed = replace(SERVED, standings={"medical": Standing("medical-8", failed="medical-8", failure="5 of 50 failed")})
    selection = select(versions(7, 8), by(CANARY), failed)
    assert candidate(selection) == ("medical-8", 0)
    decision = selection.decisions["medical-8"]
    assert (decision.offered, decision.reason, decision.message) == (True, Reason.CANARY_FAILED, "5 of 50 failed")


def test_only_a_newer_version_follows_a_failed_one() -> None:
    failed = replace(SERVED, standings={"medical": Standing("medical-8", failed="medical-8", failure="5 of 50 failed")})
    assert candidate(select(versions(6, 7, 8), by(CANARY), failed)) == ("medical-8", 0)
    selection = select(versions(7, 8, 9), by(CANARY), failed)
    assert candidate(selection) == ("medical-9", 0)
    assert reason(selection, "medical-8") is Reason.CANARY_FAILED
    assert candidate(select(versions(7, 8), by(MANUAL), failed)) == ("medical-8", 0)
    assert prefer(select(versions(7, 8), rules(), failed), "medical")[0] == "medical-8"  # promotion Auto: the user's word


def test_a_failed_version_does_not_serve_even_when_it_is_the_last() -> None:
    failed = Seen(fingerprints=frozenset([BASE]), standings={"medical": Standing("medical-8", failed="medical-8", failure="5 of 50 failed")})
    selection = select(versions(8), by(CANARY), failed)
    assert selection.aliases == ()
    assert reason(selection, "medical-8") is Reason.CANARY_FAILED


def test_without_the_stable_version_the_one_before_it_serves_and_not_the_candidate() -> None:
    seen = told(adapters_file.content(select(versions(6, 7, 8), by(CANARY), SERVED), by(CANARY)), SERVED)
    selection = select(versions(6, 8), by(CANARY), seen)
    assert prefer(selection, "medical") == ["medical-6"]
    assert candidate(selection) == ("medical-8", 0)


def test_a_promotion_is_one_write_and_the_old_version_stays_until_the_new_one_is_seen_loaded() -> None:
    running = replace(SERVED, standings={"medical": Standing("medical-8", 2)})
    mode = by(CANARY, keeps={"medical": 0})
    text = adapters_file.content(select(versions(7, 8), mode, running), mode)
    promoted = replace(running, served={"medical": "medical-8"}, standings={})
    after = select(versions(7, 8), mode, told(text, promoted, loaded=frozenset([engine(7)])))
    (row,) = json.loads(adapters_file.content(after, mode))["aliases"]
    assert row == {"alias": "medical", "prefer": [engine(8), engine(7)]}
    settled = select(versions(7, 8), mode, told(text, promoted))
    assert json.loads(adapters_file.content(settled, mode))["aliases"] == [{"alias": "medical", "prefer": [engine(8)]}]


def test_the_way_back_is_what_served_before_and_not_a_version_that_failed() -> None:
    seen = told(adapters_file.content(select(versions(6, 7, 8), by(CANARY), SERVED), by(CANARY)), replace(SERVED, served={"medical": "medical-9"}))
    first = select(versions(6, 7, 8, 9), by(CANARY), seen)
    assert prefer(first, "medical")[:2] == ["medical-9", "medical-7"]
    again = select(versions(6, 7, 8, 9), by(CANARY), told(adapters_file.content(first, by(CANARY)), seen))
    assert prefer(again, "medical") == ["medical-9", "medical-7"]


def test_a_candidate_that_is_none_any_more_never_gets_into_prefer() -> None:
    seen = told(adapters_file.content(select(versions(7, 8), by(CANARY), SERVED), by(CANARY)), SERVED, loaded=frozenset())
    selection = select(versions(7, 8, 9), by(CANARY), seen)
    assert prefer(selection, "medical") == ["medical-7"]
    assert candidate(selection) == ("medical-9", 0)


def test_a_candidate_gives_way_to_other_aliases_but_not_to_previous_versions() -> None:
    selection = select(versions(6, 7, 8), by(CANARY, places=2), SERVED)
    assert prefer(selection, "medical") == ["medical-7"]
    assert candidate(selection) == ("medical-8", 0)
    full = select([*versions(6, 7, 8), adapter("legal", 1, digest="f")], by(CANARY, places=2), SERVED)
    assert [plan.candidate for plan in full.aliases] == [None, None]
    assert reason(full, "medical-8") is Reason.CAPACITY_EXCEEDED


def test_the_file_of_a_canary_follows_its_schema_and_holds_no_pods_readiness() -> None:
    running = replace(SERVED, standings={"medical": Standing("medical-8", 1)})
    data = json.loads(adapters_file.content(select(versions(6, 7, 8), by(CANARY), running), by(CANARY)))
    jsonschema.validate(data, SCHEMA)
    assert data["aliases"] == [{"alias": "medical", "prefer": [engine(7), engine(6)], "candidate": engine(8), "weight": 10}]
    assert {item["name"]: item["required"] for item in data["adapters"]} == {"medical-7": True, "medical-6": False, "medical-8": False}


def test_a_new_version_with_the_files_of_the_stable_one_is_no_canary() -> None:
    twin = adapter("medical", 8, digest="7")
    assert twin.engine_name == engine(7)
    seen = told(adapters_file.content(select(versions(7), by(CANARY), SERVED), by(CANARY)), SERVED)
    selection = select([*versions(7), twin], by(CANARY), seen)
    assert prefer(selection, "medical") == ["medical-8"]
    assert candidate(selection) is None


@settings(max_examples=150, deadline=None)
@given(
    st.sets(st.integers(1, 9), min_size=1),
    st.sampled_from([MANUAL, CANARY]),
    st.one_of(st.just(""), st.sampled_from([f"medical-{number}" for number in range(1, 10)])),
    st.builds(Standing, st.sampled_from(["", "medical-8"]), st.integers(0, 3), st.none(), st.sampled_from(["", "medical-8", "medical-5"])),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_a_candidate_is_newer_and_apart_and_a_further_pass_changes_nothing(
    found: set[int], mode: str, served: str, standing: Standing, keep: int, places: int
) -> None:
    chosen = by(mode, keeps={"medical": keep}, places=places)
    seen = replace(KNOWN, served={"medical": served} if served else {}, standings={"medical": standing})
    selection = select(versions(*found), chosen, seen)
    for plan in selection.aliases:
        if served and int(served[-1]) in found:
            assert plan.wanted.name == served
        if plan.candidate:
            assert plan.candidate.version > plan.wanted.version
            assert plan.candidate not in plan.prefer
            assert plan.weight == 0 or plan.candidate.name == standing.candidate != standing.failed
        assert len(plan.prefer) <= keep + 1
        assert len(plan.prefer) + (plan.candidate is not None) <= places
    text = adapters_file.content(selection, chosen)
    again = told(text, replace(seen, served={plan.alias: plan.wanted.name for plan in selection.aliases} or seen.served))
    assert adapters_file.content(select(versions(*found), chosen, again), chosen) == text
