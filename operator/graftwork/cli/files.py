"""LLMDeployments in files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from graftwork.api import InvalidObjectError, LLMDeployment


class FileError(Exception):
    """A file cannot be used; the text names it and says why."""


def read(path: str) -> list[LLMDeployment]:
    """Return the LLMDeployments of a file (`-`: of standard input) with whatever else is in it; FileError if it has none."""
    where = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        documents = [item for document in yaml.safe_load_all(text) for item in _items(document)]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"{where} cannot be read: {error}") from error
    found = [parse(item, where) for item in documents if item.get("kind") == LLMDeployment.KIND]
    if not found:
        raise FileError(f"{where} has no LLMDeployment")
    return found


def parse(item: Mapping[str, Any], where: str) -> LLMDeployment:
    """Return the LLMDeployment; FileError with each field that breaks a rule."""
    try:
        return LLMDeployment.from_object(item)
    except InvalidObjectError as error:
        raise FileError(f"{where}: {error}") from error


def _items(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a document; a List has several."""
    if isinstance(document, Mapping):
        yield from (document.get("items") or []) if document.get("kind") == "List" else [document]
