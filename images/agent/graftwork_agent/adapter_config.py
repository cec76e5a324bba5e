"""`adapter_config.json`: whether vLLM can serve what it describes, and which rank each module has."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork_agent.refusal import Refusal

_LIMIT_BYTES = 4 << 20
MOST_RANK = 512
"""The largest rank that vLLM can be started for."""
# field, what vLLM 0.32 says of it when it is set
_UNSUPPORTED_FIELDS = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in the adapter",
    "modules_to_save": "whole modules in the adapter",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "trainable_token_indices": "trained token rows",
    "target_parameters": "LoRA on bare parameters",
}
# Of these the saved adapter is a plain LoRA; any other initialisation changed the base's weights too.
_PLAIN_INIT = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_NAME_LIMIT = 300
_PATTERN_LIMIT = 300
_PATTERN_REPEATS = 2
_PATTERNS_LIMIT = 1024
_NAMES_LIMIT_CHARACTERS = 256 << 10  # of a manifest's limit, a quarter


@dataclass(frozen=True)
class LoraConfig:
    """What of the config the check of tensors and the manifest need."""

    rank: int
    rank_pattern: dict[str, int]
    fan_in_fan_out: bool
    scale: float = 1.0
    """What the values of lora_B are multiplied by, at most."""
    target_modules: tuple[str, ...] = ()
    base: str = ""
    base_revision: str = ""

    @property
    def max_rank(self) -> int:
        """The largest rank of any module."""
        return max([self.rank, *self.rank_pattern.values()])

    def rank_of(self, module: str) -> int:
        """The rank of a module; a pattern is a regular expression for the end of its name, as in peft."""
        for pattern, rank in self.rank_pattern.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return rank
        return self.rank


def read_config(folder: Path) -> LoraConfig:
    """Read and judge adapter_config.json; raises Refusal (ConfigInvalid or Unsupported)."""
    path = folder / "adapter_config.json"
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise Refusal("ConfigInvalid", f"adapter_config.json: {size} bytes, the limit is {_LIMIT_BYTES}")
        raw = json.loads(path.read_bytes(), parse_constant=_no_constant)
        json.dumps(raw, ensure_ascii=False).encode()  # half of a surrogate pair is in no text that is written anywhere
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal("ConfigInvalid", f"adapter_config.json: cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict):
        raise Refusal("ConfigInvalid", f"adapter_config.json: is a {type(raw).__name__}, must be an object")
    if raw.get("peft_type") != "LORA":
        raise Refusal("ConfigInvalid", f"adapter_config.json: peft_type {raw.get('peft_type')!r}, must be 'LORA'")
    _check_supported(raw)
    rank = _rank("r", raw.get("r"))
    alphas = [_alpha("lora_alpha", raw.get("lora_alpha"))]
    for key, value in _mapping(raw, "alpha_pattern").items():
        _pattern("alpha_pattern", key)
        alphas.append(_alpha(f"alpha_pattern[{key}]", value))
    if not isinstance(raw.get("target_modules"), (str, list)) or not raw["target_modules"]:
        raise Refusal("ConfigInvalid", f"adapter_config.json: target_modules {raw.get('target_modules')!r}, must name at least one module")
    patterns = {_pattern("rank_pattern", key): _rank(f"rank_pattern[{key}]", value) for key, value in _mapping(raw, "rank_pattern").items()}
    return LoraConfig(
        rank=rank,
        rank_pattern=patterns,
        fan_in_fan_out=bool(raw.get("fan_in_fan_out", False)),
        scale=_scale(alphas, min([rank, *patterns.values()]), rank_stabilized=bool(raw.get("use_rslora"))),
        target_modules=_names(raw["target_modules"]),
        base=_text(raw.get("base_model_name_or_path")),
        base_revision=_text(raw.get("revision")),
    )


def _check_supported(raw: Mapping[str, Any]) -> None:
    for field, what in _UNSUPPORTED_FIELDS.items():
        if raw.get(field):
            raise Refusal("Unsupported", f"adapter_config.json: {field} is {raw[field]!r}; vLLM cannot serve {what}")
    if raw.get("bias", "none") not in ("none", None):
        raise Refusal("Unsupported", f"adapter_config.json: bias is {raw['bias']!r}, must be 'none'; vLLM cannot serve an adapter's bias")
    init = raw.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INIT:
        raise Refusal(
            "Unsupported",
            f"adapter_config.json: init_lora_weights is {init[:_NAME_LIMIT]!r}, must be true, false or one of {', '.join(_PLAIN_INIT)}; "
            "others change the base: save it as a plain LoRA",
        )


def _mapping(raw: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is a {type(value).__name__}, must be an object")
    if len(value) > _PATTERNS_LIMIT:
        raise Refusal(
            "Unsupported",
            f"adapter_config.json: {field} has {len(value)} entries, the limit is {_PATTERNS_LIMIT}; each is matched with every module, also in "
            "the engine: use patterns of several modules",
        )
    return value


def _rank(field: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is {_quoted(value)}, must be a whole number of at least 1")
    if value > MOST_RANK:
        raise Refusal(
            "RankTooHigh", f"adapter_config.json: {field} is {_quoted(value)}, and no engine takes more than {MOST_RANK}; train with a lower rank"
        )
    return value


def _alpha(field: str, value: Any) -> float:
    # An infinite scale makes every weight infinite, and NaN in one answer spreads to the next ones through reused cache blocks.
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return abs(float(value))
    except OverflowError:  # a whole number that is larger than every float
        pass
    raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is {_quoted(value)}, must be a finite number")


def _scale(alphas: list[float], rank: int, *, rank_stabilized: bool) -> float:
    """Return the largest alpha by the smallest rank: at least what any module is scaled by, whichever patterns are its own."""
    return max(alphas) / (math.sqrt(rank) if rank_stabilized else rank)


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _NAME_LIMIT else f"{text[:_NAME_LIMIT]}…"


def _pattern(field: str, pattern: str) -> str:
    """Check a regular expression that the engine, too, will match against every module: one that runs for ever would stop it for everybody."""
    plain = re.sub(r"\\[^0-9]|\[[^]]*\]", "x", pattern)
    repeats = re.findall(r"[*+?{]", plain.replace("(?:", "("))
    if len(pattern) > _PATTERN_LIMIT or len(repeats) > _PATTERN_REPEATS or re.search(r"\)[*+?{]|\\[0-9]|\(\?[^:]", plain):
        raise Refusal(
            "Unsupported",
            f"adapter_config.json: {field} {pattern[:_NAME_LIMIT]!r} is longer than {_PATTERN_LIMIT} characters, or repeats more "
            f"than {_PATTERN_REPEATS} times or a group; matching it could take for ever: name the modules one by one",
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} {pattern!r} is not a regular expression") from None
    return pattern


def _names(value: str | list[Any]) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not all(isinstance(name, str) for name in names):
        raise Refusal("ConfigInvalid", f"adapter_config.json: target_modules {_quoted(value)}, must be names of modules")
    length = sum(len(name) for name in names)
    if length > _NAMES_LIMIT_CHARACTERS:
        raise Refusal("Unsupported", f"adapter_config.json: target_modules has {length} characters, the limit is {_NAMES_LIMIT_CHARACTERS}")
    return tuple(sorted(set(names)))


def _text(value: Any) -> str:
    return value[:_NAME_LIMIT] if isinstance(value, str) else ""


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")
