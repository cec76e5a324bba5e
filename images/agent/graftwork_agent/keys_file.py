"""keys.yaml: what a Secret's author wrote, checked and turned into hashes (contracts, section 5a). Pure.

No text that is raised here holds anything that could be a key, not even in its wrong place: a value is described, and a name is quoted only while
it is shorter than a key may be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

import yaml

API_VERSION = "graftwork.dev/keys/v1"
MOST_KEYS = 10_000
SHORTEST_KEY, LONGEST_KEY = 16, 512
LONGEST_MODEL = 128
LIMITS = ("requestsPerMinute", "tokensPerMinute", "concurrent")
FIELDS = ("key", "models", "limits", "metrics")

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?")
_NAME_RULE = "at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"
_VISIBLE = re.compile(r"[!-~]+")  # what an HTTP header carries without doubt
_DEEPEST = 4  # the document, an entry, a list or a mapping of it; the C parser's next stage would follow any depth until its stack is full
_Loader: type[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

Entry = dict[str, Any]


class KeysFileError(Exception):
    """The file breaks a rule; the text names entry, field, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class KeysFile:
    """What a file says: the entries that the guard is sent, in the file's order, and what keeps single entries out."""

    entries: list[Entry]
    left_out: list[str] = dataclasses.field(default_factory=list)


class _StrictLoader(_Loader):  # type: ignore[misc]  # which of the two is known at run time only
    """Reads plain data and refuses a name that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise KeysFileError(f"{_quoted(twice)} is there twice (line {node.start_mark.line + 1}); remove one of them")
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        return result


def parse(data: bytes) -> KeysFile:
    """Return what the file says; raise KeysFileError where a rule is broken that is no single entry's."""
    document = _load(data)
    if document is None:
        raise KeysFileError("keys.yaml is empty; write a mapping of name -> {key, models, limits}, or {} to let nobody in")
    if not isinstance(document, dict):
        raise KeysFileError(f"keys.yaml is {_described(document)}; it must be a mapping of name -> {{key, models, limits}}")
    if len(document) > MOST_KEYS:
        raise KeysFileError(f"keys.yaml has {len(document)} keys; it may have {MOST_KEYS}")
    found = KeysFile([])
    owners: dict[str, str] = {}
    for number, (name, value) in enumerate(document.items(), start=1):
        entry = _entry(number, name, value)
        other = owners.setdefault(entry["sha256"], entry["name"])
        if other != entry["name"]:
            raise KeysFileError(f"{entry['name']}: its key is that of {other} too; give each a key of its own")
        if value.get("models") == []:  # read as "every model" it would open what was meant to be shut
            text = "is an empty list, so this key is let in nowhere; leave models out for every model, or name those that it may ask for"
            found.left_out.append(f"{_shown(number, entry['name'])}.models {text}")
        else:
            found.entries.append(entry)
    return found


