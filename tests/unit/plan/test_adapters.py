from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from graftwork.facts.adapters import Adapter, Selection
from graftwork.plan import adapters_file, bases, capacity
from graftwork.plan.adapters import Rules, Seen, select
from graftwork.reasons import Reason
from hypothesis import given, settings
from hypothesis import strategies as st

BASE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
KNOWN = Seen(fingerprints=frozenset([BASE]))
RULES = Rules("ml", "support", "base", max_loaded=8, max_rank=16)
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "design" / "schemas" / "adapters.schema.json").read_text())


def adapter(alias: str, version: int, *, digest: str = "", lineage: str = "tickets", created: str = "", **fields: object) -> Adapter:
    letter = digest or "0123456789abcdef"[version % 16]
    values: dict[str, object] = {
        "name": f"{alias}-{version}",
        "uid": f"{alias}{version}{letter}",
        "created": created or f"2026-11-21T{version:02}:00:00Z",
        "deleting": False,
        "labels": {},
        "alias": alias,
        "version": version,
        "lineage": lineage,
        "source": f"store://ml/{alias}/{letter * 12}",
        "digest": f"sha256:{letter * 64}",
        "fingerprint": BASE,
        "rank": 8,
    }
    return Adapter(**{**values, **fields})  # type: ignore[arg-type]


def prefer(selection: Selection, alias: str) -> list[str]:
    return next(([item.name for item in plan.prefer] for plan in selection.aliases if plan.alias == alias), [])


def reason(selection: Selection, name: str) -> Reason | None:
    return selection.decisions[name].reason


def rules(**fields: object) -> Rules:
    return Rules(**{**RULES.__dict__, **fields})  # type: ignore[arg-type]


def test_the_newest_version_is_wanted_and_one_before_it_is_kept() -> None:
    selection = select([adapter("medical", 2), adapter("medical", 1), adapter("medical", 3)], RULES, KNOWN)
    assert prefer(selection, "medical") == ["medical-3", "medical-2"]
    assert reason(selection, "medical-1") is Reason.SUPERSEDED
    assert "medical-3" in selection.decisions["medical-1"].message


def test_a_source_in_another_namespace_s_part_of_the_store_is_refused_unless_it_serves_already() -> None:
    foreign = adapter("medical", 1, source="store://other/medical/" + "1" * 12)
    selection = select([foreign], RULES, KNOWN)
    assert reason(selection, "medical-1") is Reason.FOREIGN_SOURCE
    for words in (foreign.source, "namespace 'other'", "publish them in 'ml'"):
        assert words in selection.decisions["medical-1"].message
    assert prefer(select([foreign], RULES, replace(KNOWN, listed=frozenset([foreign.engine_name]))), "medical") == ["medical-1"]


def test_versions_are_ordered_by_number_and_not_by_age() -> None:
    restored = [adapter("medical", 1, created="2026-11-22T00:00:00Z"), adapter("medical", 2, created="2026-11-21T00:00:00Z")]
    assert prefer(select(restored, RULES, KNOWN), "medical") == ["medical-2", "medical-1"]


def test_a_pin_goes_back_and_the_newer_version_is_superseded() -> None:
    pinned = rules(pins={"medical": "medical-2"})
    selection = select([adapter("medical", n) for n in (1, 2, 3)], pinned, KNOWN)
    assert prefer(selection, "medical") == ["medical-2", "medical-1"]
    assert "pinned to medical-2" in selection.decisions["medical-3"].message


def test_a_rollback_keeps_the_newer_version_until_the_pinned_one_is_loaded() -> None:
    pinned, three = rules(pins={"medical": "medical-2"}, keeps={"medical": 0}), adapter("medical", 3)
    listed = Seen(fingerprints=frozenset([BASE]), listed=frozenset([three.engine_name]))
    assert prefer(select([adapter("medical", 2), three], pinned, listed), "medical") == ["medical-2", "medical-3"]
    loaded = Seen(fingerprints=frozenset([BASE]), listed=listed.listed, loaded=frozenset([adapter("medical", 2).engine_name]))
    assert prefer(select([adapter("medical", 2), three], pinned, loaded), "medical") == ["medical-2"]


def test_a_pin_to_nothing_leaves_what_is_served_and_says_so() -> None:
    pinned = rules(pins={"medical": "medical-9"})
    seen = Seen(fingerprints=frozenset([BASE]), served={"medical": "medical-1"})
    selection = select([adapter("medical", 1), adapter("medical", 2)], pinned, seen)
    assert prefer(selection, "medical")[0] == "medical-1"
    assert "medical-9" in selection.notes["medical"]


