"""Reading objects and writing statuses."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import FineTuneJob, InvalidObjectError, LLMDeployment, LoRAAdapter
from graftwork.api.status import FineTuneJobStatus, Progress
from pydantic import ValidationError

DIGEST = "sha256:" + "0" * 64


def deployment(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "support", "namespace": "ml", "uid": "u-1", "generation": 3, "resourceVersion": "41", "managedFields": [{}]}
    return {"apiVersion": "graftwork.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": {"model": {"source": "s3://m/a"}, **spec}}


def job(**spec: Any) -> FineTuneJob:
    base = {"deploymentRef": "support", "dataset": {"source": "s3://d/a.jsonl"}, "publish": {"alias": "medical"}}
    return FineTuneJob.from_object({"metadata": {"name": "tickets"}, "spec": {**base, **spec}})


def test_object_is_read_with_its_metadata() -> None:
    read = LLMDeployment.from_object(deployment(engine={"maxModelLen": 2048}) | {"status": {"replicas": 2}})
    assert read.key == ("ml", "support")
    assert (read.metadata.generation, read.metadata.resource_version, read.metadata.deleting) == (3, "41", False)
    assert (read.spec.engine.max_model_len, read.spec.engine.gpu_memory_utilization) == (2048, 0.9)
    assert read.status == {"replicas": 2}


def test_fields_of_a_newer_crd_are_ignored() -> None:
    read = LLMDeployment.from_object(deployment(scaling={"min": 1}, engine={"dtype": "auto", "future": {"a": 1}}))
    assert read.spec.engine.dtype == "auto"


def test_deleted_object_says_so() -> None:
    obj = deployment()
    obj["metadata"]["deletionTimestamp"] = "2026-11-21T13:00:00Z"
    assert LLMDeployment.from_object(obj).metadata.deleting


def test_served_name_is_the_resources_name_unless_given() -> None:
    assert LLMDeployment.from_object(deployment()).served_name == "support"
    assert LLMDeployment.from_object(deployment(model={"source": "s3://m/a", "servedName": "chat"})).served_name == "chat"


@pytest.mark.parametrize(
    ("accelerator", "gpus", "cpu"),
    [({}, 1, False), ({"count": 4}, 4, False), ({"types": ["cpu"]}, 0, True), ({"types": ["cpu"], "count": 0}, 0, True)],
)
def test_gpus_follow_from_types_and_count(accelerator: dict[str, Any], gpus: int, cpu: bool) -> None:
    read = LLMDeployment.from_object(deployment(accelerator=accelerator)).spec.accelerator
    assert (read.gpus, read.cpu) == (gpus, cpu)


def test_values_of_flags_keep_their_types() -> None:
    args = {"on": True, "off": False, "one": 1, "half": 0.5, "word": "1", "bare": None}
    read = LLMDeployment.from_object(deployment(engine={"args": args})).spec.engine.args
    assert {name: (type(value), value) for name, value in read.items()} == {name: (type(value), value) for name, value in args.items()}


@pytest.mark.parametrize("name", ["--seed", "-s", "seed=1", "a b", ""])
def test_flag_with_dashes_is_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(InvalidObjectError, match=r"spec\.engine\.args: flag .* must be a name without leading dashes"):
        LLMDeployment.from_object(deployment(engine={"args": {name: 1}}))


def test_every_wrong_field_is_named_with_its_value() -> None:
    with pytest.raises(InvalidObjectError) as caught:
        LLMDeployment.from_object(deployment(replicas=-1, service={"port": "http"}))
    assert "spec.replicas: Input should be greater than or equal to 0 (got '-1')" in str(caught.value)
    assert "spec.service.port: " in str(caught.value)


def test_models_cannot_be_changed() -> None:
    read = LLMDeployment.from_object(deployment())
    with pytest.raises(ValidationError, match="frozen"):
        read.spec.replicas = 2


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86_400), ("1h30m", 5_400), ("90m", 5_400), ("45s", 45)])
def test_time_limit_in_seconds(text: str, seconds: int) -> None:
    assert job(timeLimit=text).spec.time_limit_seconds == seconds


def test_target_modules_as_the_trainer_wants_them() -> None:
    assert job().spec.lora.target == "all-linear"
    assert job(lora={"targetModules": ["q_proj"]}).spec.lora.target == ["q_proj"]


def test_adapter_is_read() -> None:
    spec = {"alias": "medical", "version": 8, "source": "store://ml/medical/000000000000", "digest": DIGEST, "baseModel": {"fingerprint": DIGEST}}
    read = LoRAAdapter.from_object({"metadata": {"name": "medical-8"}, "spec": {**spec, "rank": 16, "lineage": {"metrics": {"baseLoss": 7}}}})
    assert (read.spec.base_model.fingerprint, read.spec.lineage.metrics) == (DIGEST, {"baseLoss": 7.0})


def test_a_gate_cannot_let_worse_adapters_through() -> None:
    assert job(evaluation={"gate": {"minImprovement": 0}}).spec.evaluation.gate.min_improvement == 0
    with pytest.raises(InvalidObjectError, match=r"minImprovement.*greater than or equal to 0"):
        job(evaluation={"gate": {"minImprovement": -1}})


def test_status_is_written_without_what_is_not_known() -> None:
    status = FineTuneJobStatus(observed_generation=1, phase="Training", progress=Progress(step=48, steps=120, eta_seconds=84.0, loss=None))
    assert status.to_object() == {
        "observedGeneration": 1,
        "conditions": [],
        "phase": "Training",
        "progress": {"step": 48, "steps": 120, "etaSeconds": 84.0},
    }