def _load(data: bytes) -> Any:
    try:
        _check_shape(data)
        return yaml.load(data, Loader=_StrictLoader)  # noqa: S506 - a safe loader, made stricter
    except yaml.MarkedYAMLError as error:  # its own text quotes the file
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KeysFileError(f"keys.yaml is not valid YAML{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise KeysFileError("keys.yaml is not valid YAML: it must be UTF-8 text without control characters") from None


def _check_shape(data: bytes) -> None:
    """Refuse what the next stage of the parser should not see: any depth, and references, which can grow without bound."""
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise KeysFileError(f"keys.yaml has a reference (*) in line {line}; write the value out, or put it into quotes if it begins with *")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise KeysFileError(f"keys.yaml is nested too deeply in line {line}; an entry is name: {{key, models, limits}}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _entry(number: int, name: object, value: object) -> Entry:
    if not isinstance(name, str):
        raise KeysFileError(f"entry {number}: its name is {_described(name)}; it must be text, so put it into quotes")
    if len(name) > 63 or not _NAME.fullmatch(name):
        raise KeysFileError(f"entry {number}: its name ({_quoted(name)}) must be {_NAME_RULE}")
    shown = _shown(number, name)
    if not isinstance(value, dict):
        raise KeysFileError(f"{shown} is {_described(value)}; it must be a mapping with key, and perhaps models and limits")
    for field in value:
        if field not in FIELDS:
            raise KeysFileError(f"{shown} has {_quoted(field)}; it takes {', '.join(FIELDS)}")
    entry = {"name": name, "sha256": _hash(shown, value.get("key")), "models": _models(shown, value), "limits": _limits(shown, value)}
    return {**entry, "metrics": True} if _metrics(shown, value) else entry


def _shown(number: int, name: str) -> str:
    """Return what an entry is called in a message: a name as long as a key could be one."""
    return name if len(name) < SHORTEST_KEY else f"entry {number} ({name[:4]}…)"


def _hash(shown: str, key: object) -> str:
    rule = f"it must be {SHORTEST_KEY} to {LONGEST_KEY} visible ASCII characters without blanks"
    if key is None:
        raise KeysFileError(f"{shown}.key is missing; {rule}")
    if not isinstance(key, str):
        raise KeysFileError(f"{shown}.key is {_described(key)}; it must be text, so put it into quotes")
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise KeysFileError(f"{shown}.key has {len(key)} characters; {rule}")
    if not _VISIBLE.fullmatch(key):
        raise KeysFileError(f"{shown}.key has a character that an HTTP header cannot carry; {rule}")
    return hashlib.sha256(key.encode()).hexdigest()


def _models(shown: str, value: dict[Any, Any]) -> list[str]:
    models = value.get("models", [])
    if not isinstance(models, list):
        raise KeysFileError(f"{shown}.models is {_described(models)}; it must be a list of model names, or absent for every model")
    for index, model in enumerate(models):
        if not isinstance(model, str) or not 1 <= len(model) <= LONGEST_MODEL:
            raise KeysFileError(f"{shown}.models[{index}] is {_described(model)}; it must be a model's name of 1 to {LONGEST_MODEL} characters")
    return list(models)


def _limits(shown: str, value: dict[Any, Any]) -> dict[str, int]:
    limits = value.get("limits", {})
    if not isinstance(limits, dict):
        raise KeysFileError(f"{shown}.limits is {_described(limits)}; it must be a mapping of {', '.join(LIMITS)}")
    for field, limit in limits.items():
        if field not in LIMITS:
            raise KeysFileError(f"{shown}.limits has {_quoted(field)}; it takes {', '.join(LIMITS)}")
        if type(limit) is not int or not 1 <= limit <= 2**53:
            raise KeysFileError(f"{shown}.limits.{field} is {_described(limit)}; it must be a whole number >= 1, or absent for no limit")
    return dict(limits)


def _metrics(shown: str, value: dict[Any, Any]) -> bool:
    metrics = value.get("metrics", False)
    if not isinstance(metrics, bool):
        raise KeysFileError(f"{shown}.metrics is {_described(metrics)}; it must be true (a key that reads metrics and nothing else) or absent")
    if metrics and (beside := next((name for name in ("models", "limits") if name in value), "")):
        raise KeysFileError(
            f"{shown} has metrics and {beside}; a key for metrics asks no model: remove {beside}, or give the client a key of its own"
        )
    return metrics


def _described(value: object) -> str:
    """Say what a value is without showing it, unless it is a number too short to be anybody's secret."""
    if isinstance(value, bool):
        return "a truth value (YAML reads yes, no, on and off as such)"
    if isinstance(value, int | float):
        text = f"{value!r}" if abs(value) < 10**6 else ""
        return f"the number {text}" if 0 < len(text) <= 8 else "a number"
    kinds = {str: "text", list: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), "no text")


def _quoted(name: object) -> str:
    """Return the name of a field or an entry, unless it could be a key that was written in its place."""
    if not isinstance(name, str):
        return f"a field that is {_described(name)}"
    return repr(name) if len(name) < SHORTEST_KEY else f"a name of {len(name)} characters"
