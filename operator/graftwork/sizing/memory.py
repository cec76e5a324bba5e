"""What an engine needs of a GPU's memory, as terms with their arithmetic.

    needed per GPU = weights + KV cache of one request of the longest context + LoRA slots + what the engine takes beside

Places in vLLM 0.32.0: the KV cache of a layer is `2 x block x kv heads x head size` values (v1/kv_cache_interface.py, AttentionSpec); with latent
attention it is one vector of `kv_lora_rank + qk_rope_head_dim` (model_executor/layers/attention/mla_attention.py), on every GPU of a tensor group.
KV heads are shared among the GPUs of a tensor group, and repeated where there are fewer heads than GPUs (model_executor/models/llama.py).
LoRA slots are set aside in full: `max_loras` x A and B at `max_lora_rank` for each linear layer (lora/layers/*.py), of which tensor parallelism
divides B of layers that are split by columns, and A of those that are split by rows; embedding and head have theirs whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from graftwork.facts.inspected import ModelFacts

MIB, GIB = 2**20, 2**30
ENGINE_BYTES = 2 * GIB
"""Stated, not computed: CUDA context, NCCL, the largest batch's activations, CUDA graphs. vLLM measures them at its start, and says so in its log."""
ROPE_HEAD_DIM = 64
"""qk_rope_head_dim of DeepSeek-V2, V3 and their kin; the facts do not have it."""
LORA_BYTES = 2
"""Of a value in a slot: LoRA weights are 16 bits wide (--lora-dtype auto)."""
_PLAUSIBLE_WIDTH = 10
"""An MLP that is more than so many times as wide as the model is a mixture of experts, seen as one."""
_BITS: dict[str, Fraction] = {
    "float32": Fraction(32),
    "float16": Fraction(16),
    "bfloat16": Fraction(16),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_per_token_head", "int8_per_token_head"), Fraction(8)),
    "int4_per_token_head": Fraction(4),
    "nvfp4": Fraction(9, 2),  # a scale of 8 bits for 16 values
}
_ONLINE: dict[str, Fraction] = {
    **dict.fromkeys(("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel"), Fraction(8)),
    "mxfp8": Fraction(33, 4),  # a scale of 8 bits for 32 values
    "mxfp4": Fraction(17, 4),
}
_OF_EXPERTS = ("int8_per_channel_weight_only", "experts_int8", "nvfp4_per_token")
"""Methods that quantize, while loading, the experts of a mixture and nothing else (model_executor/layers/quantization/online)."""


@dataclass(frozen=True)
class Term:
    """One part of the need. `bytes` None: not known, and `how` says why."""

    name: str
    bytes: int | None
    how: str


@dataclass(frozen=True)
class Asked:
    """What of the spec memory depends on. `tensor`, `pipeline`: GPUs that share each layer, and groups that have the layers one after another."""

    tensor: int = 1
    pipeline: int = 1
    context: int | None = None
    """maxModelLen; None: what the model allows."""
    dtype: str = "auto"
    kv_dtype: str = "auto"
    quantization: str = ""
    slots: int = 0
    rank: int = 0

    @property
    def gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor * self.pipeline


def terms(facts: ModelFacts, asked: Asked) -> tuple[Term, ...]:
    """Return what one GPU of the engine needs, for one request of the longest context."""
    return (weights(facts, asked), kv_cache(facts, asked), lora_slots(facts, asked), engine())


def engine() -> Term:
    """Return what the engine takes beside model and cache."""
    return Term("engine", ENGINE_BYTES, "stated: CUDA context, activations, CUDA graphs; the engine measures them at its start")


def needed(parts: tuple[Term, ...]) -> int:
    """Return the sum of what is known."""
    return sum(part.bytes or 0 for part in parts)


def served_dtype(facts: ModelFacts, asked: Asked) -> str:
    """Return the type that the engine computes with: as asked, else the checkpoint's, of which vLLM makes 16 bits if it has 32."""
    if asked.dtype != "auto":
        return asked.dtype
    return facts.dtype if facts.dtype in ("float16", "bfloat16") else "bfloat16"


def weights(facts: ModelFacts, asked: Asked) -> Term:
    """Return the weights of one GPU: shared evenly; what is repeated on each (norms) is too little to count."""
    if facts.quantization:
        total, how = facts.weights_bytes, f"{facts.weights_bytes} bytes of files ({facts.quantization})"
    elif asked.quantization in _OF_EXPERTS:
        return Term("weights", None, f"depends on the share of experts, which alone {asked.quantization} quantizes")
    elif asked.quantization in _ONLINE:
        total, how = _quantized(facts, _ONLINE[asked.quantization], asked)
    else:
        dtype = served_dtype(facts, asked)
        size = int(_BITS.get(dtype, Fraction(16)) / 8)
        total, how = facts.parameters * size, f"{facts.parameters} parameters x {size} bytes ({dtype})"
        if not facts.parameters:
            total, how = facts.weights_bytes, f"{facts.weights_bytes} bytes of files"
    shared = f" / {asked.gpus} GPUs" if asked.gpus > 1 else ""
    return Term("weights", ceil(total / asked.gpus), how + shared)


