"""What the pinned vLLM takes, from vLLM itself: run inside the engine's container, it builds vLLM's own parser and no engine.

Printed is one line of JSON: flags, quantization methods, types, parsers, speculative methods, architectures. With an argument, a JSON list of
argument lists as they would follow `vllm serve`, it prints what vLLM says of each: an empty text, or its error. With a second one, `configure`, it
asks for each not only the parser, but makes the engine's whole configuration for the model that lies there. With `models` the list is of
{"files": {path: text}, "arguments": [...]}: each model is written into a folder of its own, and printed is for which runner vLLM takes it.

Architectures are read from the text of the models' modules: importing all of them takes minutes, and some need a GPU.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_args

os.environ |= {"VLLM_PLUGINS": "", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}

_INTERFACES = {"lora": "SupportsLoRA", "multimodal": "SupportsMultiModal", "pooling": "VllmModelForPooling"}
_MARKS = {
    "lora": "supports_lora",
    "multimodal": "supports_multimodal",
    "pooling": "is_pooling_model",
    "transcription": "supports_transcription_only",
}
_POOLING_GROUPS = ("_EMBEDDING", "_LATE_INTERACTION", "_REWARD", "_TOKEN_CLASSIFICATION", "_SEQUENCE_CLASSIFICATION")


@cache
def parser() -> argparse.ArgumentParser:
    """Return the parser of `vllm serve`."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))


def flags() -> dict[str, dict[str, Any]]:
    """Return flag -> type, choices, whether `--no-` exists, and its other spellings."""
    return {spellings(action)[0]: flag(action) for action in parser()._actions if spellings(action)}


def spellings(action: argparse.Action) -> list[str]:
    """Return the long names of a flag without dashes, its first one first, and then its short ones."""
    long = [text[2:] for text in action.option_strings if text.startswith("--") and not text.startswith("--no-")]
    return [*long, *(text.lstrip("-") for text in action.option_strings if not text.startswith("--"))] if long else []


def flag(action: argparse.Action) -> dict[str, Any]:
    """Return what a flag takes; what is empty is left out."""
    found = {
        "type": kind(action),
        "choices": sorted(str(choice) for choice in action.choices or () if choice is not None),
        "negatable": any(text.startswith("--no-") for text in action.option_strings),
        "several": action.nargs in ("+", "*"),
        "aliases": sorted(spellings(action)[1:]),
    }
    return {key: value for key, value in found.items() if value}


def kind(action: argparse.Action) -> str:
    """Return boolean, integer, number, text or JSON."""
    if action.nargs == 0:
        return "boolean"
    converter: Any = action.type
    names = {None: "text", str: "text", int: "integer", float: "number", json.loads: "JSON"}
    while converter not in names and getattr(converter, "__closure__", None):  # optional_type(parse_type(int)) holds what it wraps
        inner = [cell.cell_contents for cell in converter.__closure__ if callable(cell.cell_contents)]
        if not inner:
            break
        converter = inner[0]
    if str(getattr(converter, "__name__", "")).startswith("human_readable_int"):
        return "integer"
    return names.get(converter, "JSON")


def quantization() -> dict[str, dict[str, Any]]:
    """Return method -> the types of activations that it takes, and whether it is deprecated; types that cannot be asked here are left out."""
    from vllm.model_executor.layers import quantization as methods

    found: dict[str, dict[str, Any]] = {}
    for name in sorted(methods.QUANTIZATION_METHODS):
        found[name] = {"deprecated": True} if name in methods.DEPRECATED_QUANTIZATION_METHODS else {}
        with contextlib.suppress(Exception):
            found[name]["activations"] = activations(methods.get_quantization_config(name))
    return found


def activations(method: Any) -> list[str]:
    """Return the names of the types that a method says it supports; some say it as a method of the class, some of an instance."""
    asked = method.get_supported_act_dtypes
    return sorted(str(each).removeprefix("torch.") for each in (asked() if hasattr(asked, "__self__") else asked(None)))


def words() -> dict[str, list[str]]:
    """Return the names that single flags take."""
    from vllm.config.cache import CacheDType
    from vllm.config.model import ModelDType
    from vllm.config.speculative import SpeculativeMethod
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    return {
        "dtypes": sorted(get_args(ModelDType)),
        "kvCacheDtypes": sorted(get_args(CacheDType)),
        "reasoningParsers": sorted(ReasoningParserManager.list_registered()),
        "speculativeMethods": sorted(get_args(SpeculativeMethod)),
        "toolParsers": sorted(ToolParserManager.list_registered()),
    }


