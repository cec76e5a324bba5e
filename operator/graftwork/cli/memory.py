"""The memory terms of `kubectl graft plan`: what the engine will need, each number with its arithmetic, and what its pod asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graftwork.api import LLMDeployment
from graftwork.facts.inspected import ModelFacts, Resolved
from graftwork.plan import sized
from graftwork.sizing import memory, startup
from graftwork.sizing.memory import GIB, MIB, Asked, Term

Row = tuple[str, str, str]
UNKNOWN = (
    "Memory: not known, because nobody has looked the model up yet. The operator does that for an hf:// or s3:// source before it makes a pod; "
    "--facts FILE or --model DIR tell it here."
)


@dataclass(frozen=True)
class How:
    """How the model comes to the engine, and is served by it. `computed`: the operator itself knows the facts, and computes what the pod asks for."""

    computed: bool
    downloaded: bool
    adapters: bool = True


def render(deployment: LLMDeployment, known: Resolved | None, how: How, *, gpu_bytes: int | None = None) -> str:
    """Return the section."""
    if known is None:
        return UNKNOWN
    asked = sized.asked(deployment, adapters=how.adapters)
    if deployment.spec.accelerator.cpu:
        title, rows = "Memory of the engine, on CPUs:", list(_cpu(deployment, known.facts, asked))
    else:
        shared = f" (tensor {asked.tensor} x pipeline {asked.pipeline})" if asked.gpus > 1 else ""
        title, rows = f"Memory of each GPU{shared}:", list(_gpu(deployment, known.facts, asked, gpu_bytes))
    pod = list(_pod(deployment, known if how.computed else None, known.facts, how))
    return f"{_table(title, rows)}\n\n{_table('Pod:', pod)}"


def _table(title: str, rows: list[Row]) -> str:
    names, sizes = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    return "\n".join([title, *(f"  {name:<{names}}  {size:>{sizes}}  {how}".rstrip() for name, size, how in rows)])


def _row(term: Term) -> Row:
    return (term.name, "not known" if term.bytes is None else _size(term.bytes), term.how)


def _gpu(deployment: LLMDeployment, facts: ModelFacts, asked: Asked, gpu_bytes: int | None) -> Iterator[Row]:
    terms = memory.terms(facts, asked)
    needed = memory.needed(terms)
    missing = ", without what is not known" if any(term.bytes is None for term in terms) else ""
    yield from (_row(term) for term in terms)
    yield ("needed", _size(needed), f"for one request of the longest context{missing}; more at once need more KV cache")
    if gpu_bytes is None:
        yield ("GPU", "not said", "no field of the spec has the size of a GPU's memory; --gpu-memory 80Gi tells what is left")
        return
    share = deployment.spec.engine.gpu_memory_utilization
    room = int(gpu_bytes * share)
    yield ("GPU", _size(gpu_bytes), f"x gpuMemoryUtilization {share:g} = {_size(room)} for the engine: {_left(facts, asked, terms, room - needed)}")


def _left(facts: ModelFacts, asked: Asked, terms: tuple[Term, ...], left: int) -> str:
    """Return what of a GPU is left, in tokens if that is known."""
    token, cache = memory.kv_bytes_per_token(facts, asked).bytes, next((term.bytes for term in terms if term.name == "KV cache"), None)
    if left >= 0:
        tokens = f", {(cache + left) // token} tokens of KV cache in all" if token and cache is not None else ""
        return f"{_size(left)} are left{tokens}"
    if token and cache and cache + left >= token:
        return f"{_size(-left)} too little; with engine.maxModelLen {(cache + left) // token} it would fit"
    return f"{_size(-left)} too little; take a larger GPU, or more of them (accelerator.count)"


def _cpu(deployment: LLMDeployment, facts: ModelFacts, asked: Asked) -> Iterator[Row]:
    yield _row(memory.weights(facts, asked))
    space, request = sized.kv_space_bytes(deployment), memory.kv_cache(facts, asked)
    token = memory.kv_bytes_per_token(facts, asked).bytes
    if space is None:
        yield ("KV cache", "not known", f"{sized.CPU_KV_SPACE} of engine.env is no whole number of GiB, or a flag says it")
    else:
        holds = f": {space // token} tokens of {token} bytes" if token else ""
        yield ("KV cache", _size(space), f"{sized.CPU_KV_SPACE}{holds}")
        if token and request.bytes and request.bytes > space:
            more = -(-request.bytes // GIB)
            yield ("one request", _size(request.bytes), f"too much: set engine.maxModelLen to {space // token}, or {sized.CPU_KV_SPACE} to {more}")
    yield _row(memory.lora_slots(facts, asked))


def _pod(deployment: LLMDeployment, known: Resolved | None, facts: ModelFacts, how: How) -> Iterator[Row]:
    found = sized.sizes(deployment, known, downloaded=how.downloaded, adapters=how.adapters)
    if known is None:
        yield ("vllm", "", "has what spec.pod.resources says: only a model that the operator looks up (hf://, s3://) has computed requests")
    else:
        for side in ("requests", "limits"):
            amounts = ", ".join(f"{key} {value}" for key, value in (found.resources.get(side) or {}).items())
            yield (side, "", f"{amounts or 'nothing'}, beside what spec.pod.resources says")
        if found.need:
            yield ("memory", _size(found.need.request_bytes), f"is requested: {found.need.how}")
        yield ("/dev/shm", found.shm or "no limit", "memory of the pod, counted against its limit")
        if found.model:
            yield ("model", found.model, "room on the node for its files: their size x 1.1 + 256 MiB")
    clock = startup.engine_seconds(facts.weights_bytes, cpu=deployment.spec.accelerator.cpu, eager=deployment.spec.engine.enforce_eager)
    given = deployment.spec.rollout.deadline_seconds
    seconds = min(given or clock, found.startup_seconds - startup.PROBE_MARGIN_SECONDS)
    why = "by the size of the weights" if given is None else "as spec.rollout.progressDeadline says"
    yield (
        "startup",
        f"{seconds:.0f} s",
        f"{why}, then a new revision is given up; the kubelet ends the engine after {found.startup_seconds} s",
    )


def _size(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB // 10 else f"{size / MIB:.1f} MiB"
