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
_UNSUPPORTED_INIT = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class LoraConfig:
    """What of the config the check of tensors needs."""

    rank: int
    rank_pattern: dict[str, int]
    fan_in_fan_out: bool

    @property
    def max_rank(self) -> int:
        """The largest rank of any module."""
        return max([self.rank, *self.rank_pattern.values()])

    def rank_of(self, module: str) -> int:
        """The rank of a module; a pattern is a regular expression for the end of its name, as in peft."""
        for pattern, rank in self.rank_pattern.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return rank
            except re.error:
                raise Refusal("ConfigInvalid", f"adapter_config.json: rank_pattern {pattern!r} is not a regular expression") from None
        return self.rank


def read_config(folder: Path) -> LoraConfig:
    """Read and judge adapter_config.json; raises Refusal (ConfigInvalid or Unsupported)."""
    path = folder / "adapter_config.json"
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise Refusal("ConfigInvalid", f"adapter_config.json: {size} bytes, the limit is {_LIMIT_BYTES}")
        raw = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal("ConfigInvalid", f"adapter_config.json: cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict):
        raise Refusal("ConfigInvalid", f"adapter_config.json: is a {type(raw).__name__}, must be an object")
    if raw.get("peft_type") != "LORA":
        raise Refusal("ConfigInvalid", f"adapter_config.json: peft_type {raw.get('peft_type')!r}, must be 'LORA'")
    _check_supported(raw)
    rank = _rank("r", raw.get("r"))
    _alpha("lora_alpha", raw.get("lora_alpha"))
    for key, value in _mapping(raw, "alpha_pattern").items():
        _alpha(f"alpha_pattern[{key}]", value)
    if not raw.get("target_modules"):
        raise Refusal("ConfigInvalid", f"adapter_config.json: target_modules {raw.get('target_modules')!r}, must name at least one module")
    patterns = {str(key): _rank(f"rank_pattern[{key}]", value) for key, value in _mapping(raw, "rank_pattern").items()}
    return LoraConfig(rank, patterns, bool(raw.get("fan_in_fan_out", False)))


def _check_supported(raw: Mapping[str, Any]) -> None:
    for field, what in _UNSUPPORTED_FIELDS.items():
        if raw.get(field):
            raise Refusal("Unsupported", f"adapter_config.json: {field} is {raw[field]!r}; vLLM cannot serve {what}")
    if raw.get("bias", "none") not in ("none", None):
        raise Refusal("Unsupported", f"adapter_config.json: bias is {raw['bias']!r}, must be 'none'; vLLM cannot serve an adapter's bias")
    init = raw.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_UNSUPPORTED_INIT):
        raise Refusal("Unsupported", f"adapter_config.json: init_lora_weights is {init!r}, which changes the base; save it as a plain LoRA")


def _mapping(raw: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is a {type(value).__name__}, must be an object")
    return value


def _rank(field: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is {value!r}, must be a whole number of at least 1")
    return value


def _alpha(field: str, value: Any) -> None:
    # An infinite scale makes every weight infinite, and NaN in one answer spreads to the next ones through reused cache blocks.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise Refusal("ConfigInvalid", f"adapter_config.json: {field} is {value!r}, must be a finite number")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")