def architectures() -> dict[str, list[str]]:
    """Return architecture -> what of lora, multimodal and pooling it supports, and whether it transcribes only; drafts are no models of their own.

    Some that generate text stand among those of embeddings as well (all that are a Llama, three that see): they generate unless they are asked
    otherwise.
    """
    from vllm.model_executor.models import registry

    drafts = set(registry._SPECULATIVE_DECODING_MODELS)
    pooling = {name for group in _POOLING_GROUPS for name in getattr(registry, f"{group}_MODELS")}
    pooling -= {*registry._TEXT_GENERATION_MODELS, *registry._MULTIMODAL_MODELS}
    found = {}
    for name, model in registry.ModelRegistry.models.items():
        if name not in drafts:
            supported = [what for what in sorted(_MARKS) if supports(what, model.module_name, model.class_name)]
            found[name] = sorted({*supported, *(["pooling"] if name in pooling else [])})
    return dict(sorted(found.items()))


@cache
def supports(what: str, module: str, name: str) -> bool:
    """Whether a class, or one that it derives from, is of the interface or sets its mark."""
    if name == _INTERFACES.get(what):
        return True
    where = definition(module, name)
    if where is None:
        return False
    module, node = where
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == _MARKS[what] and isinstance(value, ast.Constant):
            return bool(value.value)
    return any(supports(what, module, base.id) for base in node.bases if isinstance(base, ast.Name))


def definition(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return the module and the text of a class, wherever a module of vLLM's gets its name from; None for anything else."""
    tree = text(module)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and [getattr(each, "id", "") for each in node.targets] == [name]:
            return definition(module, node.value.id)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(imported(module, node), alias.name)
    return None


def imported(module: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that an import names."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if path(module).name == "__init__.py" else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def path(module: str) -> Path:
    """Return the file of a module of vLLM's."""
    import vllm

    base = Path(vllm.__file__).parent.parent.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def text(module: str) -> ast.Module | None:
    """Return the parsed text of a module of vLLM's; None for any other."""
    return ast.parse(path(module).read_text(encoding="utf-8")) if module.startswith("vllm.") and path(module).is_file() else None


def tables() -> dict[str, Any]:
    """Return everything."""
    from vllm.version import __version__

    return {
        "version": __version__.partition("+")[0],
        "flags": dict(sorted(flags().items())),
        "quantization": quantization(),
        **words(),
        "architectures": architectures(),
    }


def model(files: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    """Return what vLLM makes of a model and a command line whose first argument names it: its error, or runner, conversion and more."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    with tempfile.TemporaryDirectory() as folder:
        for name, text_of_file in files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(text_of_file, encoding="utf-8")
        parsed = parser().parse_args([folder, *arguments[1:], "--skip-tokenizer-init"])
        parsed.model = parsed.model_tag
        try:
            made = AsyncEngineArgs.from_cli_args(parsed).create_engine_config().model_config
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
    return {
        "error": "",
        "runner": made.runner_type,
        "convert": made.convert_type,
        "quantization": made.quantization,
        "multimodal": made.is_multimodal_model,
        "limits": dict(getattr(made.multimodal_config, "limit_per_prompt", None) or {}),
    }


def said_of(arguments: list[str], *, configure: bool) -> str:
    """Return what vLLM says against a command line; nothing if it takes it."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            parsed = parser().parse_args(arguments)
            validate_parsed_serve_args(parsed)
            if configure:
                parsed.model = parsed.model_tag
                AsyncEngineArgs.from_cli_args(parsed).create_engine_config()
        except SystemExit:
            return errors.getvalue()[-500:] or "the parser ended without a word"
        except (TypeError, ValueError) as error:
            return str(error)
    return ""


def main(given: list[str]) -> None:
    """Print what is asked for."""
    if given[1:] == ["models"]:
        said: Any = [model(each["files"], each["arguments"]) for each in json.loads(given[0])]
    elif given:
        said = [said_of(each, configure=given[1:] == ["configure"]) for each in json.loads(given[0])]
    else:
        said = tables()
    print(f"\n{json.dumps(said)}")


if __name__ == "__main__":
    main(sys.argv[1:])