def _quantized(facts: ModelFacts, bits: Fraction, asked: Asked) -> tuple[int, str]:
    """Quantize while loading: linear layers only; embedding and head stay as they are."""
    whole = min(facts.parameters, 2 * (facts.vocab_size or 0) * (facts.hidden_size or 0))
    total = ceil((facts.parameters - whole) * bits / 8) + whole * 2
    return total, f"{facts.parameters - whole} parameters x {float(bits / 8):g} bytes ({asked.quantization}) + {whole} of embedding and head x 2"


def context(facts: ModelFacts, asked: Asked) -> int | None:
    """Return the longest context of a request."""
    return asked.context or facts.max_model_len


def kv_bytes_per_token(facts: ModelFacts, asked: Asked) -> Term:
    """Return what one token takes in the KV cache of one GPU, as though each layer looked at the whole context."""
    name = "KV cache of a token"
    dtype = asked.kv_dtype if asked.kv_dtype != "auto" else served_dtype(facts, asked)
    bits = _BITS.get(dtype)
    if bits is None:
        return Term(name, None, f"how many bits a value has as {dtype} is not known here")
    if not facts.layers:
        return Term(name, None, "the facts do not say how many layers the model has")
    layers = ceil(facts.layers / asked.pipeline)
    shown = f"{float(bits / 8):g} bytes ({dtype})"
    if facts.kv_lora_rank:
        values = layers * (facts.kv_lora_rank + ROPE_HEAD_DIM)
        return Term(name, ceil(values * bits / 8), f"{layers} layers x ({facts.kv_lora_rank} + {ROPE_HEAD_DIM}) x {shown}, latent attention")
    if not facts.kv_heads or not facts.head_dim:
        return Term(name, None, "the facts do not say how many heads the model has")
    heads = max(1, ceil(facts.kv_heads / asked.tensor))
    kind = "" if facts.heads in (None, facts.kv_heads) else f", {facts.heads} heads share {facts.kv_heads}"
    values = 2 * layers * heads * facts.head_dim
    return Term(name, ceil(values * bits / 8), f"2 x {layers} layers x {heads} heads x {facts.head_dim} x {shown}{kind}")


def kv_cache(facts: ModelFacts, asked: Asked) -> Term:
    """Return the KV cache of one request of the longest context: the least with which the engine starts."""
    token, tokens = kv_bytes_per_token(facts, asked), context(facts, asked)
    if token.bytes is None:
        return Term("KV cache", None, token.how)
    if not tokens:
        return Term("KV cache", None, f"{token.bytes} bytes a token; the model does not say how long a context may be: set engine.maxModelLen")
    return Term("KV cache", tokens * token.bytes, f"{tokens} tokens (one request) x {token.bytes} bytes: {token.how}")


def lora_slots(facts: ModelFacts, asked: Asked) -> Term:
    """Return what is set aside for adapters in one GPU, used or not."""
    if not asked.slots:
        return Term("LoRA slots", 0, "none: adapters are off")
    values, why = _lora_values(facts, asked.tensor)
    if values is None or not facts.layers:
        return Term("LoRA slots", None, why)
    layers = ceil(facts.layers / asked.pipeline)
    ends = 2 * ((facts.vocab_size or 0) + (facts.hidden_size or 0))
    slot = (layers * values + ends) * asked.rank * LORA_BYTES
    how = f"{asked.slots} slots x rank {asked.rank} x ({layers} layers x {values} + {ends} of embedding and head) x {LORA_BYTES} bytes"
    return Term("LoRA slots", asked.slots * slot, how)


def _lora_values(facts: ModelFacts, tensor: int) -> tuple[int | None, str]:
    """Return the values of one rank's A and B in one layer of one GPU: query, key, value, output, gate, up and down."""
    if facts.kv_lora_rank:
        return None, "not computed for latent attention"
    hidden, heads, kv_heads, size = facts.hidden_size, facts.heads, facts.kv_heads, facts.head_dim
    if not (facts.layers and hidden and heads and kv_heads and size):
        return None, "the facts do not say the model's shapes"
    query, key = heads * size, kv_heads * size
    width = _mlp_width(facts, hidden * (2 * query + 2 * key))
    if width is None:
        return None, "not computed: the facts do not say how wide the model's MLP is (quantized weights, or a mixture of experts)"
    attention = 2 * (hidden + ceil(query / tensor)) + 2 * (hidden + ceil(key / min(tensor, kv_heads)))
    return attention + 3 * (hidden + ceil(width / tensor)), ""


def _mlp_width(facts: ModelFacts, attention: int) -> int | None:
    """Return how wide the MLP can be at most: what the number of parameters leaves of it, with one matrix for embedding and head."""
    if facts.quantization or not (facts.layers and facts.hidden_size and facts.vocab_size):
        return None
    rest = facts.parameters - facts.vocab_size * facts.hidden_size - facts.layers * attention
    width = rest // (3 * facts.hidden_size * facts.layers)
    return width if 0 < width <= _PLAUSIBLE_WIDTH * facts.hidden_size else None


def adapter_bytes(facts: ModelFacts, rank: int) -> int | None:
    """Return what one adapter of this rank takes in host memory; None where that is not known."""
    return lora_slots(facts, Asked(slots=1, rank=rank)).bytes
