"""What an engine was started with, and for which model: the frozen pod template is the only place where that is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork import names

_FLAGS = {"--max-lora-rank": "max_rank", "--max-loras": "slots", "--max-cpu-loras": "kept"}


@dataclass(frozen=True)
class Limits:
    """How many adapters an engine takes. `max_rank`: of each; `slots`: in one batch; `kept`: in host memory."""

    max_rank: int
    slots: int
    kept: int

    @property
    def flags(self) -> str:
        """Return them as they stand in the command line."""
        return f"--max-loras={self.slots} --max-cpu-loras={self.kept} --max-lora-rank={self.max_rank}"


def limits(pod_spec: Mapping[str, Any] | None) -> Limits | None:
    """Return the limits of a pod, or of a pod template, whose spec this is; None if it has no engine with all three flags."""
    for container in (pod_spec or {}).get("containers") or []:
        if container.get("name") == names.CONTAINER_ENGINE:
            return _of_arguments(container.get("args") or [])
    return None


def _of_arguments(arguments: list[str]) -> Limits | None:
    found = {}
    for argument in arguments:
        flag, _, value = str(argument).partition("=")
        if flag in _FLAGS and value.isdecimal():
            found[_FLAGS[flag]] = int(value)
    return Limits(**found) if len(found) == len(_FLAGS) else None


def model_source(pod_spec: Mapping[str, Any] | None) -> str:
    """Return the source of the model that a serving pod has: what its download is told, or the claim that it mounts; or nothing."""
    spec = pod_spec or {}
    for container in spec.get("initContainers") or []:
        arguments = container.get("args") or []
        if container.get("name") == names.CONTAINER_DOWNLOAD and "--source" in arguments[:-1]:
            return str(arguments[arguments.index("--source") + 1])
    claim = next((volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or [] if volume.get("name") == "model"), None)
    engines = [item for item in spec.get("containers") or [] if item.get("name") == names.CONTAINER_ENGINE]
    paths = [mount.get("subPath") or "" for item in engines for mount in item.get("volumeMounts") or [] if mount.get("name") == "model"]
    return f"pvc://{claim.get('claimName')}/{paths[0]}" if claim and paths else ""
