"""What an LLMDeployment's pods ask of their node, and how long they may start: the spec and the facts of its model, put into `graftwork.sizing`.

Without facts (a source that is not looked up) nothing is computed: the container has what spec.pod.resources says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graftwork.api import LLMDeployment
from graftwork.facts.inspected import ModelFacts, Resolved
from graftwork.plan import capacity, engine_fields
from graftwork.plan.pods import Manifest
from graftwork.sizing import memory, pod, startup
from graftwork.sizing.memory import GIB, Asked
from graftwork.sizing.pod import Adapters, Need

CPU_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
CPU_KV_SPACE_GIB = 1
_SHARED_MEMORY_FLAGS = frozenset({"enable-shm-tensor-arena", "mm-processor-cache-type", "mm-shm-cache-max-object-size-mb"})
_HOST_MEMORY_FLAGS = _SHARED_MEMORY_FLAGS | {
    "cpu-offload-gb",
    "cpu-offload-params",
    "kv-offloading-backend",
    "kv-offloading-size",
    "kv-transfer-config",
    "load-format",
    "mm-processor-cache-gb",
    "model-loader-extra-config",
    "offload-backend",
}
"""Flags that put weights, KV cache or inputs into host memory, in an amount that only the user knows: no limit is computed beside them."""


@dataclass(frozen=True)
class Sizes:
    """What is computed for one template; a quantity that is empty is not set. `need` None: nothing is known of the model."""

    startup_seconds: int
    need: Need | None = None
    resources: Manifest = field(default_factory=dict)
    shm: str = ""
    model: str = ""
    """Size of the volume that the model is downloaded into."""


def sizes(deployment: LLMDeployment, resolved: Resolved | None, *, downloaded: bool, adapters: bool = True) -> Sizes:
    """Return the sizes of a template; `downloaded`: each pod brings the model's files onto its node, `adapters`: its engine takes adapters."""
    spec = deployment.spec
    seconds = startup.probe_seconds(
        resolved.facts.weights_bytes if resolved else None,
        cpu=spec.accelerator.cpu,
        eager=spec.engine.enforce_eager,
        deadline_seconds=spec.rollout.deadline_seconds,
    )
    if resolved is None:
        return Sizes(seconds)
    wanted = need(deployment, resolved.facts, adapters=adapters)
    disk = pod.memory_quantity(pod.disk_bytes(resolved.files.bytes)) if downloaded else ""
    if wanted is None:
        return Sizes(seconds, resources=_beside(deployment, {"ephemeral-storage": disk} if disk else {}, {}), model=disk)
    requests = {"cpu": pod.cpu_quantity(wanted.millicores), "memory": pod.memory_quantity(wanted.request_bytes)}
    limits = {"memory": pod.memory_quantity(wanted.limit_bytes)} if wanted.limit_bytes else {}
    requests |= {"ephemeral-storage": disk} if disk else {}
    shm = "" if _has_any(deployment, _SHARED_MEMORY_FLAGS) else pod.memory_quantity(wanted.shm_bytes)
    return Sizes(seconds, wanted, _beside(deployment, requests, limits), shm, disk)


def _beside(deployment: LLMDeployment, requests: dict[str, str], limits: dict[str, str]) -> Manifest:
    """Leave out every resource that the spec names on either side: half of the one and half of the other could be a limit below its request."""
    given = deployment.spec.pod.resources
    named = {*given.requests, *given.limits}
    found = {"requests": requests, "limits": limits}
    return {side: {key: value for key, value in amounts.items() if key not in named} for side, amounts in found.items()}


def asked(deployment: LLMDeployment, *, adapters: bool = True) -> Asked:
    """Return what of the spec the memory of its GPUs depends on; `adapters`: its engine takes adapters."""
    spec = deployment.spec
    tensor, pipeline = _shared(deployment)
    return Asked(
        tensor=tensor,
        pipeline=pipeline,
        context=spec.engine.max_model_len if isinstance(spec.engine.max_model_len, int) else None,
        dtype=spec.engine.dtype,
        kv_dtype=spec.engine.kv_cache_dtype or "auto",
        quantization=spec.engine.quantization or "",
        slots=spec.adapters.max_loaded if adapters else 0,
        rank=_rank(deployment),
    )


def need(deployment: LLMDeployment, facts: ModelFacts, *, adapters: bool = True) -> Need | None:
    """Return what the engine asks of its node; None where its KV space cannot be read from the spec."""
    spec = deployment.spec
    most = spec.adapters.max_loaded
    held = Adapters(most, capacity.kept_in_host_memory(most), memory.adapter_bytes(facts, _rank(deployment))) if adapters else Adapters()
    weights = memory.weights(facts, Asked(dtype=spec.engine.dtype, quantization=spec.engine.quantization or "")).bytes or facts.weights_bytes
    limited = not _has_any(deployment, _HOST_MEMORY_FLAGS)
    if not spec.accelerator.cpu:
        return pod.gpu_engine(max(1, spec.accelerator.gpus), weights, held, limited=limited)
    space = kv_space_bytes(deployment)
    tensor, pipeline = _shared(deployment)
    return None if space is None else pod.cpu_engine(weights, space, held, ranks=tensor * pipeline, limited=limited)


def kv_space_bytes(deployment: LLMDeployment) -> int | None:
    """Return the KV cache of an engine on CPUs; None where the spec leaves it to the engine, or says it by a flag."""
    if _has_any(deployment, frozenset({"kv-cache-memory-bytes"})):
        return None
    given = next((variable.value for variable in deployment.spec.engine.env if variable.name == CPU_KV_SPACE), str(CPU_KV_SPACE_GIB))
    return int(given) * GIB if given.isdecimal() and int(given) else None


def _has_any(deployment: LLMDeployment, flags: frozenset[str]) -> bool:
    return any(engine_fields.flag(name) in flags for name in deployment.spec.engine.args)


def _rank(deployment: LLMDeployment) -> int:
    rank = deployment.spec.adapters.max_rank
    return capacity.LEAST_RANK if rank == "auto" else rank


def _shared(deployment: LLMDeployment) -> tuple[int, int]:
    """Return tensor and pipeline parallelism, as the fields or engine.args say."""
    given = dict(text.removeprefix("--").split("=", 1) for text in engine_fields.flags(deployment) if "=" in text)
    given |= {engine_fields.flag(name): str(value) for name, value in deployment.spec.engine.args.items() if "." not in name}
    sizes = [given.get(name, "1") for name in (engine_fields.TENSOR, engine_fields.PIPELINE)]
    tensor, pipeline = (int(size) if size.isdecimal() and int(size) else 1 for size in sizes)
    return tensor, pipeline
