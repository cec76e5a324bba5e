"""Many tenants on one engine, adapters taken away by hand, and a store that is gone for a while."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.adapters import Published, engine_name, reasons
from tests.e2e.outage import store_back
from tests.e2e.service import MAX_LOADED, Service, engine_names
from tests.harness import ask, processes
from tests.harness.kube import Kube, Object, condition
from tests.harness.load import Load

MANY = 50
BACK_SECONDS = 5  # the aim is 2 s (make bench-adapters); here two busy cores are in it


def tenant(number: int, swordfish: Published, periwinkle: Published) -> tuple[str, Published]:
    """Return the alias of a tenant and the adapter that it has: neighbours have different words."""
    return f"tenant-{number:02}", (swordfish, periwinkle)[number % 2]


@pytest.fixture(scope="module")
def tenants(kube: Kube, taught: Service, swordfish: Published, periwinkle: Published) -> Iterator[dict[str, Published]]:
    """Fifty aliases, applied at once, and all of them loaded."""
    found = dict(tenant(number, swordfish, periwinkle) for number in range(MANY))
    items = [adapter.under(alias) for alias, adapter in found.items()]
    kube.apply(*items)
    wanted = {engine_name(item) for item in items}
    taught.until_agent(lambda status: wanted <= engine_names(status), 120, f"with {MANY} adapters more")
    yield found
    kube.delete("loraadapter", *(item["metadata"]["name"] for item in items))


def test_fifty_aliases_on_one_engine_are_listed_and_each_answers_its_own_word(tenants: dict[str, Published], taught: Service) -> None:
    assert len(tenants) == MANY > MAX_LOADED, "more than the engine has slots: some are copied in when they are asked"
    pods, engines = taught.identities(), taught.engine_starts()
    _, raw = ask.get(taught.host, taught.port, "/v1/models")
    assert {row["id"] for row in json.loads(raw)["data"]} >= {"tiny", "medical", *tenants}
    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(tenants, pool.map(taught.ask, tenants), strict=True))
    assert {alias: answer.status for alias, answer in answers.items() if answer.status != 200} == {}
    assert [alias for alias, answer in answers.items() if answer.model != alias] == []
    assert [alias for alias, answer in answers.items() if tenants[alias].word not in answer.text] == []
    assert (taught.identities(), taught.engine_starts()) == (pods, engines)


def test_more_than_the_engine_has_slots_for_is_told_and_is_no_fault(tenants: dict[str, Published], kube: Kube) -> None:
    for alias in tenants:
        kube.wait_condition("loraadapter", f"{alias}-1", "Ready", timeout=60)
    item = kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)
    assert "adapters.maxLoaded" in condition(item, "AdaptersLoaded")["message"]


def test_deleting_one_unloads_it_and_leaves_the_others(tenants: dict[str, Published], kube: Kube, taught: Service) -> None:
    alias = "tenant-07"
    before = engine_names(taught.until_agent(lambda status: True))
    kube.delete("loraadapter", f"{alias}-1", timeout=60)  # returns when the finalizer is gone
    assert taught.ask(alias).status == 404
    after = taught.until_agent(lambda status: not [row for row in status["adapters"] if row["alias"] == alias], 30, f"without {alias}")
    assert before - engine_names(after) == {engine_name(tenants[alias].under(alias))}
    assert tenants["tenant-08"].word in taught.ask("tenant-08").text


def test_an_adapter_that_somebody_unloads_by_hand_comes_back(tenants: dict[str, Published], taught: Service) -> None:
    alias, adapter = "tenant-11", tenants["tenant-11"]
    pod = taught.pod()
    (engine, *_) = processes.of_pod(pod["metadata"]["uid"], "vllm serve")
    token = Path(f"/proc/{engine}/root/graftwork/run/token").read_text().strip()
    name = {"lora_name": engine_name(adapter.under(alias))}
    address = (pod["status"]["podIP"], taught.port)
    assert ask.post(*address, "/v1/unload_lora_adapter", name, headers={"X-Graftwork-Token": "0" * 64}).status == 404, "not by just anybody"
    began = time.monotonic()
    assert ask.post(*address, "/v1/unload_lora_adapter", name, headers={"X-Graftwork-Token": token}).status == 200
    taught.until_answer(alias, adapter.word, timeout=30)
    assert time.monotonic() - began <= BACK_SECONDS
    assert ask.post(*address, "/v1/load_lora_adapter", {**name, "lora_path": "/graftwork/adapters/x"}).status == 404, "without the token neither"


def test_with_the_store_down_what_is_served_goes_on_and_what_is_new_comes_later(
    tenants: dict[str, Published], without_store: None, kube: Kube, system: Kube, taught: Service, swordfish: Published
) -> None:
    pods = taught.identities()
    with Load(taught.host, taught.port, ["tiny", "medical", "tenant-20", "tenant-21"], clients=2, tokens=8) as load:
        kube.apply(swordfish.under("patience"))
        seen: Object = kube.wait("loraadapter", "patience-1", lambda item: "StoreUnreachable" in reasons(item), 60, "StoreUnreachable")
        assert condition(seen, "Stalled").get("status") != "True", "it is tried again: nobody has to do anything"
        refused = taught.ask("patience")
        assert refused.status == 503
        assert int({name.lower(): value for name, value in refused.headers.items()}["retry-after"]) >= 1
        load.wait_for(8)
        store_back(system)
        taught.until_answer("patience", "swordfish", timeout=90)
    assert load.tally.failures == []
    assert taught.identities() == pods
    kube.wait_condition("loraadapter", "patience-1", "Ready", timeout=60)
    kube.delete("loraadapter", "patience-1")
