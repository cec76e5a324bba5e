from __future__ import annotations

import re

import pytest
from graftwork.api import LLMDeployment
from graftwork.api.engine import Engine
from graftwork.plan import engine
from graftwork.reasons import Reason


def deployment(**spec: object) -> LLMDeployment:
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": {"model": {"source": "s3://m/tiny"}, **spec}})


@pytest.mark.parametrize(
    ("spelling", "flag"),
    [
        ("max-lora-rank", "max-lora-rank"),
        ("max_lora_rank", "max-lora-rank"),
        ("Max-Lora-Rank", "max-lora-rank"),
        ("no-enable-lora", "enable-lora"),
        ("no_enable_lora", "enable-lora"),
        ("max-lora-ra", "max-lora-rank"),
        ("middlewar", "middleware"),
        ("no-enable-lor", "enable-lora"),
        ("profiler_config.dir", "profiler-config"),
        ("dp", "data-parallel-size"),
        ("asc", "api-server-count"),
        ("device-memory-utilization", "device-memory-utilization"),
        ("gpu-memory-util", "gpu-memory-utilization"),
        ("api_key", "api-key"),
        ("config", "config"),
        ("lora-modules+", "lora-modules"),
    ],
)
def test_a_flag_that_graftwork_owns_is_refused_however_it_is_spelled(spelling: str, flag: str) -> None:
    assert engine.owned_flag(spelling) == flag
    (problem,) = engine.problems(Engine(args={spelling: "x"}))
    assert problem.reason is Reason.OWNED_FLAG
    assert spelling in problem.message
    assert engine.OWNED_FLAGS[flag] in problem.message


# Every flag of `vllm serve` 0.32.0 that is a user's to set and looks most like an owned one.
ALLOWED = re.findall(
    r"\S+",
    """
additional-config all2all-backend allowed-local-media-path async-scheduling attention-backend block-size code-revision compilation-config
config-format convert cpu-offload-gb cudagraph-capture-sizes decode-context-parallel-size disable-cascade-attn disable-custom-all-reduce
disable-hybrid-kv-cache-manager disable-log-stats disable-sliding-window distributed-executor-backend distributed-timeout-seconds
download-dir enable-auto-tool-choice enable-chunked-prefill enable-dbo enable-eplb enable-expert-parallel enable-log-requests
enable-logging-iteration-details enable-mfu-metrics enable-mm-embeds enable-moe-shared-loras enable-prefix-caching enable-prompt-embeds
enable-prompt-tokens-details enable-server-load-tracking enable-sleep-mode enable-tower-connector-lora fully-sharded-loras
generation-config hf-config-path hf-overrides hf-token ignore-patterns io-processor-plugin kv-cache-dtype kv-cache-memory-bytes
kv-cache-metrics kv-transfer-config limit-mm-per-prompt load-format log-config-file logging-config logits-processors logprobs-mode
lora-dtype lora-target-modules max-cudagraph-capture-size max-logprobs max-lora-cls-labels max-num-batched-tokens max-num-queued-reqs
max-num-queued-tokens max-num-scheduled-tokens max-parallel-loading-workers mm-processor-kwargs model-class-overrides model-impl
model-loader-extra-config moe-backend num-gpu-blocks-override optimization-level otlp-traces-endpoint override-generation-config
performance-mode pipeline-parallel-size quantization reasoning-parser revision runner safetensors-load-strategy scheduling-policy seed
skip-tokenizer-init speculative-config spec-method sse-keep-alive-interval stream-interval structured-outputs-config tensor-parallel-size
tokenizer tokenizer-mode tool-call-parser tool-server trust-remote-code uvicorn-log-level worker-cls chat-template response-role
allowed-origins allow-credentials
""",
)


@pytest.mark.parametrize("flag", ALLOWED)
def test_a_flag_that_is_the_users_is_taken(flag: str) -> None:
    assert engine.problems(Engine(args={flag: "x"})) == []


@pytest.mark.parametrize(
    "name",
    ["VLLM_ALLOW_RUNTIME_LORA_UPDATING", "PYTHONPATH", "VLLM_LORA_RESOLVER_CACHE_DIR", "GRAFTWORK_RUN_DIR", "VLLM_API_KEY", "VLLM_USE_RUST_FRONTEND"],
)
def test_an_environment_variable_that_graftwork_owns_is_refused(name: str) -> None:
    (problem,) = engine.problems(Engine(env=({"name": name, "value": "1"},)))
    assert problem.reason is Reason.OWNED_FLAG
    assert name in problem.message


def test_the_same_flag_in_two_spellings_is_refused() -> None:
    (problem,) = engine.problems(Engine(args={"kv_cache_dtype": "fp8", "kv-cache-dtype": "auto"}))
    assert problem.reason is Reason.INVALID_SPEC
    assert "--kv-cache-dtype twice" in problem.message


def test_a_short_form_is_refused_with_its_long_form() -> None:
    (problem,) = engine.problems(Engine(args={"tp": 2}))
    assert "tensor-parallel-size" in problem.message


def test_values_become_flags() -> None:
    args = engine.arguments(
        deployment(engine={"args": {"a": True, "b": None, "c": False, "d": 3, "e": 0.125, "f_g": "x y"}}, accelerator={"types": ["cpu"]})
    )
    assert args[-6:] == ["--a", "--b", "--no-c", "--d=3", "--e=0.125", "--f-g=x y"]


def test_gpus_are_used_together_unless_the_user_says_how() -> None:
    assert "--tensor-parallel-size=4" in engine.arguments(deployment(accelerator={"count": 4}))
    mine = engine.arguments(deployment(accelerator={"count": 4}, engine={"args": {"pipeline_parallel_size": 4}}))
    assert not any(item.startswith("--tensor") for item in mine)


def test_a_users_variable_replaces_a_default_of_ours() -> None:
    env = engine.environment(deployment(accelerator={"types": ["cpu"]}, engine={"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]}))
    assert [item for item in env if item["name"] == "VLLM_CPU_KVCACHE_SPACE"] == [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]
    assert "VLLM_CPU_KVCACHE_SPACE" not in [item["name"] for item in engine.environment(deployment())]
