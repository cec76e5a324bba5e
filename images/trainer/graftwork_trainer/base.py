"""The base model's folder: what can be checked of it before anything heavy is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graftwork_store import fingerprint as fingerprints
from graftwork_store.errors import ModelInvalid

from graftwork_trainer.errors import model_invalid

LAYOUT = "expected a folder in Hugging Face layout: config.json, *.safetensors, tokenizer.json, tokenizer_config.json"


def check_base(folder: Path, source: str, *, conversation: bool) -> None:
    """Raise RunError (exit 65) unless `folder` holds a model that can be trained on; `conversation`: its chat template is needed."""
    config = _read_json(folder / "config.json", source)
    if not config.get("architectures"):
        raise model_invalid(f'{source}: config.json has no "architectures"; {LAYOUT}')
    if "quantization_config" in config:
        raise model_invalid(f"{source} is quantized already; train on the original (bf16) weights: the adapter also fits the quantized model")
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        raise model_invalid(f"{source} has no *.safetensors file; {LAYOUT}")
    if not (folder / "tokenizer.json").is_file():
        raise model_invalid(f"{source} has no tokenizer.json; {LAYOUT}")
    if conversation and not has_chat_template(folder, source):
        remedy = "use an instruction-tuned base, put chat_template.jinja beside it, or write the data in the format prompt_completion or text"
        raise model_invalid(f"{source} has no chat template, which datasets of the formats messages and instruct need; {remedy}")


def fingerprint(folder: Path, source: str) -> str:
    """Return the fingerprint of the weights in `folder`; raises RunError (exit 65) that names `source` when they cannot be read."""
    try:
        return fingerprints.base_fingerprint(folder)
    except ModelInvalid as error:
        raise model_invalid(f"{source}: {error.message}") from error


def has_chat_template(folder: Path, source: str) -> bool:
    """Return whether the tokenizer in `folder` can render a conversation."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_read_json(path, source).get("chat_template"))


def _read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise model_invalid(f"{source} has no {path.name}; {LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise model_invalid(f"{source}: {path.name} cannot be read ({error}); {LAYOUT}") from error
    if not isinstance(value, dict):
        raise model_invalid(f"{source}: {path.name} is not a JSON object; {LAYOUT}")
    return value
