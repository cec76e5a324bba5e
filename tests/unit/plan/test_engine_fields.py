from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import InvalidObjectError, LLMDeployment
from graftwork.api.engine import Engine
from graftwork.plan import engine, engine_fields
from graftwork.plan.revisions import template_hash
from graftwork.reasons import Reason


def deployment(count: int | None = None, **settings: Any) -> LLMDeployment:
    accelerator = {"types": ["cpu"]} if count == 0 else {"count": count}
    spec = {"model": {"source": "s3://m/tiny"}, "accelerator": accelerator, "engine": settings}
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec})


FLAGS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"quantization": "auto", "kvCacheDtype": "auto", "trustRemoteCode": False}, []),
    ({"quantization": "fp8"}, ["--quantization=fp8"]),
    ({"kvCacheDtype": "fp8_e5m2"}, ["--kv-cache-dtype=fp8_e5m2"]),
    ({"prefixCaching": True}, ["--enable-prefix-caching"]),
    ({"prefixCaching": False}, ["--no-enable-prefix-caching"]),
    ({"speculative": {"method": "ngram", "tokens": 5}}, ['--speculative-config={"method":"ngram","num_speculative_tokens":5}']),
    ({"reasoning": {"parser": "qwen3"}}, ["--reasoning-parser=qwen3"]),
    ({"toolCalling": {"parser": "hermes"}}, ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]),
    ({"trustRemoteCode": True}, ["--trust-remote-code"]),
]


@pytest.mark.parametrize(("settings", "flags"), FLAGS, ids=str)
def test_a_field_that_is_set_becomes_a_flag_and_one_that_is_not_becomes_none(settings: dict[str, Any], flags: list[str]) -> None:
    assert engine_fields.flags(deployment(count=0, **settings)) == flags
    command = engine.arguments(deployment(count=0, **settings))
    assert [item for item in command if item not in engine.arguments(deployment(count=0))] == flags


@pytest.mark.parametrize(
    ("count", "parallelism", "flags"),
    [
        (None, None, []),
        (4, None, ["--tensor-parallel-size=4"]),
        (4, {}, ["--tensor-parallel-size=4"]),
        (4, {"pipeline": 2}, ["--tensor-parallel-size=2", "--pipeline-parallel-size=2"]),
        (4, {"pipeline": 4}, ["--pipeline-parallel-size=4"]),
        (4, {"tensor": 2}, ["--tensor-parallel-size=2"]),
        (0, {"tensor": 2}, ["--tensor-parallel-size=2"]),
        (4, {"data": 4}, ["--data-parallel-size=4", "--api-server-count=1"]),
        (4, {"data": 2}, ["--tensor-parallel-size=2", "--data-parallel-size=2", "--api-server-count=1"]),
        (
            8,
            {"tensor": 2, "pipeline": 2, "data": 2},
            ["--tensor-parallel-size=2", "--pipeline-parallel-size=2", "--data-parallel-size=2", "--api-server-count=1"],
        ),
        (0, {}, []),
    ],
)
def test_the_gpus_of_a_pod_share_the_model_as_the_field_says(count: int | None, parallelism: dict[str, Any] | None, flags: list[str]) -> None:
    settings = {} if parallelism is None else {"parallelism": parallelism}
    assert engine_fields.flags(deployment(count=count, **settings)) == flags


TWICE: list[tuple[dict[str, Any], str, str]] = [
    ({"quantization": "fp8"}, "quantization", "spec.engine.quantization"),
    ({"kvCacheDtype": "fp8"}, "kv_cache_dtype", "spec.engine.kvCacheDtype"),
    ({"prefixCaching": True}, "no-enable-prefix-caching", "spec.engine.prefixCaching"),
    ({"speculative": {"method": "ngram", "tokens": 5}}, "speculative-config.method", "spec.engine.speculative"),
    ({"speculative": {"method": "ngram", "tokens": 5}}, "spec-method", "spec.engine.speculative"),
    ({"reasoning": {"parser": "qwen3"}}, "reasoning-parser", "spec.engine.reasoning"),
    ({"toolCalling": {"parser": "hermes"}}, "enable-auto-tool-choice", "spec.engine.toolCalling"),
    ({"toolCalling": {"parser": "hermes"}}, "tool-call-pars", "spec.engine.toolCalling"),
    ({"trustRemoteCode": True}, "trust-remote-code", "spec.engine.trustRemoteCode"),
    ({"parallelism": {"pipeline": 2}}, "tensor-parallel-size", "spec.engine.parallelism"),
]


@pytest.mark.parametrize(("settings", "flag", "field"), TWICE, ids=str)
def test_a_flag_of_a_field_is_refused_only_when_the_field_is_set(settings: dict[str, Any], flag: str, field: str) -> None:
    """Who wrote it into args before there was a field keeps what runs."""
    assert engine.problems(Engine(args={flag: "x"})) == []
    (problem,) = engine.problems(Engine.model_validate({**settings, "args": {flag: "x"}}))
    assert problem.reason is Reason.OWNED_FLAG
    assert repr(flag) in problem.message
    assert field in problem.message


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("kv_cache_dtype", "kv-cache-dtype"),
        ("tool-call-pars", "tool-call-parser"),
        ("no-enable-prefix-caching", "enable-prefix-caching"),
        ("speculative_config.method", "speculative-config"),
        ("enable-chunked-prefill", "enable-chunked-prefill"),
        ("of-another-version", "of-another-version"),
        ("kv", "kv"),
        ("kv-cache-dtyp", "kv-cache-dtyp"),  # or kv-cache-dtype-skip-layers: vLLM refuses what could be two
    ],
)
def test_a_name_in_args_is_the_flag_that_vllm_takes_it_for(name: str, flag: str) -> None:
    assert engine_fields.flag(name) == flag


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quantization": "bitsandbytes"}, "spec.engine.quantization: 'bitsandbytes' is none of what vLLM 0.32.0 takes: auto, "),
        ({"reasoning": {"parser": "thinker"}}, "spec.engine.reasoning.parser: 'thinker' is none of what vLLM 0.32.0 takes"),
        ({"speculative": {"method": "eagle3", "tokens": 3}}, "'eagle3' is none of what vLLM 0.32.0 takes: dspark, mtp, ngram, ngram_gpu"),
    ],
)
def test_a_name_that_another_version_admitted_is_refused_with_those_there_are(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        deployment(**settings)
    assert told in str(refused.value)


def test_fields_that_are_not_set_change_no_template_and_fields_that_are_do() -> None:
    unset = {"quantization": "auto", "kvCacheDtype": "auto", "trustRemoteCode": False, "parallelism": {}}
    assert template_hash(deployment(**unset)) == template_hash(deployment())
    hashes = {template_hash(deployment(**settings)) for settings, flags in FLAGS if flags}
    assert len(hashes - {template_hash(deployment())}) == sum(1 for _, flags in FLAGS if flags)
