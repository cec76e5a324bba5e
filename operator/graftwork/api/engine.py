"""The engine's part of an LLMDeployment: vLLM's settings, with the names that the pinned vLLM takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from graftwork.api import cel
from graftwork.api.base import Model, field
from graftwork.api.common import INT_OR_STRING, EnvVar
from graftwork.engines import TABLES

AUTO = "auto"
OWN_WEIGHTS = ("dspark", "mtp", "ngram", "ngram_gpu")
"""Speculative methods that need no second model and no package that the engine's image lacks (vllm/config/speculative.py, __post_init__)."""


def _one_of(*names: str) -> Callable[[str], str]:
    """Return the check of a text that is one of `names`: objects that are stored already were admitted by another CRD's enum."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is none of what vLLM {TABLES.version} takes: {', '.join(names)}")
        return value

    return check


def _enum(*names: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}


MaxModelLen = Annotated[Annotated[int, Field(ge=1, le=10_000_000)] | Literal["auto"], WithJsonSchema(INT_OR_STRING)]
MaxNumSeqs = Annotated[Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"], WithJsonSchema(INT_OR_STRING)]
TensorParallel = Annotated[Annotated[int, Field(ge=1, le=16)] | Literal["auto"], WithJsonSchema(INT_OR_STRING)]
# No type: a structural schema has none for "string, number, truth value or null". Objects and lists that hold anything are refused.
FlagValue = Annotated[
    bool | int | float | Annotated[str, Field(max_length=4096)] | None,
    WithJsonSchema({"nullable": True, "x-kubernetes-preserve-unknown-fields": True, "maxLength": 4096, "maxProperties": 0, "maxItems": 0}),
]
_METHODS = tuple(name for name in OWN_WEIGHTS if name in TABLES.speculative_methods)
Quantization = Annotated[str, AfterValidator(_one_of(AUTO, *TABLES.quantization)), WithJsonSchema(_enum(AUTO, *TABLES.quantization))]
KvCacheDtype = Annotated[str, AfterValidator(_one_of(*TABLES.kv_cache_dtypes)), WithJsonSchema(_enum(*TABLES.kv_cache_dtypes))]
ReasoningParser = Annotated[str, AfterValidator(_one_of(*TABLES.reasoning_parsers)), WithJsonSchema(_enum(*TABLES.reasoning_parsers))]
ToolParser = Annotated[str, AfterValidator(_one_of(*TABLES.tool_parsers)), WithJsonSchema(_enum(*TABLES.tool_parsers))]
SpeculativeMethod = Annotated[str, AfterValidator(_one_of(*_METHODS)), WithJsonSchema(_enum(*_METHODS))]


class Speculative(Model):
    """Tokens that are guessed ahead and checked by the model in one step."""

    method: SpeculativeMethod = field(
        doc="`ngram` (`ngram_gpu`: on the GPU) repeats what followed the same words earlier in the text; `mtp` and `dspark` use layers for it "
        "that are among the model's own weights. Methods with a second model are not offered.",
        restarts=True,
    )
    tokens: int = field(doc="Tokens guessed per step.", unit="tokens", restarts=True, ge=1, le=64)


class Reasoning(Model):
    """Answers that think first."""

    parser: ReasoningParser = field(
        doc="vLLM's parser of the model's thinking (`--reasoning-parser`): what it recognizes comes as `reasoning` beside `content`. One that does "
        "not fit the model's tokenizer ends the engine at its start.",
        restarts=True,
    )


class ToolCalling(Model):
    """Calls of tools that the client offers."""

    parser: ToolParser = field(
        doc="vLLM's parser of the model's calls (`--tool-call-parser`, with `--enable-auto-tool-choice`): a request's `tools` may be called when "
        "the model finds it right (`tool_choice: auto`).",
        restarts=True,
    )


class Parallelism(Model):
    """How the GPUs of one pod serve the model: tensor x pipeline share it, data copies it. No engine spans nodes."""

    tensor: TensorParallel = field(
        "auto",
        doc="GPUs that share each layer (`--tensor-parallel-size`); it has to divide the model's attention heads. `auto`: the pod's GPUs divided by "
        "`pipeline` and `data`.",
        unit="GPUs",
        restarts=True,
        rules=(cel.int_or_auto("engine.parallelism.tensor", 1, 16),),
    )
    pipeline: int = field(
        1, doc="Groups of GPUs that have the layers one after another (`--pipeline-parallel-size`).", unit="groups", restarts=True, ge=1, le=16
    )
    data: int = field(
        1,
        doc="Copies of the model that share the pod's requests (`--data-parallel-size`); above 1, tensor x pipeline x data has to be "
        "accelerator.count. "
        "One server stands before all of them, which loads each adapter into every copy. Mostly `replicas` are the better copies: each can be "
        "replaced and scaled by itself.",
        unit="copies",
        restarts=True,
        ge=1,
        le=16,
    )


class Engine(Model):
    """vLLM's settings."""

    image: str = field(
        "", doc="Image of the engine. Empty: the one of the operator's configuration.", restarts=True, max_length=512, pattern=r"^\S*$"
    )
    max_model_len: MaxModelLen = field(
        "auto",
        doc="Longest context. `auto`: what vLLM takes from the model.",
        unit="tokens",
        restarts=True,
        rules=(cel.int_or_auto("engine.maxModelLen", 1, 10_000_000),),
    )
    gpu_memory_utilization: float = field(0.9, doc="Share of a GPU's memory that vLLM may use; without meaning on CPU.", restarts=True, gt=0, le=1)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field("auto", doc="Type of the weights and activations.", restarts=True)
    quantization: Quantization | None = field(
        None,
        doc="How the weights are quantized. `auto`, or left out: as the checkpoint says (AWQ, GPTQ, FP8, compressed-tensors and the like need "
        "nothing else; a name that differs from what the checkpoint says ends the engine). `fp8`, `fp8_per_tensor`, `fp8_per_block`, "
        "`fp8_per_channel`, `mxfp8`, `mxfp4`: quantize a plain model while it is loaded.",
        restarts=True,
    )
    kv_cache_dtype: KvCacheDtype | None = field(
        None,
        doc="Type of the KV cache. `auto`, or left out: as the weights, or as the checkpoint says. `fp8` halves what a token takes, for a little "
        "accuracy.",
        restarts=True,
    )
    max_num_seqs: MaxNumSeqs = field(
        "auto",
        doc="Most requests that run at once. `auto`: vLLM's default.",
        unit="requests",
        restarts=True,
        rules=(cel.int_or_auto("engine.maxNumSeqs", 1, 65_536),),
    )
    enforce_eager: bool = field(False, doc="Run without compilation and CUDA graphs: starts faster, answers slower.", restarts=True)
    prefix_caching: bool | None = field(
        None,
        doc="Whether requests that begin alike share their KV cache. Left out: vLLM's default, which is yes where the model can.",
        restarts=True,
    )
    parallelism: Parallelism | None = field(
        None, doc="How the GPUs of one pod share the model. Left out: all of them share each layer (`tensor`).", restarts=True
    )
    speculative: Speculative | None = field(None, doc="Guess tokens ahead, and check them in one step. Left out: no.", restarts=True)
    reasoning: Reasoning | None = field(
        None, doc="For models that think before they answer. Left out: what they think is part of the answer.", restarts=True
    )
    tool_calling: ToolCalling | None = field(None, doc="For models that call tools. Left out: calls are part of the answer's text.", restarts=True)
    trust_remote_code: bool | None = field(
        None,
        doc="Run the Python code that comes with the model, in all of the engine's processes. Left out: no. Only for models "
        "whose code you have read.",
        restarts=True,
    )
    args: dict[str, FlagValue] = field(
        default_factory=dict,
        doc="Any other flag of `vllm serve`, by name without leading dashes: true or null sets a flag without value, false sets `--no-<flag>`. "
        "Flags that Graftwork owns are refused by name, and those of a field of `engine` when the field is set.",
        restarts=True,
        max_length=64,
    )
    env: tuple[EnvVar, ...] = field(
        (),
        doc="Environment variables of the engine, literal values only. Those that Graftwork owns are refused by name.",
        restarts=True,
        key="name",
        max_length=64,
    )

    @field_validator("quantization", "kv_cache_dtype", "trust_remote_code")
    @classmethod
    def _as_left_out(cls, value: str | bool | None) -> str | bool | None:
        """Return nothing for what says the same as nothing: to write it out makes no other template."""
        return None if value in (AUTO, False) else value

    @field_validator("args")
    @classmethod
    def _flag_names(cls, args: dict[str, FlagValue]) -> dict[str, FlagValue]:
        """Refuse leading dashes here: CEL cannot see the keys of a map whose values have no type."""
        for name in args:
            if not name or name.startswith("-") or "=" in name or any(letter.isspace() for letter in name):
                raise ValueError(
                    f"flag {name!r} must be a name without leading dashes, blanks or =; write {name.lstrip('-').split('=')[0].strip()!r}"
                )
        return args
