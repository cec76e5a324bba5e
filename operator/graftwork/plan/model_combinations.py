"""Settings of the engine that the model rules out, refused before a pod is made of a model that was inspected.

As in engine_combinations: only what vLLM's own source proves, each with its place in vLLM 0.32.0, and nothing of that for an image of the spec's own.
"""

from __future__ import annotations

from collections.abc import Callable

from graftwork.api import LLMDeployment
from graftwork.engines import TABLES
from graftwork.facts.inspected import ModelFacts, Resolved
from graftwork.facts.problem import Problem
from graftwork.plan import engine_fields, mode
from graftwork.plan.engine_fields import TENSOR
from graftwork.reasons import Reason

Check = Callable[[LLMDeployment, ModelFacts], str]
HUMMING = "humming"
"""Reads weights of any method (model_executor/layers/quantization/humming.py, override_quantization_method)."""
_GPTQ = ("gptq", "gptq_marlin", "auto_gptq", "moe_wna16")
_AWQ = ("awq", "awq_marlin", "auto_awq", "moe_wna16")
_ALSO = {"gptq": _GPTQ, "awq": _AWQ, "fp8": ("deepseek_v4_fp8",)}
"""Names of --quantization that a checkpoint's method is taken under, beside its own (…/auto_gptq.py, auto_awq.py, moe_wna16.py, deepseek_v4)."""
_ANY = ("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "auto-round", "gpt_oss_mxfp4")
"""Methods of checkpoints that win over any --quantization (…/modelopt.py and inc/inc.py, override_quantization_method)."""
_OF_CHECKPOINTS = ("compressed-tensors", "quark", "torchao", "online")
"""Methods that read what config.json says of the weights (model_executor/model_loader/weight_utils.py, get_quant_config)."""
_OF_FILES = ("awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "moe_wna16", "inc")
"""Methods that find it in a file of its own as well (get_config_filenames of each)."""
_OVERRIDES = frozenset({"hf-overrides", "hf-config-path"})
"""With these flags the engine reads another configuration than the one that was inspected."""
_NOT_ON_CPU = ("mxfp8", "modelopt_mxfp8", "modelopt_fp4")
"""Methods without a kernel for CPUs (model_executor/kernels/linear/__init__.py: _POSSIBLE_MXFP8_KERNELS and _POSSIBLE_NVFP4_KERNELS)."""
_ONLINE = "fp8, fp8_per_tensor, fp8_per_block, fp8_per_channel, mxfp8 and mxfp4 quantize it while it is loaded"


def problem(deployment: LLMDeployment, resolved: Resolved | None) -> Problem | None:
    """Return the first setting that the engine would refuse with this model, or that could do nothing there."""
    engine = deployment.spec.engine
    if resolved is None or engine.image or any(engine_fields.flag(name) in _OVERRIDES for name in engine.args):
        return None
    said = (check(deployment, resolved.facts) for check in CHECKS)
    return next((Problem(Reason.UNSUPPORTED_COMBINATION, text) for text in said if text), None)


def method(facts: ModelFacts) -> str:
    """Return a checkpoint's method as vLLM names it (transformers_utils/model_arch_config_convertor.py, _normalize_quantization_config)."""
    return facts.quantization.lower().replace("compressed_tensors", "compressed-tensors")


def _other_than_the_checkpoint(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """config/model.py, _verify_quantization: `Quantization method specified in the model config (A) does not match …`."""
    wanted, found = deployment.spec.engine.quantization, method(facts)
    if not wanted or not found or found in _ANY or wanted in (found, HUMMING, *_names(deployment, found)):
        return ""
    return (
        f"spec.engine.quantization is {wanted}, and the weights of {facts.architecture} are quantized by {found} already; leave quantization out "
        f"(the engine sees how they are quantized), or serve a model that is not quantized"
    )


def _names(deployment: LLMDeployment, found: str) -> tuple[str, ...]:
    if found == "awq" and deployment.spec.accelerator.cpu:  # auto_awq.py, override_quantization_method: `Don't override on CPU`
        return ()
    return _ALSO.get(found, ())


def _method_of_a_checkpoint(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """model_executor/model_loader/weight_utils.py, get_quant_config: `Cannot find the config file for M`, or a TypeError of the method's class."""
    wanted = deployment.spec.engine.quantization
    of_file = wanted in _OF_FILES and facts.quantization_file is False
    if not wanted or method(facts) or not (of_file or wanted in _OF_CHECKPOINTS):
        return ""
    return (
        f"spec.engine.quantization is {wanted}, which reads weights that were quantized before, and those of {facts.architecture} are not; leave it "
        f"out, or serve a model that was quantized by {wanted}; {_ONLINE}"
    )


def _unknown_method(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """config/model.py, _verify_quantization: `Unknown quantization method: M`, or that it is deprecated."""
    found = method(facts)
    arguments = {engine_fields.flag(name) for name in deployment.spec.engine.args}
    known = (*TABLES.quantization, *_ANY, *(TABLES.deprecated if "allow-deprecated-quantization" in arguments else ()))
    if not found or found in known or deployment.spec.engine.quantization == HUMMING:
        return ""
    return (
        f"the weights of {facts.architecture} are quantized by {found}, which vLLM {TABLES.version} does not read; serve the model that they were "
        f"made of, or one that is quantized by compressed-tensors, gptq, awq or fp8; {_ONLINE}"
    )


def _without_a_kernel(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """model_executor/kernels/linear/__init__.py, init_mxfp8_linear_kernel and init_nvfp4_linear_kernel: nothing for PlatformEnum.CPU."""
    used = method(facts) or deployment.spec.engine.quantization or ""
    if not deployment.spec.accelerator.cpu or used not in _NOT_ON_CPU:
        return ""
    where = "the weights are quantized by" if method(facts) else "spec.engine.quantization is"
    return f"{where} {used}, for which vLLM {TABLES.version} has no kernel on CPUs (accelerator.types is cpu); serve it on GPUs, or another model"


def _settings_of_text(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """entrypoints/launchers/api_server/routers.py: the routes of chat and completions are there for generating models only."""
    engine, task = deployment.spec.engine, mode.task(deployment, facts)
    if task not in mode.POOLING:
        return ""
    fields = {"reasoning": engine.reasoning, "toolCalling": engine.tool_calling, "speculative": engine.speculative}
    wrong = [f"spec.engine.{name}" for name, value in fields.items() if value]
    if not wrong:
        return ""
    return (
        f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for models that generate text, and {facts.architecture} is served for {task}: "
        f"it answers with vectors or scores; remove {'it' if len(wrong) == 1 else 'them'}"
    )


def _heads_of_a_layer(deployment: LLMDeployment, facts: ModelFacts) -> str:
    """config/model.py, verify_with_parallel_config: `Total number of attention heads (N) must be divisible by tensor parallel size (M).`"""
    given = dict(text.removeprefix("--").split("=", 1) for text in engine_fields.flags(deployment) if "=" in text)
    size = int(given.get(TENSOR, 1))
    if not facts.heads or facts.heads % size == 0:
        return ""
    return (
        f"{facts.architecture} has {facts.heads} attention heads, which {size} GPUs cannot share (tensor parallelism needs a divisor); set "
        "spec.engine.parallelism.tensor to one, and pipeline or data to what is left of accelerator.count"
    )


CHECKS: tuple[Check, ...] = (
    _other_than_the_checkpoint,
    _method_of_a_checkpoint,
    _unknown_method,
    _without_a_kernel,
    _settings_of_text,
    _heads_of_a_layer,
)
