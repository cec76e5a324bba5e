"""Combinations that the pinned vLLM refuses at its start, refused before a pod is made: with the field, the reason and the remedy.

Only what vLLM's own source proves is here, each with its place in vLLM 0.32.0: a wrong refusal would be worse than an engine that ends and says why.
An image of the spec's own may hold another version, so it gets only what holds for all. What several API servers in one pod would need is
refused by name, as an owned flag. What only the model decides is in model_combinations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from graftwork.api import LLMDeployment
from graftwork.api.engine import AUTO
from graftwork.engines import TABLES
from graftwork.facts.problem import Problem
from graftwork.plan import engine_fields
from graftwork.plan.engine_fields import CONTEXT, DATA, EXECUTOR, PIPELINE, TENSOR
from graftwork.reasons import Reason

Check = Callable[[LLMDeployment], str]


def problems(deployment: LLMDeployment) -> list[Problem]:
    """Return every combination of the spec that its engine would refuse."""
    checks = OF_ALL if deployment.spec.engine.image else (*OF_ALL, *OF_THE_PINNED)
    return [Problem(Reason.UNSUPPORTED_COMBINATION, said) for check in checks if (said := check(deployment))]


def _arguments(deployment: LLMDeployment) -> dict[str, Any]:
    """Return engine.args by the flags that vLLM takes them for; what sets a single key of a JSON flag is left out."""
    return {engine_fields.flag(name): value for name, value in deployment.spec.engine.args.items() if "." not in name}


def _number(value: Any) -> int | None:
    """Return a flag's whole number; None for anything else, such as 8k."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None


def _on(arguments: dict[str, Any], flag: str) -> bool:
    return flag in arguments and arguments[flag] in (True, None)


def _more_workers_than_gpus(deployment: LLMDeployment) -> str:
    """config/parallel.py, __post_init__: `World size (N) is larger than the number of available GPUs (M) in this node`."""
    engine, accelerator = deployment.spec.engine, deployment.spec.accelerator
    arguments = _arguments(deployment)
    if accelerator.cpu or EXECUTOR in arguments:  # another executor may well find GPUs elsewhere
        return ""
    parallelism = engine.parallelism
    if parallelism and parallelism.tensor == AUTO and accelerator.gpus % parallelism.pipeline:
        return (
            f"spec.engine.parallelism.pipeline is {parallelism.pipeline}, which does not divide the pod's {accelerator.gpus} GPUs "
            "(accelerator.count); choose a divisor, or write tensor as well"
        )
    given = dict(text.removeprefix("--").split("=", 1) for text in engine_fields.flags(deployment) if "=" in text)
    sizes = [_number({**given, **arguments}.get(name, 1)) or 1 for name in (TENSOR, PIPELINE, CONTEXT)]
    workers = sizes[0] * sizes[1] * sizes[2]
    if workers <= accelerator.gpus:
        return ""
    return (
        f"spec.engine asks for {workers} workers ({' x '.join(map(str, sizes))}: tensor, pipeline and prefill context), one GPU each, and a pod has "
        f"{accelerator.gpus} (accelerator.count); an engine's GPUs are all in one pod, so raise accelerator.count or lower spec.engine.parallelism"
    )


def _copies_and_gpus(deployment: LLMDeployment) -> str:
    """Each copy has GPUs of its own: more of them than there are end the engine (config/parallel.py), and what is left over serves nobody."""
    engine, accelerator = deployment.spec.engine, deployment.spec.accelerator
    if engine.parallelism is None or engine.parallelism.data == 1:
        return ""
    if accelerator.cpu:
        return "spec.engine.parallelism.data shares GPUs, and accelerator.types is cpu; use spec.replicas"
    given = dict(text.removeprefix("--").split("=", 1) for text in engine_fields.flags(deployment) if "=" in text)
    sizes = [_number({**given, **_arguments(deployment)}.get(name, 1)) or 1 for name in (TENSOR, PIPELINE, DATA, CONTEXT)]
    used = sizes[0] * sizes[1] * sizes[2] * sizes[3]
    if used == accelerator.gpus:
        return ""
    return (
        f"spec.engine.parallelism uses {used} GPUs ({' x '.join(map(str, sizes[:3]))}: tensor, pipeline and data), and a pod has {accelerator.gpus} "
        "(accelerator.count); all copies are in one pod and use all of its GPUs, so make the two equal"
    )


