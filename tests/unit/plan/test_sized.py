"""What a template asks for: by the facts of its model, the spec, and what the spec says itself."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.facts.inspected import Resolved
from graftwork.plan import serving, sized, sources
from graftwork.plan.children import deployment as children_deployment
from graftwork.plan.sources import Source

from tests.unit.sizing.models import DEEPSEEK_V3, LLAMA_3_8B, QWEN3_06B, resolved

CONFIG = Config.model_validate(
    {"images": {"engine": "engine:1", "agent": "agent:1", "trainer": "trainer:1"}, "store": {"url": "s3://b/s"}, "lease": {"namespace": "graftwork"}}
)
LLAMA = resolved(LLAMA_3_8B)
# Llama-3-8B: an adapter of rank 16 has 96460800 bytes (test_memory); 4 GiB + 2 GiB + 8 x 96460800 = 6.72 GiB; 2 x + 16060522496 + 2 GiB = 30.4 GiB
LLAMA_GPU = {"requests": {"cpu": "3", "memory": "6880Mi", "ephemeral-storage": "17105Mi"}, "limits": {"memory": "53203Mi"}}


def deployment(**spec: Any) -> LLMDeployment:
    return LLMDeployment.from_object({"metadata": {"name": "m", "namespace": "ml"}, "spec": {"model": {"source": "hf://acme/model"}, **spec}})


def template(made: LLMDeployment, known: Resolved | None) -> dict[str, Any]:
    source = sources.parse("source", made.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source)
    return serving.pod_template(made, serving.Inputs(source, known), CONFIG, "hash")


def engine(made: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in made["spec"]["containers"] if item["name"] == "vllm")


def volume(made: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in made["spec"]["volumes"] if item["name"] == name)["emptyDir"]


def test_a_gpu_engine_asks_for_what_its_model_needs() -> None:
    made = template(deployment(), LLAMA)
    gpus = {"nvidia.com/gpu": "1"}
    assert engine(made)["resources"] == {"requests": {**LLAMA_GPU["requests"], **gpus}, "limits": {**LLAMA_GPU["limits"], **gpus}}
    assert volume(made, "shm") == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert volume(made, "model") == {"sizeLimit": "17105Mi"}  # 16060522496 x 1.1 + 256 MiB


def test_without_facts_nothing_is_computed() -> None:
    made = template(deployment(model={"source": "s3://models/m"}), None)
    assert engine(made)["resources"] == {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    assert volume(made, "shm") == {"medium": "Memory"}
    assert volume(made, "model") == {}
    assert engine(made)["startupProbe"]["failureThreshold"] == 21660


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({"requests": {"memory": "40Gi"}}, {"cpu": "3", "ephemeral-storage": "17105Mi", "memory": "40Gi"}, {}),
        # a request of ours above the limit would be refused by the API server
        ({"limits": {"memory": "4Gi"}}, {"cpu": "3", "ephemeral-storage": "17105Mi"}, {"memory": "4Gi"}),
        ({"limits": {"cpu": 8}}, {"memory": "6880Mi", "ephemeral-storage": "17105Mi"}, {"memory": "53203Mi", "cpu": "8"}),
        (
            {"requests": {"ephemeral-storage": "1Gi", "example.com/nic": 1}},
            {"cpu": "3", "memory": "6880Mi", "ephemeral-storage": "1Gi", "example.com/nic": "1"},
            {"memory": "53203Mi"},
        ),
    ],
)
def test_a_resource_that_the_spec_names_is_its_own(given: dict[str, Any], requests: dict[str, str], limits: dict[str, str]) -> None:
    found = engine(template(deployment(pod={"resources": given}), LLAMA))["resources"]
    gpus = {"nvidia.com/gpu": "1"}
    assert found == {"requests": {**requests, **gpus}, "limits": {**limits, **gpus}}


@pytest.mark.parametrize(
    ("spec", "cpu", "memory", "limit", "shm"),
    [
        # 2.5 + 1503264768 + 1 GiB + 2 x 8 x 34837120
        ({}, "500m", "5550Mi", "19831Mi", "1Gi"),
        ({"engine": {"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]}}, "500m", "8622Mi", "25975Mi", "1Gi"),
        ({"engine": {"dtype": "float32"}}, "500m", "6983Mi", "22698Mi", "1Gi"),
        ({"engine": {"args": {"kv_offloading_size": 4}}}, "500m", "5550Mi", None, "1Gi"),
        ({"engine": {"args": {"mm-processor-cache-type": "shm"}}}, "500m", "5550Mi", None, None),  # as much of /dev/shm as mm-processor-cache-gb says
    ],
)
def test_an_engine_on_cpus(spec: dict[str, Any], cpu: str, memory: str, limit: str | None, shm: str | None) -> None:
    made = template(deployment(accelerator={"types": ["cpu"]}, **spec), resolved(QWEN3_06B))
    found = engine(made)["resources"]
    assert (found["requests"]["cpu"], found["requests"]["memory"], found.get("limits", {}).get("memory")) == (cpu, memory, limit)
    assert volume(made, "shm").get("sizeLimit") == shm


@pytest.mark.parametrize("engine_spec", [{"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": ""}]}, {"args": {"kv-cache-memory-bytes": "4G"}}])
def test_a_kv_space_that_is_not_said_in_gibibytes_leaves_memory_to_the_user(engine_spec: dict[str, Any]) -> None:
    made = template(deployment(accelerator={"types": ["cpu"]}, engine=engine_spec), resolved(QWEN3_06B))
    assert engine(made)["resources"] == {"requests": {"ephemeral-storage": "1833Mi"}}
    assert volume(made, "shm") == {"medium": "Memory"}


@pytest.mark.parametrize(
    ("spec", "tensor", "pipeline"),
    [
        ({}, 1, 1),
        ({"accelerator": {"count": 4}}, 4, 1),
        ({"accelerator": {"count": 4}, "engine": {"parallelism": {"pipeline": 2}}}, 2, 2),
        ({"accelerator": {"count": 4}, "engine": {"args": {"pipeline_parallel_size": 4}}}, 1, 4),
        ({"accelerator": {"types": ["cpu"]}}, 1, 1),
    ],
)
def test_how_gpus_share_the_model(spec: dict[str, Any], tensor: int, pipeline: int) -> None:
    asked = sized.asked(deployment(**spec))
    assert (asked.tensor, asked.pipeline) == (tensor, pipeline)


def test_eight_gpus_for_a_large_model() -> None:
    made = template(deployment(accelerator={"count": 8}), resolved(DEEPSEEK_V3))
    assert engine(made)["resources"]["requests"]["cpu"] == "10"
    assert engine(made)["resources"]["requests"]["memory"] == "20Gi"  # adapters for latent attention are not computed
    assert volume(made, "shm")["sizeLimit"] == "9Gi"
    # 600 + 600 + 688586727753 / 100 MiB + 60
    assert engine(made)["startupProbe"]["failureThreshold"] == 7827
    assert children_deployment(deployment(), made)["spec"]["progressDeadlineSeconds"] == 2 * 7827


def test_a_longer_deadline_is_not_cut_short_by_the_kubelet() -> None:
    made = template(deployment(rollout={"progressDeadline": "2h"}), LLAMA)
    assert engine(made)["startupProbe"]["failureThreshold"] == 7260
