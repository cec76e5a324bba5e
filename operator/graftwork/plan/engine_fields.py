"""The engine's fields as flags of vLLM, and which flag of engine.args would say again what a field says.

A field that is not set gives no flag, and its flags stay free for engine.args: who wrote them there before the field existed keeps what runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from graftwork.api import LLMDeployment
from graftwork.api.engine import Engine
from graftwork.engines import TABLES
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason

TENSOR, PIPELINE, DATA = "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"
ONE_SERVER = "api-server-count"
CONTEXT, EXECUTOR = "prefill-context-parallel-size", "distributed-executor-backend"
_SHARING = frozenset({TENSOR, PIPELINE, CONTEXT, EXECUTOR})


@dataclass(frozen=True)
class Field:
    """One field of the engine. `flags`: all of vLLM's that it decides; `given`: those that it makes, none where it is not set."""

    name: str
    flags: frozenset[str]
    given: Callable[[Engine], list[str]]


def _speculative(engine: Engine) -> list[str]:
    if engine.speculative is None:
        return []
    config = {"method": engine.speculative.method, "num_speculative_tokens": engine.speculative.tokens}
    return [f"--speculative-config={json.dumps(config, separators=(',', ':'))}"]


def _prefix_caching(engine: Engine) -> list[str]:
    if engine.prefix_caching is None:
        return []
    return ["--enable-prefix-caching" if engine.prefix_caching else "--no-enable-prefix-caching"]


def _tool_calling(engine: Engine) -> list[str]:
    return ["--enable-auto-tool-choice", f"--tool-call-parser={engine.tool_calling.parser}"] if engine.tool_calling else []


FIELDS = (
    Field("quantization", frozenset({"quantization"}), lambda engine: [f"--quantization={engine.quantization}"] if engine.quantization else []),
    Field(
        "kvCacheDtype", frozenset({"kv-cache-dtype"}), lambda engine: [f"--kv-cache-dtype={engine.kv_cache_dtype}"] if engine.kv_cache_dtype else []
    ),
    Field("prefixCaching", frozenset({"enable-prefix-caching"}), _prefix_caching),
    Field("speculative", frozenset({"speculative-config", "spec-method", "spec-model", "spec-tokens"}), _speculative),
    Field("reasoning", frozenset({"reasoning-parser"}), lambda engine: [f"--reasoning-parser={engine.reasoning.parser}"] if engine.reasoning else []),
    Field("toolCalling", frozenset({"enable-auto-tool-choice", "tool-call-parser"}), _tool_calling),
    Field("trustRemoteCode", frozenset({"trust-remote-code"}), lambda engine: ["--trust-remote-code"] if engine.trust_remote_code else []),
)


def flag_name(name: str) -> str:
    """Return how vLLM reads a flag's name: `_` is `-`, but not after the first dot."""
    head, dot, tail = name.strip().lstrip("-").partition(".")
    return head.replace("_", "-") + dot + tail


def flag(name: str) -> str:
    """Return the flag that vLLM takes a name of engine.args for: abbreviated, negated, with a key of its JSON; a name it does not know is itself."""
    head = flag_name(name).partition(".")[0].rstrip("+")
    return TABLES.flag(head) or TABLES.flag(head.removeprefix("no-")) or head


def flags(deployment: LLMDeployment) -> list[str]:
    """Return the flags of the fields that are set."""
    engine = deployment.spec.engine
    return [*_parallel(deployment), *(given for each in FIELDS for given in each.given(engine))]


def _parallel(deployment: LLMDeployment) -> list[str]:
    """Return how the pod's GPUs share the model: as the field says, or all of them each layer, unless engine.args say it."""
    engine, gpus = deployment.spec.engine, deployment.spec.accelerator.gpus
    if engine.parallelism is None:
        return [f"--{TENSOR}={gpus}"] if gpus > 1 and not any(flag_name(name) in _SHARING for name in engine.args) else []
    pipeline, data = engine.parallelism.pipeline, engine.parallelism.data
    tensor = engine.parallelism.tensor if isinstance(engine.parallelism.tensor, int) else max(1, gpus // (pipeline * data))
    sizes = [f"--{name}={size}" for name, size in ((TENSOR, tensor), (PIPELINE, pipeline), (DATA, data)) if size > 1]
    # By itself vLLM would start a server per copy (entrypoints/cli/serve.py): each would have a guard of its own, and run_multi_api_server refuses to
    # load adapters at run time. One server sends each load to every copy (v1/engine/core_client.py, DPLBAsyncMPClient.call_utility_async).
    return [*sizes, f"--{ONE_SERVER}=1"] if data > 1 else sizes


def problems(engine: Engine) -> list[Problem]:
    """Return which of engine.args say again what a field that is set says already."""
    decided = {each: f"spec.engine.{field.name}" for field in FIELDS if field.given(engine) for each in field.flags}
    if engine.parallelism is not None:
        decided |= dict.fromkeys((TENSOR, PIPELINE), "spec.engine.parallelism")
    return [
        Problem(Reason.OWNED_FLAG, f"spec.engine.args sets {name!r}, which {decided[flag(name)]} decides here; remove one of the two")
        for name in engine.args
        if flag(name) in decided
    ]