def _type_of_a_quantized_model(deployment: LLMDeployment) -> str:
    """config/vllm.py, _get_quantization_config: `torch.float32 is not supported for quantization method M`.

    Only float32: for the other types, what a name of --quantization stands for depends on the checkpoint (mxfp8 is two methods).
    """
    engine = deployment.spec.engine
    supported = TABLES.activations(engine.quantization or "")
    if engine.dtype != "float32" or not supported or "float32" in supported:
        return ""
    return (
        f"spec.engine.dtype is float32, and quantization {engine.quantization} takes {' or '.join(supported)}; leave dtype out, or write one of those"
    )


def _drafts_beyond_the_batch(deployment: LLMDeployment) -> str:
    """engine/arg_utils.py, create_engine_config: with LoRA, max_num_batched_tokens < max_num_seqs x (num_speculative_tokens + 1) is a ValueError."""
    engine = deployment.spec.engine
    batch = _number(_arguments(deployment).get("max-num-batched-tokens"))
    if engine.speculative is None or not isinstance(engine.max_num_seqs, int) or batch is None:
        return ""
    needed = engine.max_num_seqs * (engine.speculative.tokens + 1)
    if batch >= needed:
        return ""
    return (
        f"spec.engine.args sets max-num-batched-tokens to {batch}, and {engine.max_num_seqs} requests (maxNumSeqs) with {engine.speculative.tokens} "
        f"speculative tokens each need {needed}; raise it, or lower maxNumSeqs or speculative.tokens"
    )


def _drafts_and_asynchronous_scheduling(deployment: LLMDeployment) -> str:
    """config/vllm.py, __post_init__: `async scheduling is only supported with EAGLE/MTP/Draft Model/NGram GPU/…`, on CPUs as well."""
    speculative = deployment.spec.engine.speculative
    if speculative is None or speculative.method != "ngram":
        return ""
    if not _on(_arguments(deployment), "async-scheduling"):
        return ""
    return "spec.engine.args sets async-scheduling, which vLLM refuses with speculative.method ngram; remove it, or use the method ngram_gpu"


def _adaptive_verification(deployment: LLMDeployment) -> str:
    """config/vllm.py, _validate_adaptive_verification: `Adaptive verification is not currently compatible with LoRA`."""
    for name, value in deployment.spec.engine.args.items():
        if engine_fields.flag(name) == "speculative-config" and _adaptive(engine_fields.flag_name(name).partition(".")[2], value):
            return f"spec.engine.args sets enable_adaptive_verification in {name!r}, which vLLM refuses where adapters are served; remove it"
    return ""


def _adaptive(key: str, value: Any) -> bool:
    if key:
        return key == "enable_adaptive_verification" and (value in (True, None) or str(value).lower() == "true")
    try:
        config = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("enable_adaptive_verification") is True


_NEEDS = {"enable-auto-tool-choice": "tool-call-parser", "enable-log-outputs": "enable-log-requests"}
"""entrypoints/launchers/cli_args.py, validate_parsed_serve_args: `--X requires --Y`."""


def _flags_without_another(deployment: LLMDeployment) -> str:
    arguments = _arguments(deployment)
    for flag, other in _NEEDS.items():
        if _on(arguments, flag) and not (_on(arguments, other) or arguments.get(other)):
            return f"spec.engine.args sets {flag}, which vLLM takes with {other} only; add {other}, or remove {flag}"
    return ""


OF_ALL: tuple[Check, ...] = (_copies_and_gpus, _more_workers_than_gpus)
OF_THE_PINNED: tuple[Check, ...] = (
    _type_of_a_quantized_model,
    _drafts_beyond_the_batch,
    _drafts_and_asynchronous_scheduling,
    _adaptive_verification,
    _flags_without_another,
)
