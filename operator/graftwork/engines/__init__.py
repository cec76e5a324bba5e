"""What the pinned vLLM takes: flags, methods, parsers, architectures. The table is made by `make engine-tables` from vLLM itself.

An end-to-end test compares it with the engine that runs. Enums of the API come from it, so what no engine knows is refused at `kubectl apply`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

VERSION = "0.32.0"
GENERATE, EMBED, CLASSIFY = "generate", "embed", "classify"
_BY_SUFFIX = (
    *((suffix, GENERATE) for suffix in ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")),
    *((suffix, EMBED) for suffix in ("ForTextEncoding", "EmbeddingModel")),
    *((f"For{kind}Classification", CLASSIFY) for kind in ("Sequence", "Token", "Audio", "Image", "Video")),
    ("ClassificationModel", CLASSIFY),
    *((suffix, EMBED) for suffix in ("ForRewardModeling", "RewardModel", "Model")),
)
"""vllm/config/model.py, _SUFFIX_TO_DEFAULTS, in its order: what an architecture without a class of its own is for."""


@dataclass(frozen=True)
class Architecture:
    """What vLLM's class for an architecture supports. `pooling`: it answers with vectors or scores instead of text; `transcription`: nothing else."""

    lora: bool
    multimodal: bool
    pooling: bool
    transcription: bool = False


class Tables:
    """One version's tables, as `make engine-tables` wrote them."""

    def __init__(self, text: str) -> None:
        found = json.loads(text)
        self.version: str = found["version"]
        self.dtypes: tuple[str, ...] = tuple(found["dtypes"])
        self.kv_cache_dtypes: tuple[str, ...] = tuple(found["kvCacheDtypes"])
        self.reasoning_parsers: tuple[str, ...] = tuple(found["reasoningParsers"])
        self.tool_parsers: tuple[str, ...] = tuple(found["toolParsers"])
        self.speculative_methods: tuple[str, ...] = tuple(found["speculativeMethods"])
        self.quantization: tuple[str, ...] = tuple(name for name, method in found["quantization"].items() if not method.get("deprecated"))
        """Methods that vLLM takes without --allow-deprecated-quantization."""
        self.deprecated: tuple[str, ...] = tuple(name for name, method in found["quantization"].items() if method.get("deprecated"))
        self._activations: Mapping[str, list[str]] = {name: method.get("activations", []) for name, method in found["quantization"].items()}
        self._aliases: Mapping[str, list[str]] = {name: flag.get("aliases", []) for name, flag in found["flags"].items()}
        self._architectures: Mapping[str, list[str]] = found["architectures"]

    def activations(self, method: str) -> tuple[str, ...]:
        """Return the types of activations that a quantization method supports; nothing where that is not known."""
        return tuple(self._activations.get(method, ()))

    def architecture(self, name: str) -> Architecture | None:
        """Return what vLLM's class for an architecture supports; None for one that it has no class for."""
        supported = self._architectures.get(name)
        if supported is None:
            return None
        return Architecture(**{what: what in supported for what in ("lora", "multimodal", "pooling", "transcription")})

    def served_as(self, name: str) -> str:
        """Return the architecture whose class serves `name` (model_executor/models/registry.py, _normalize_arch); itself where nobody knows."""
        if name in self._architectures:
            return name
        suffix = next((suffix for suffix, _ in _BY_SUFFIX if name.endswith(suffix)), "")
        others = (name.replace(suffix, other) for other, _ in _BY_SUFFIX) if suffix else ()
        return next((other for other in others if other in self._architectures), name)

    def task(self, name: str) -> str:
        """Return what vLLM's `--runner auto` takes an architecture for: generate, embed or classify (config/model.py, _get_default_runner_type)."""
        meant = next((task for suffix, task in _BY_SUFFIX if name.endswith(suffix)), GENERATE)
        known = self.architecture(name)
        if known is None:
            return meant
        if not known.pooling:
            return GENERATE
        return CLASSIFY if meant == CLASSIFY else EMBED

    def flag(self, name: str) -> str | None:
        """Return the flag that argparse would take a long name (without dashes) for: itself, an alias, or any unique beginning of one."""
        exact = self._spellings.get(name)
        if exact:
            return exact
        begun = {flag for spelling, flag in self._spellings.items() if spelling.startswith(name) and len(spelling) > 3}
        return begun.pop() if len(begun) == 1 and len(name) > 1 else None

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {spelling: flag for flag, aliases in self._aliases.items() for spelling in (flag, *aliases)}


TABLES = Tables(files(__package__).joinpath(f"vllm-{VERSION}.json").read_text(encoding="utf-8"))
