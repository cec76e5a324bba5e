"""Which versions starting pods wait for: what is known to load, so that one bad adapter delays nobody."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from graftwork.plan import adapters_file
from graftwork.plan.adapters import Seen, select
from graftwork.plan.readiness import Proof, required

from tests.unit.plan.test_adapters import KNOWN, RULES, adapter

SERVING = Proof(heard=True, served=True)
NEW, OLD = "medical--8", "medical--7"


@pytest.mark.parametrize(
    ("proof", "awaited"),
    [
        (Proof(), NEW),  # the first start: a deployment begins with its adapters
        (replace(SERVING, loaded=frozenset([NEW, OLD])), NEW),
        (replace(SERVING, loaded=frozenset([NEW]), doubtful=frozenset([NEW]), told={NEW: False}), NEW),  # one pod has it: it can be loaded
        (SERVING, NEW),  # just published
        (replace(SERVING, told={NEW: True, OLD: False}, loaded=frozenset([OLD])), NEW),
        (replace(SERVING, doubtful=frozenset([NEW]), loaded=frozenset([OLD]), told={NEW: True}), OLD),
        (replace(SERVING, doubtful=frozenset([NEW]), told={NEW: True}), ""),
        (replace(SERVING, loaded=frozenset([OLD]), told={NEW: False, OLD: True}), OLD),  # it stays so until it is seen loaded
        (Proof(served=True, told={NEW: True, OLD: False}), NEW),  # nobody can be asked: as pods were told
        (Proof(served=True, told={NEW: False, OLD: True}), OLD),
        (Proof(served=True, told={OLD: True}), OLD),  # published while no pod is ready: it proved nothing yet
        (Proof(served=True), ""),
    ],
)
def test_a_pod_waits_for_what_is_known_to_load(proof: Proof, awaited: str) -> None:
    assert required([NEW, OLD], proof) == awaited


def flags(seen: Seen, *numbers: int) -> dict[str, bool]:
    text = adapters_file.content(select([adapter("medical", number) for number in numbers], RULES, seen), RULES)
    return {item["name"]: item["required"] for item in json.loads(text)["adapters"]}


def test_the_file_says_so_and_what_it_said_is_read_back() -> None:
    eight, seven = adapter("medical", 8).engine_name, adapter("medical", 7).engine_name
    broken = replace(KNOWN, proof=replace(SERVING, doubtful=frozenset([eight]), loaded=frozenset([seven])))
    assert flags(broken, 7, 8) == {"medical-8": False, "medical-7": True}
    text = adapters_file.content(select([adapter("medical", 7), adapter("medical", 8)], RULES, broken), RULES)
    assert adapters_file.required({"data": {"adapters.json": text}}) == {eight: False, seven: True}
    assert adapters_file.required({"data": {"adapters.json": "[1]"}}) == adapters_file.required(None) == {}