def test_an_alias_belongs_to_the_lineage_that_had_it_first() -> None:
    selection = select([adapter("medical", 1), adapter("medical", 9, lineage="intruder")], RULES, KNOWN)
    assert prefer(selection, "medical") == ["medical-1"]
    assert reason(selection, "medical-9") is Reason.ALIAS_TAKEN
    assert "'tickets'" in selection.decisions["medical-9"].message


def test_an_alias_stays_with_the_lineage_that_is_served_when_its_oldest_adapter_is_deleted() -> None:
    rest = [adapter("medical", 9, lineage="intruder", created="2026-11-21T01:00:00Z"), adapter("medical", 2, created="2026-11-21T02:00:00Z")]
    served = Seen(fingerprints=frozenset([BASE]), served={"medical": "medical-2"})
    assert prefer(select(rest, RULES, served), "medical") == ["medical-2"]


def test_an_alias_equal_to_the_served_name_is_taken() -> None:
    assert reason(select([adapter("base", 1)], RULES, KNOWN), "base-1") is Reason.ALIAS_TAKEN


def test_the_younger_of_two_equal_versions_is_refused() -> None:
    twin = adapter("medical", 1, digest="f", created="2026-11-21T09:00:00Z", name="copy")
    selection = select([twin, adapter("medical", 1)], RULES, KNOWN)
    assert reason(selection, "copy") is Reason.VERSION_TAKEN
    assert "medical-1" in selection.decisions["copy"].message


def test_another_base_is_refused_with_both_fingerprints() -> None:
    selection = select([adapter("medical", 1, fingerprint=OTHER)], RULES, KNOWN)
    assert reason(selection, "medical-1") is Reason.BASE_MISMATCH
    assert BASE in selection.decisions["medical-1"].message
    assert OTHER in selection.decisions["medical-1"].message


def test_nothing_is_offered_before_the_base_is_known_but_what_was_listed_stays() -> None:
    one = adapter("medical", 1)
    assert reason(select([one], RULES, Seen()), "medical-1") is Reason.LOADING
    assert prefer(select([one], RULES, Seen(listed=frozenset([one.engine_name]))), "medical") == ["medical-1"]


@pytest.mark.parametrize(("rank", "remedy"), [(17, "maxRank to 32"), (512, "maxRank to 512")])
def test_a_rank_above_the_limit_is_refused_with_the_numbers_and_the_remedy(rank: int, remedy: str) -> None:
    selection = select([adapter("medical", 1, rank=rank)], RULES, KNOWN)
    message = selection.decisions["medical-1"].message
    assert reason(selection, "medical-1") is Reason.RANK_TOO_HIGH
    assert f"spec.rank is {rank}" in message
    assert "is 16" in message
    assert remedy in message


def test_an_adapter_of_a_declared_base_is_taken_and_marked() -> None:
    declared = rules(compatible_bases=bases.normals(["hf://Qwen/Qwen3-8B"]))
    foreign = adapter("medical", 1, fingerprint=OTHER, base_source="Qwen/Qwen3-8B")
    selection = select([foreign], declared, KNOWN)
    (entry,) = json.loads(adapters_file.content(selection, declared))["adapters"]
    assert (entry["compatible"], entry["baseFingerprint"]) == (True, OTHER)
    refused = select([foreign], RULES, KNOWN).decisions["medical-1"]
    assert refused.reason is Reason.BASE_MISMATCH
    assert "add Qwen/Qwen3-8B to model.compatibleBases" in refused.message
    assert reason(select([adapter("medical", 1, fingerprint=OTHER)], declared, KNOWN), "medical-1") is Reason.BASE_MISMATCH


def test_an_adapter_that_knows_no_fingerprint_is_left_to_the_agents_check_of_shapes() -> None:
    selection = select([adapter("medical", 1, fingerprint="")], RULES, KNOWN)
    (entry,) = json.loads(adapters_file.content(selection, RULES))["adapters"]
    assert entry["baseFingerprint"] == ""
    assert "compatible" not in entry


def test_what_is_not_in_the_store_yet_is_nobodys_business() -> None:
    selection = select([adapter("medical", 1), replace(adapter("medical", 2), digest="", source="", rank=0)], RULES, KNOWN)
    assert prefer(selection, "medical") == ["medical-1"]
    assert set(selection.decisions) == {"medical-1"}


def test_a_rank_that_the_template_will_follow_waits_for_the_restart() -> None:
    selection = select([adapter("medical", 1, rank=33)], rules(rank_auto=True), KNOWN)
    assert reason(selection, "medical-1") is Reason.RESTART_REQUIRED
    assert "its rank is 33" in selection.decisions["medical-1"].message
    assert "engines that take 64" in selection.decisions["medical-1"].message
    assert reason(select([adapter("medical", 1, rank=513)], rules(rank_auto=True), KNOWN), "medical-1") is Reason.RANK_TOO_HIGH


