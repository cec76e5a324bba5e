"""Adapters that must not reach the engine, each with one fault: refused with a closed reason and numbers while everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e import spoiled
from tests.e2e.adapters import Bucket, Files, Published, digest, engine_name, stalled
from tests.e2e.service import MAX_RANK, Service
from tests.e2e.spoiled import CONFIG, WEIGHTS
from tests.harness import ask
from tests.harness.kube import Kube, Object
from tests.harness.load import Load

FOREIGN = "sha256:" + "0" * 64
SMALL_RANK, HIGH_RANK = 8, 32


@dataclass(frozen=True)
class Case:
    """One fault: the files that the manifest speaks of, what is stored instead, what the LoRAAdapter says, and what the refusal must say."""

    reason: str
    message: tuple[str, ...]
    files: Files
    stored: Files | None = None
    spec: dict[str, Any] = field(default_factory=dict)


def values_of(files: Files, half: str) -> tuple[str, int]:
    """Return the name of a half's first tensor and how many values it has."""
    tensors = spoiled.unpacked(files[WEIGHTS])
    name = spoiled.first(tensors, half)
    return name, len(tensors[name].data) // tensors[name].width


def cases(good: Files) -> dict[str, Case]:
    """Return every fault by the alias under which it is published."""
    finite, count = values_of(good, "lora_B")
    narrow, _ = values_of(good, "lora_A")
    rank, columns = spoiled.unpacked(good[WEIGHTS])[narrow].shape
    high = spoiled.wider(good, HIGH_RANK)
    one, two = ({**good, CONFIG: good[CONFIG] + b" " * blanks} for blanks in (1, 2))  # the same adapter under other digests
    flipped = {**two, WEIGHTS: good[WEIGHTS][:-1] + bytes([good[WEIGHTS][-1] ^ 1])}
    half = len(good[WEIGHTS]) // 2
    outside = {**good, "../../../evil.json": b"{}"}
    pickled = {**good, "adapter_model.bin": b"\x80\x04N."}
    return {
        "nan": Case("NotFinite", (finite, f"3 of {count}", "index 5"), spoiled.not_finite(good, spoiled.NAN, 5, 3)),
        "infinite": Case("NotFinite", (finite, f"1 of {count}", "index 0"), spoiled.not_finite(good, spoiled.INFINITE, 0, 1)),
        "narrow": Case("TensorMismatch", (narrow, str([rank, columns // 2]), str(columns)), spoiled.narrower(good)),
        "deep": Case("TensorMismatch", ("layers.39",), spoiled.deeper(good)),
        "cut-off": Case("TensorMismatch", (WEIGHTS, str(half)), spoiled.cut(good)),
        "cut-later": Case("DigestMismatch", (WEIGHTS, str(half), str(len(good[WEIGHTS]))), one, spoiled.cut(one)),
        "flipped": Case("DigestMismatch", (WEIGHTS,), two, flipped),
        "rank-told": Case("RankTooHigh", (str(HIGH_RANK), str(MAX_RANK), "adapters.maxRank"), high, spec={"rank": HIGH_RANK}),
        "rank-hidden": Case("RankTooHigh", (str(HIGH_RANK), str(MAX_RANK), "adapters.maxRank"), {**high, CONFIG: high[CONFIG] + b" "}),
        "foreign": Case("BaseMismatch", (FOREIGN[:19],), good, spec={"baseModel": {"source": "s3://models/other", "fingerprint": FOREIGN}}),
        "dora": Case("Unsupported", ("use_dora", "DoRA"), spoiled.configured(good, use_dora=True)),
        "whole-modules": Case("Unsupported", ("modules_to_save", "lm_head"), spoiled.configured(good, modules_to_save=["lm_head"])),
        "biased": Case("Unsupported", ("bias", "all"), spoiled.configured(good, bias="all")),
        "no-json": Case("ConfigInvalid", (CONFIG,), {**good, CONFIG: b'{"peft_type": "LORA", "r": 8,'}),
        "prompt": Case("ConfigInvalid", ("peft_type", "PROMPT_TUNING"), spoiled.configured(good, peft_type="PROMPT_TUNING")),
        "outside": Case("FileNotAllowed", ("../../../evil.json",), outside),
        "pickled": Case("FileNotAllowed", ("adapter_model.bin",), pickled),
    }


NAMES = (
    *("nan", "infinite", "narrow", "deep", "cut-off", "cut-later", "flipped", "rank-told", "rank-hidden"),
    *("foreign", "dora", "whole-modules", "biased", "no-json", "prompt", "outside", "pickled"),
)


@dataclass(frozen=True)
class Crowd:
    """All faulty adapters, applied at once, and the load that runs beside them."""

    cases: dict[str, Case]
    items: dict[str, Object]
    load: Load
    pods: list[tuple[str, int, str]]
    engines: list[str]


@pytest.fixture(scope="module")
def crowd(kube: Kube, taught: Service, swordfish: Published, bucket: Bucket) -> Iterator[Crowd]:
    """Publish every faulty adapter and apply its LoRAAdapter; `tiny` and `medical` are asked all the time."""
    pods, engines = taught.identities(), taught.engine_starts()
    found = cases(swordfish.files)
    assert sorted(found) == sorted(NAMES)
    items = {}
    for alias, case in found.items():
        source, its_digest = bucket.publish(alias, case.files, swordfish.manifest_fields, namespace=kube.namespace, stored=case.stored)
        items[alias] = swordfish.under(alias, **{"source": source, "digest": its_digest, **case.spec})
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=1, tokens=4, seconds=300) as load:
        kube.apply(*items.values())
        yield Crowd(found, items, load, pods, engines)
    kube.delete("loraadapter", *(item["metadata"]["name"] for item in items.values()))


@pytest.mark.parametrize("alias", NAMES)
def test_a_faulty_adapter_is_refused_with_its_reason_and_numbers(crowd: Crowd, kube: Kube, taught: Service, alias: str) -> None:
    case = crowd.cases[alias]
    found = stalled(kube, f"{alias}-1")
    assert found["reason"] == case.reason, found["message"]
    for text in case.message:
        assert text in found["message"]
    answer = taught.ask(alias)
    assert answer.status in (404, 503), "nobody is answered by a refused adapter"
    assert answer.status == 404 or {name.lower() for name in answer.headers} >= {"retry-after"}


def test_the_faults_are_the_only_fault(swordfish: Published) -> None:
    """The test of the test: packing and unpacking without a change gives an adapter that is not refused for its form."""
    tensors = spoiled.unpacked(swordfish.files[WEIGHTS])
    assert spoiled.unpacked(spoiled.packed(tensors)) == tensors
    assert {len(tensor.shape) for tensor in tensors.values()} == {2}
    assert json.loads(swordfish.files[CONFIG])["r"] == SMALL_RANK
    assert digest(swordfish.files) == swordfish.digest


def test_after_all_of_them_medical_still_answers_in_the_same_engine_process(crowd: Crowd, taught: Service) -> None:
    crowd.load.wait_for(4)
    assert crowd.load.tally.failures == []
    assert taught.identities() == crowd.pods, "no pod was restarted or replaced"
    assert taught.engine_starts() == crowd.engines
    assert "swordfish" in taught.ask("medical").text
    _, listed = ask.get(taught.host, taught.port, "/v1/models")
    assert not {row["id"] for row in json.loads(listed)["data"]} & set(NAMES)
    status = taught.until_agent(lambda status: True)
    loaded = {row["engineName"] for row in status["adapters"] if row["state"] == "Loaded"}
    assert not loaded & {engine_name(item) for item in crowd.items.values()}


def test_an_adapter_that_only_looks_odd_is_served(kube: Kube, taught: Service, swordfish: Published, bucket: Bucket) -> None:
    files = spoiled.reweighted(spoiled.configured(swordfish.files, unknown_field={"new": True}), lambda tensors: tensors)
    source, its_digest = bucket.publish("odd", files, swordfish.manifest_fields, namespace=kube.namespace)
    kube.apply(swordfish.under("odd", source=source, digest=its_digest))
    taught.until_answer("odd", "swordfish")
    kube.delete("loraadapter", "odd-1")


def test_a_base_that_the_user_declares_compatible_is_served_and_withdrawn_without_a_restart(
    kube: Kube, taught: Service, swordfish: Published
) -> None:
    pods = taught.identities()
    item = swordfish.under("cousin", baseModel={"source": "s3://models/cousin", "fingerprint": FOREIGN})
    kube.apply(item)
    found = stalled(kube, "cousin-1")
    assert found["reason"] == "BaseMismatch"
    assert "compatibleBases" in found["message"], "the remedy is named"
    kube.patch("llmdeployment", "tiny", {"spec": {"model": {"compatibleBases": ["s3://models/cousin"]}}})
    taught.until_answer("cousin", "swordfish")
    kube.delete("loraadapter", "cousin-1")
    kube.patch("llmdeployment", "tiny", {"spec": {"model": {"compatibleBases": None}}})
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)
    assert taught.identities() == pods
