"""vLLM's command line and environment: what Graftwork sets, what a user may add, and what is refused by name."""

from __future__ import annotations

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.engine import Engine
from graftwork.facts.problem import Problem
from graftwork.plan import capacity, engine_fields, pods
from graftwork.plan.engine_fields import flag_name
from graftwork.plan.mode import ADAPTERS_ON, Mode
from graftwork.reasons import Reason

BIN, RUN, MODEL, HOME = "/graftwork/bin", "/graftwork/run", "/models/base", "/home/graftwork"
QUIET_PATHS = "/health,/metrics,/graftwork/ready,/graftwork/metrics,/graftwork/engine,/graftwork/routing,/v1/models"

_ROUTES = "the guard decides which routes answer"
_ONE = "one pod is one engine process; use spec.replicas, or tensor-parallel-size within a pod"
_TLS = "probes and the agent speak HTTP to the engine; end TLS in front of the Service"
OWNED_FLAGS: dict[str, str] = {
    "model": "use spec.model.source",
    "served-model-name": "use spec.model.servedName",
    "host": "the engine listens on all addresses of its pod",
    "port": "use spec.service.port",
    "uds": "probes and the Service need a port",
    "middleware": "the guard is the middleware",
    "root-path": _ROUTES,
    "api-key": _ROUTES,
    "enable-lora": "adapters are on wherever vLLM has LoRA for the model's architecture",
    "max-loras": "use spec.adapters.maxLoaded",
    "max-cpu-loras": "use spec.adapters.maxLoaded",
    "max-lora-rank": "use spec.adapters.maxRank",
    "lora-modules": "publish a LoRAAdapter instead",
    "default-mm-loras": "publish a LoRAAdapter instead",
    "shutdown-timeout": "use spec.rollout.answerSeconds",
    "disable-access-log-for-endpoints": "Graftwork silences its own probes there",
    "disable-fastapi-docs": _ROUTES,
    "enable-offline-docs": _ROUTES,
    "enable-tokenizer-info-endpoint": _ROUTES,
    "enable-scale-out": _ROUTES,
    "tokens-only": _ROUTES,
    "profiler-config": _ROUTES,
    "enable-elastic-ep": _ONE,
    "enable-fault-tolerance": _ROUTES,
    "api-server-count": "more than one API server cannot load adapters at run time",
    "data-parallel-size": "use spec.engine.parallelism.data",
    "data-parallel-size-local": _ONE,
    "data-parallel-rank": _ONE,
    "data-parallel-start-rank": _ONE,
    "data-parallel-address": _ONE,
    "data-parallel-rpc-port": _ONE,
    "data-parallel-backend": _ONE,
    "data-parallel-hybrid-lb": _ONE,
    "data-parallel-external-lb": _ONE,
    "data-parallel-multi-port-external-lb": _ONE,
    "data-parallel-supervisor-port": _ONE,
    "nnodes": _ONE,
    "node-rank": _ONE,
    "master-addr": _ONE,
    "master-port": _ONE,
    "headless": _ONE,
    "grpc": "only HTTP is guarded",
    "grpc-port": "only HTTP is guarded",
    "config": "write the flags into spec.engine.args",
    "help": "the engine would print its help and end",
    "ssl-keyfile": _TLS,
    "ssl-certfile": _TLS,
    "ssl-ca-certs": _TLS,
    "ssl-cert-reqs": _TLS,
    "ssl-ciphers": _TLS,
    "enable-ssl-refresh": _TLS,
    "max-model-len": "use spec.engine.maxModelLen",
    "gpu-memory-utilization": "use spec.engine.gpuMemoryUtilization",
    "device-memory-utilization": "use spec.engine.gpuMemoryUtilization",
    "dtype": "use spec.engine.dtype",
    "max-num-seqs": "use spec.engine.maxNumSeqs",
    "enforce-eager": "use spec.engine.enforceEager",
}
OWNED_ENV = frozenset(
    {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_USE_RUST_FRONTEND",
        "VLLM_PLUGINS",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_API_KEY",
        "VLLM_HOST_IP",
        "VLLM_PORT",
        "VLLM_ENABLE_RESPONSES_API_STORE",
        "VLLM_ENABLE_COHERE_API",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE",
        "SAGEMAKER_MODEL_PATH",
        "HF_HUB_OFFLINE",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "HOME",
        "USER",
    }
)
OWNED_ENV_PREFIXES = ("GRAFTWORK_", "VLLM_LORA_RESOLVER_")
_SHORT = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
    "n": "nnodes",
    "r": "node-rank",
    "h": "help",
    "dpn": "data-parallel-rank",
    "dpr": "data-parallel-start-rank",
    "dpl": "data-parallel-size-local",
    "dpa": "data-parallel-address",
    "dpp": "data-parallel-rpc-port",
    "dpb": "data-parallel-backend",
    "dph": "data-parallel-hybrid-lb",
    "dpe": "data-parallel-external-lb",
    "asc": "api-server-count",
    "sc": "speculative-config",
    "cc": "compilation-config",
    "ac": "attention-config",
    "ep": "enable-expert-parallel",
}


def problems(engine: Engine) -> list[Problem]:
    """Return what of engine.args and engine.env cannot be taken."""
    found = [problem for name in engine.args if (problem := _flag_problem(name))]
    found += engine_fields.problems(engine)
    flags = [flag_name(name) for name in engine.args]
    found += [
        Problem(Reason.INVALID_SPEC, f"spec.engine.args sets --{flag} twice (- and _ are the same in a flag); remove one of them")
        for flag in sorted({flag for flag in flags if flags.count(flag) > 1})
    ]
    variables = [variable.name for variable in engine.env]
    found += [
        Problem(Reason.OWNED_FLAG, f"spec.engine.env sets {name}, which Graftwork owns because serving depends on it; remove it")
        for name in variables
        if name in OWNED_ENV or name.startswith(OWNED_ENV_PREFIXES)
    ]
    found += [
        Problem(Reason.INVALID_SPEC, f"spec.engine.env sets {name} twice; remove one of them")
        for name in sorted({name for name in variables if variables.count(name) > 1})
    ]
    return found


