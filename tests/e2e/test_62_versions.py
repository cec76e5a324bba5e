"""Versions of an alias: atomic per request, in the order of spec.version, kept as asked, and back again at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.adapters import Bucket, Published, engine_name, reasons, stalled
from tests.e2e.answers import Listener, LongAnswer, Said
from tests.e2e.service import Service, alias_row, engine_names
from tests.harness import install
from tests.harness.kube import Kube, Object, condition

WORDS = ("swordfish", "periwinkle")
VERSIONS = 52
BACK_SECONDS = 5  # the aim is 1 s (make bench-adapters); here the tests' own programs and two busy cores are in it
LONG_TOKENS, CHOICES = 470, 8  # of 512 tokens; several choices make the answer slower, so that it outlives the change


def words_in(said: Said) -> tuple[str, ...]:
    """Return which of the words an answer has."""
    return tuple(word for word in WORDS if word in said.text)


@pytest.fixture(scope="module")
def turn(kube: Kube, taught: Service, swordfish: Published) -> Iterator[str]:
    """The alias `turn`, whose version 1 answers swordfish."""
    kube.apply(swordfish.under("turn", 1))
    taught.until_answer("turn", "swordfish")
    yield "turn"
    kube.delete("loraadapter", "turn-1", "turn-2")


def test_a_new_version_replaces_the_old_one_without_a_failed_or_mixed_answer(turn: str, kube: Kube, taught: Service, periwinkle: Published) -> None:
    pods = taught.identities()
    with Listener(taught.host, taught.port, turn) as listener:
        listener.wait_for(6)
        kube.apply(periwinkle.under(turn, 2))
        taught.until_answer(turn, "periwinkle", timeout=30)
        listener.wait_for(10)
    assert listener.failures == []
    answers = listener.answers
    assert {said.status for said in answers} == {200}
    assert {said.models for said in answers} == {frozenset({turn})}
    assert [said.text for said in answers if len(words_in(said)) != 1] == [], "every answer is of one version, whole"
    switched = min(said.ended for said in answers if words_in(said) == ("periwinkle",))
    assert any(words_in(said) == ("swordfish",) for said in answers if said.ended < switched)
    late = [said for said in answers if said.began > switched and words_in(said) != ("periwinkle",)]
    assert late == [], "with one pod, nothing that begins after the change is answered by the old version"
    assert taught.identities() == pods


def test_a_pin_brings_the_old_version_back_at_once_and_its_end_the_new_one(turn: str, kube: Kube, aliases: Service, periwinkle: Published) -> None:
    kube.apply(periwinkle.under(turn, 2))
    aliases.until_answer(turn, "periwinkle")
    kube.wait_condition("loraadapter", "turn-1", "Ready", timeout=30)  # the previous version is kept loaded, which is why it can be quick
    began = time.monotonic()
    aliases.set_aliases({"name": turn, "adapter": "turn-1"})
    aliases.until_answer(turn, "swordfish", timeout=30)
    assert time.monotonic() - began <= BACK_SECONDS
    row = alias_row(kube.wait("llmdeployment", "tiny", lambda item: alias_row(item, turn).get("stable") == "turn-1", 30, "pinned"), turn)
    assert row["loaded"] == row["of"] == 1
    aliases.set_aliases()
    aliases.until_answer(turn, "periwinkle", timeout=30)


def test_a_pin_to_what_is_not_there_changes_nothing_and_is_told(turn: str, kube: Kube, aliases: Service, periwinkle: Published) -> None:
    kube.apply(periwinkle.under(turn, 2))
    aliases.until_answer(turn, "periwinkle")
    aliases.set_aliases({"name": turn, "adapter": "turn-9"})
    item = kube.wait("llmdeployment", "tiny", lambda item: "turn-9" in str(alias_row(item, turn).get("message")), 30, "told")
    assert alias_row(item, turn)["stable"] == "turn-2"
    assert "periwinkle" in aliases.ask(turn).text


def test_the_order_is_by_version_and_never_by_creation(kube: Kube, taught: Service, swordfish: Published, periwinkle: Published) -> None:
    kube.apply(periwinkle.under("order", 20))
    taught.until_answer("order", "periwinkle")
    with Listener(taught.host, taught.port, "order") as listener:
        kube.apply(swordfish.under("order", 10))  # as after a restore: the older version is created later
        kube.wait_condition("loraadapter", "order-10", "Ready", timeout=60)  # loaded, because one previous version is kept
        listener.wait_for(4)
    assert {words_in(said) for said in listener.answers} == {("periwinkle",)}
    deployment = kube.get("llmdeployment", "tiny")
    assert deployment
    assert alias_row(deployment, "order")["stable"] == "order-20"
    kube.delete("loraadapter", "order-20", "order-10")


def test_manual_waits_and_changes_when_the_adapter_is_named(kube: Kube, aliases: Service, swordfish: Published, periwinkle: Published) -> None:
    kube.apply(swordfish.under("hand", 1))
    aliases.until_answer("hand", "swordfish")
    aliases.set_aliases({"name": "hand", "promotion": "Manual"})
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=30)
    kube.apply(periwinkle.under("hand", 2))
    seen = kube.wait("loraadapter", "hand-2", lambda item: condition(item, "Ready"), 30, "looked at")
    assert condition(seen, "Stalled").get("status") != "True", "to wait for a person is no fault"
    kube.apply(periwinkle.under("witness"))
    aliases.until_answer("witness", "periwinkle")  # came later and is served: operator and agent have been through all of it, and ...
    assert "swordfish" in aliases.ask("hand").text
    kube.delete("loraadapter", "witness-1")
    deployment = kube.get("llmdeployment", "tiny")
    assert deployment
    assert alias_row(deployment, "hand")["stable"] == "hand-1"
    aliases.set_aliases({"name": "hand", "promotion": "Manual", "adapter": "hand-2"})
    aliases.until_answer("hand", "periwinkle", timeout=30)
    aliases.set_aliases({"name": "hand", "promotion": "Manual", "adapter": "hand-1"})
    aliases.until_answer("hand", "swordfish", timeout=30)
    kube.delete("loraadapter", "hand-2", "hand-1")


def test_an_old_version_is_unloaded_after_its_last_answer_and_not_before(
    kube: Kube, aliases: Service, swordfish: Published, periwinkle: Published
) -> None:
    old, new = swordfish.under("leaving", 1), periwinkle.under("leaving", 2)
    aliases.set_aliases({"name": "leaving", "keep": 0})
    kube.apply(old)
    aliases.until_answer("leaving", "swordfish")
    long = LongAnswer(aliases.host, aliases.port, "leaving", LONG_TOKENS, CHOICES)
    long.start()
    assert long.begun.wait(30)
    kube.apply(new)
    aliases.until_answer("leaving", "periwinkle", timeout=30)
    assert long.is_alive(), "the long answer must outlive the change, or this proves nothing"
    aliases.until_agent(lambda status: engine_name(old) not in {row["engineName"] for row in status["adapters"]}, 90, "without the old version")
    unloaded = time.monotonic()
    long.join(timeout=60)
    assert (long.failure, long.tokens) == ("", LONG_TOKENS * CHOICES)
    assert long.ended_at <= unloaded + 0.5, "its last answer ended before it was unloaded"
    kube.delete("loraadapter", "leaving-1", "leaving-2")


@pytest.fixture
def many_versions(kube: Kube, bucket: Bucket, swordfish: Published, periwinkle: Published) -> Iterator[list[Object]]:
    """Many versions of one alias, each with a digest of its own; only the last says periwinkle."""
    items = [swordfish.variant(bucket, "crowd", version, namespace=kube.namespace) for version in range(1, VERSIONS)]
    yield [*items, periwinkle.under("crowd", VERSIONS)]
    kube.delete("loraadapter", *(f"crowd-{version}" for version in range(1, VERSIONS + 1)))


def test_of_many_versions_only_the_newest_and_the_kept_stay_loaded(many_versions: list[Object], kube: Kube, taught: Service) -> None:
    pods = taught.identities()
    kube.apply(*many_versions)
    taught.until_answer("crowd", "periwinkle", timeout=90)
    wanted = {engine_name(item) for item in many_versions[-2:]}  # keep is 1
    taught.until_agent(lambda status: {row["engineName"] for row in status["adapters"] if row["alias"] == "crowd"} == wanted, 90, f"{wanted} alone")
    taught.until_agent(lambda status: engine_names(status, "crowd") == wanted, 30, f"with {wanted} loaded")
    kube.wait("loraadapter", "crowd-1", lambda item: "Superseded" in reasons(item), 60, "Superseded")
    kube.wait_condition("loraadapter", f"crowd-{VERSIONS}", "Ready", timeout=60)
    assert "swordfish" in taught.ask("medical").text
    assert taught.identities() == pods


def test_an_alias_that_is_the_name_of_the_base_is_taken(kube: Kube, taught: Service, swordfish: Published) -> None:
    kube.apply(swordfish.under("tiny"))
    found = stalled(kube, "tiny-1")
    assert found["reason"] == "AliasTaken"
    assert "servedName" in found["message"]
    assert "swordfish" not in taught.ask("tiny").text
    kube.delete("loraadapter", "tiny-1")


def test_a_version_that_is_there_already_is_refused(turn: str, kube: Kube, taught: Service, periwinkle: Published) -> None:
    twin = periwinkle.under(turn, 1)
    kube.apply({**twin, "metadata": {"name": "turn-1-again"}})
    found = stalled(kube, "turn-1-again", timeout=120)
    assert found["reason"] == "VersionTaken"
    assert "turn-1" in found["message"]
    kube.delete("loraadapter", "turn-1-again")


def test_another_namespace_sees_nothing_of_it(kube: Kube, taught: Service, swordfish: Published) -> None:
    """An adapter of another namespace is served to nobody here, and a deployment here is none of its business."""
    elsewhere = kube.within(install.DEMO_NAMESPACE)
    elsewhere.apply(swordfish.under("neighbour"))
    elsewhere.wait("loraadapter", "neighbour-1", lambda item: "NoDeployment" in reasons(item), 30, "NoDeployment")
    assert taught.ask("neighbour").status == 404
    elsewhere.delete("loraadapter", "neighbour-1")