def test_a_rank_is_served_only_when_every_pod_takes_it_and_what_was_listed_stays() -> None:
    wide = adapter("medical", 2, rank=64)
    mixed = replace(KNOWN, max_rank=16)
    assert prefer(select([adapter("medical", 1), wide], rules(max_rank=64), mixed), "medical") == ["medical-1"]
    assert prefer(select([adapter("medical", 1), wide], rules(max_rank=64), replace(KNOWN, max_rank=64)), "medical") == ["medical-2", "medical-1"]
    listed = replace(mixed, listed=frozenset([wide.engine_name]))
    assert prefer(select([adapter("medical", 1), wide], rules(max_rank=64), listed), "medical")[0] == "medical-2"


@pytest.mark.parametrize(
    ("ranks", "current", "wanted"), [([], None, 16), ([4], None, 16), ([17], None, 32), ([8], 64, 64), ([300], 16, 320), ([513], None, 16)]
)
def test_auto_is_the_lowest_rank_that_vllm_takes_and_never_shrinks(ranks: list[int], current: int | None, wanted: int) -> None:
    assert capacity.fitting_rank(ranks, current) == wanted


def test_the_cache_in_host_memory_has_room_for_what_is_listed_and_what_replaces_it() -> None:
    for slots in (1, 8, 128, 200, 256):
        assert capacity.kept_in_host_memory(slots) == 2 * capacity.places(slots)
        assert capacity.places(slots) >= slots


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hf://Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("hf://Qwen/Qwen3-8B@main", "https://huggingface.co/Qwen/Qwen3-8B/"),
        ("s3://models/tiny/", "s3://models/tiny"),
    ],
)
def test_sources_of_a_base_are_compared_by_what_they_name(one: str, other: str) -> None:
    assert bases.normal(one) == bases.normal(other)


def test_replicas_are_told_and_never_none() -> None:
    selection = select([], RULES, KNOWN)
    assert [json.loads(adapters_file.content(selection, RULES, ready))["replicas"] for ready in (0, 1, 3)] == [1, 1, 3]


def test_previous_versions_give_way_before_an_alias_does() -> None:
    selection = select([adapter(alias, version) for alias in ("a", "b") for version in (1, 2)], rules(places=3), KNOWN)
    assert [prefer(selection, "a"), prefer(selection, "b")] == [["a-2", "a-1"], ["b-2"]]


def test_a_new_alias_never_takes_the_place_of_one_that_is_served() -> None:
    old, new = adapter("old", 5), adapter("new", 1)
    selection = select([old, new], rules(places=1), Seen(fingerprints=frozenset([BASE]), listed=frozenset([old.engine_name])))
    assert prefer(selection, "old") == ["old-5"]
    assert reason(selection, "new-1") is Reason.CAPACITY_EXCEEDED
    assert "LLMDeployment ml/support serves at most 1 adapters" in selection.decisions["new-1"].message


def test_a_broken_version_never_takes_away_what_serves() -> None:
    versions = [adapter("medical", n) for n in (7, 8, 9, 10)]
    seven, nine, ten = versions[0], versions[2], versions[3]
    seen = Seen(fingerprints=frozenset([BASE]), listed=frozenset([seven.engine_name, versions[1].engine_name]), loaded=frozenset([seven.engine_name]))
    selection = select(versions, RULES, seen)
    assert prefer(selection, "medical") == ["medical-10", "medical-9", "medical-8", "medical-7"]
    loaded = frozenset([seven.engine_name, nine.engine_name, ten.engine_name])
    listed = frozenset(item.engine_name for item in selection.offered)
    later = select(versions, RULES, Seen(fingerprints=frozenset([BASE]), listed=listed, loaded=loaded))
    assert prefer(later, "medical") == ["medical-10", "medical-9"]


def test_a_version_with_the_files_of_another_is_served_once() -> None:
    selection = select([adapter("medical", 1, digest="a"), adapter("medical", 2, digest="a")], RULES, KNOWN)
    assert prefer(selection, "medical") == ["medical-2"]
    assert "same files" in selection.decisions["medical-1"].message


def test_deleted_and_unselected_adapters_do_not_count() -> None:
    chosen = rules(match_labels={"team": "support"})
    group = [
        adapter("medical", 1, labels={"team": "support"}),
        adapter("medical", 2),
        adapter("medical", 3, labels={"team": "support"}, deleting=True),
    ]
    selection = select(group, chosen, KNOWN)
    assert prefer(selection, "medical") == ["medical-1"]
    assert set(selection.decisions) == {"medical-1"}


