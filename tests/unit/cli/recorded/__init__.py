"""Objects as kubectl shows them, and a kubectl that knows no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from graftwork.cli.kube import KubectlError, Object

FOLDER = Path(__file__).parent
PLURALS = {
    "Deployment": "deployments.apps",
    "ControllerRevision": "controllerrevisions",
    "Pod": "pods",
    "LLMDeployment": "llmdeployments.graftwork.dev",
}


def read(name: str) -> list[Object]:
    """Return the objects of a recording."""
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


class Recorded:
    """Answers like kubectl. `forbidden` are kinds that the user may not read."""

    def __init__(self, objects: Sequence[Object], forbidden: Sequence[str] = ()) -> None:
        self.objects = objects
        self.forbidden = forbidden

    def get(self, kind: str, name: str) -> Object:
        found = [item for item in self.list(kind) if item["metadata"]["name"] == name]
        if not found:
            raise KubectlError(f'Error from server (NotFound): {kind} "{name}" not found')
        return found[0]

    def list(self, kind: str, selector: str = "") -> Sequence[Object]:
        if kind in self.forbidden:
            raise KubectlError(f"Error from server (Forbidden): {kind} is forbidden")
        key, _, value = selector.partition("=")
        found: list[Any] = [item for item in self.objects if PLURALS[item["kind"]] == kind]
        return [item for item in found if not key or item["metadata"].get("labels", {}).get(key) == value]