def owned_flag(name: str) -> str | None:
    """Return the flag of Graftwork's that vLLM would take this name for: in any spelling, negated, dotted, short or abbreviated."""
    head = flag_name(name).partition(".")[0].rstrip("+").lower()
    for spelling in (head, head.removeprefix("no-")):
        if spelling in OWNED_FLAGS:
            return spelling
        if _SHORT.get(spelling) in OWNED_FLAGS:
            return _SHORT[spelling]
        if len(spelling) > 1:
            for flag in OWNED_FLAGS:  # argparse takes any unique beginning of a flag for the flag
                if flag.startswith(spelling) and spelling not in _SHORT:
                    return flag
    return None


def _flag_problem(name: str) -> Problem | None:
    flag = owned_flag(name)
    if flag:
        same = "" if flag_name(name) == flag else f" (vLLM takes it for --{flag})"
        return Problem(Reason.OWNED_FLAG, f"spec.engine.args sets {name!r}{same}, which Graftwork owns: {OWNED_FLAGS[flag]}")
    spelled = flag_name(name)
    if spelled in _SHORT:
        return Problem(Reason.INVALID_SPEC, f"spec.engine.args sets {name!r}, a short form; write {_SHORT[spelled]!r}")
    return None


def command() -> list[str]:
    """Return the container's command: the entrypoint that turns vLLM's exit codes and signals into what Kubernetes understands."""
    return ["python3", f"{BIN}/entrypoint.py"]


def arguments(deployment: LLMDeployment, mode: Mode = ADAPTERS_ON) -> list[str]:
    """Return what the entrypoint runs: `vllm serve` with Graftwork's flags, the spec's, and engine.args by name."""
    spec = deployment.spec
    flags = [
        "--host=0.0.0.0",
        f"--port={spec.service.port}",
        f"--served-model-name={deployment.served_name}",
        "--middleware=graftwork_guard.Guard",
        *([] if mode.without_lora else _adapter_flags(deployment)),
        *([f"--runner={mode.runner}"] if mode.runner else []),
        f"--shutdown-timeout={spec.rollout.answer_seconds}",
        f"--disable-access-log-for-endpoints={QUIET_PATHS}",
        "--disable-fastapi-docs",
    ]
    return ["vllm", "serve", MODEL, *flags, *_spec_flags(deployment), *(_flag(name, spec.engine.args[name]) for name in sorted(spec.engine.args))]


def _adapter_flags(deployment: LLMDeployment) -> list[str]:
    adapters = deployment.spec.adapters
    return [
        "--enable-lora",
        f"--max-loras={adapters.max_loaded}",
        f"--max-lora-rank={adapters.max_rank if adapters.max_rank != 'auto' else capacity.LEAST_RANK}",
        f"--max-cpu-loras={capacity.kept_in_host_memory(adapters.max_loaded)}",
    ]


def _spec_flags(deployment: LLMDeployment) -> list[str]:
    engine, accelerator = deployment.spec.engine, deployment.spec.accelerator
    flags = []
    if engine.max_model_len != "auto":
        flags.append(f"--max-model-len={engine.max_model_len}")
    if not accelerator.cpu:
        flags.append(f"--gpu-memory-utilization={engine.gpu_memory_utilization}")
    if engine.dtype != "auto":
        flags.append(f"--dtype={engine.dtype}")
    if engine.max_num_seqs != "auto":
        flags.append(f"--max-num-seqs={engine.max_num_seqs}")
    if engine.enforce_eager:
        flags.append("--enforce-eager")
    return [*flags, *engine_fields.flags(deployment)]


def _flag(name: str, value: str | float | bool | None) -> str:
    flag = flag_name(name)
    if value is None or value is True:
        return f"--{flag}"
    if value is False:
        return f"--no-{flag}"
    return f"--{flag}={value}"


def environment(deployment: LLMDeployment, mode: Mode = ADAPTERS_ON) -> list[dict[str, str]]:
    """Return the engine's environment; an empty value is left out, as the API server does."""
    spec = deployment.spec
    own = {
        **({} if mode.without_lora else {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}),
        "VLLM_USE_RUST_FRONTEND": "0",
        "VLLM_PLUGINS": "",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HOME": HOME,
        "USER": "graftwork",
        "PYTHONPATH": BIN,
        "GRAFTWORK_RUN_DIR": RUN,
        "GRAFTWORK_DRAIN_SECONDS": str(spec.rollout.drain_seconds),
        "GRAFTWORK_SERVED_NAME": deployment.served_name,
    }
    if spec.service.api_keys_secret:
        own["GRAFTWORK_KEYS"] = "required"
    if spec.accelerator.cpu:
        own["VLLM_CPU_KVCACHE_SPACE"] = "1"
        own["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while they wait take the cores from whoever shares the node
        # vLLM binds its worker to the first cores that the container may use. Those are the same for every pod of a node, unless the kubelet
        # gives whole cores away (CPU manager policy static): three engines on two cores shared one of them, and the other was half idle.
        own["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    own.update({variable.name: variable.value for variable in spec.engine.env})
    return [pods.env(name, value) for name, value in own.items()]


def container_port(deployment: LLMDeployment) -> int:
    """Return the port that the engine listens on, which is the Service's too."""
    return deployment.spec.service.port or names.PORT_ENGINE