adapters_strategy = st.lists(
    st.builds(
        adapter,
        st.sampled_from(["medical", "legal", "base", "sales"]),
        st.integers(1, 9),
        digest=st.sampled_from("abcdef"),
        lineage=st.sampled_from(["tickets", "calls"]),
        created=st.sampled_from([f"2026-11-21T0{hour}:00:00Z" for hour in range(4)]),
        fingerprint=st.sampled_from([BASE, BASE, OTHER]),
        rank=st.sampled_from([8, 16, 32]),
        deleting=st.booleans(),
    ),
    max_size=14,
    unique_by=lambda item: item.name,
).map(lambda found: [Adapter(**{**item.__dict__, "uid": str(index)}) for index, item in enumerate(found)])
rules_strategy = st.builds(
    lambda places, keep, pin: rules(places=places, default_keep=keep, pins=pin),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([{}, {"medical": "medical-2"}, {"legal": "nothing"}]),
)


@settings(max_examples=150, deadline=None)
@given(adapters_strategy, rules_strategy, st.randoms(use_true_random=False), st.booleans())
def test_every_selection_is_a_good_one(found: list[Adapter], chosen: Rules, random: object, known: bool) -> None:
    seen = KNOWN if known else Seen()
    selection = select(found, chosen, seen)
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert adapters_file.content(select(shuffled, chosen, seen), chosen) == adapters_file.content(selection, chosen)

    assert set(selection.decisions) == {item.name for item in found if not item.deleting}
    offered = selection.offered
    assert {name for name, item in selection.decisions.items() if item.offered} == {item.name for item in offered}
    assert len({item.engine_name for item in offered}) == len(offered) <= chosen.places
    assert all(item.fingerprint == BASE and item.rank <= chosen.max_rank and not item.deleting for item in offered)
    for decision in selection.decisions.values():
        assert decision.offered or (decision.reason and decision.message)
    for plan in selection.aliases:
        assert plan.alias != chosen.served_name
        assert len({item.lineage for item in plan.prefer}) == 1
        assert len(plan.prefer) <= 1 + chosen.keep(plan.alias)
        versions = [item.version for item in plan.prefer]
        assert versions == sorted(set(versions), reverse=True)

    text = adapters_file.content(selection, chosen)
    jsonschema.validate(json.loads(text), SCHEMA)
    listed = adapters_file.listed({"data": {"adapters.json": text}})
    assert listed == {item.engine_name for item in offered}
    told = Seen(fingerprints=seen.fingerprints, listed=listed, loaded=listed, served={plan.alias: plan.wanted.name for plan in selection.aliases})
    assert adapters_file.content(select(found, chosen, told), chosen) == text


@settings(max_examples=100, deadline=None)
@given(adapters_strategy, rules_strategy, st.sets(st.integers(0, 13)))
def test_what_is_routed_stays_until_something_else_of_its_alias_is_loaded(found: list[Adapter], chosen: Rules, old: set[int]) -> None:
    """Of each alias that was listed and loaded, and may still be served, something that is loaded stays offered."""
    before = [item for index, item in enumerate(found) if index in old]
    first = select(before, chosen, KNOWN)
    loaded = frozenset(item.engine_name for item in first.offered)
    served = {plan.alias: plan.wanted.name for plan in first.aliases}
    after = select(found, chosen, Seen(fingerprints=frozenset([BASE]), listed=loaded, loaded=loaded, served=served))
    for plan in first.aliases:
        now = [item for item in after.aliases if item.alias == plan.alias]
        assert now
        assert any(item.engine_name in loaded for item in now[0].prefer)


def test_a_spoiled_config_map_lists_nothing() -> None:
    for text in ("", "{", "[]", '{"adapters": [1]}', '{"adapters": 3}'):
        assert adapters_file.listed({"data": {"adapters.json": text}}) == frozenset()
    assert adapters_file.listed(None) == frozenset()


def test_where_vllm_has_no_lora_for_the_architecture_an_adapter_of_this_base_is_refused() -> None:
    without = rules(without_lora="FalconMambaForCausalLM")
    selection = select([adapter("medical", 1), adapter("legal", 1, fingerprint=OTHER)], without, KNOWN)
    assert (reason(selection, "medical-1"), reason(selection, "legal-1")) == (Reason.LORA_NOT_SUPPORTED, Reason.BASE_MISMATCH)
    assert "architecture FalconMambaForCausalLM" in selection.decisions["medical-1"].message
    assert selection.aliases == ()


def test_what_pods_of_before_serve_stays_until_they_are_replaced() -> None:
    served = adapter("medical", 1)
    without, told = rules(without_lora="X"), replace(KNOWN, listed=frozenset([served.engine_name]))
    assert prefer(select([served], without, replace(told, max_rank=16)), "medical") == ["medical-1"]
    assert reason(select([served], without, told), "medical-1") is Reason.LORA_NOT_SUPPORTED
