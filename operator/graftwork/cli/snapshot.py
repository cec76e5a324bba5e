"""What is read of one LLMDeployment before anything is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graftwork import names
from graftwork.cli.kube import KubectlError, Object
from graftwork.facts.pods import Pod, pod

KIND = "llmdeployments.graftwork.dev"


class Reads(Protocol):
    """What is needed of kubectl here."""

    def get(self, kind: str, name: str) -> Object:
        """Read one object."""
        ...

    def list(self, kind: str, selector: str = "") -> Sequence[Object]:
        """Read all objects of the namespace with these labels."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """An LLMDeployment with its children. `unread` has what the user may not read, by kind: that is said and costs nothing else."""

    resource: Object
    deployment: Object
    pods: Sequence[Pod]
    revisions: Sequence[Object]
    unread: dict[str, str]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.resource["metadata"]["name"])

    @property
    def template_hash(self) -> str:
        """What the pods of now are made from: what the Deployment has, else what the status says."""
        template = ((self.deployment.get("spec") or {}).get("template") or {}).get("metadata") or {}
        applied = (template.get("annotations") or {}).get(names.ANNOTATION_TEMPLATE_HASH)
        return str(applied or ((self.resource.get("status") or {}).get("rollout") or {}).get("templateHash") or "")


def take(kubectl: Reads, resource: Object) -> Snapshot:
    """Read the children of an LLMDeployment that was read already."""
    name = resource["metadata"]["name"]
    unread: dict[str, str] = {}

    def children(kind: str) -> Sequence[Object]:
        try:
            return kubectl.list(kind, f"{names.LABEL_DEPLOYMENT}={name}")
        except KubectlError as error:
            unread[kind] = str(error)
            return []

    pods = sorted((pod(item) for item in children("pods")), key=lambda each: (each.created, each.name))
    revisions = sorted(children("controllerrevisions"), key=lambda item: -int(item.get("revision") or 0))
    deployments = [item for item in children("deployments.apps") if item["metadata"]["name"] == name]
    return Snapshot(resource, deployments[0] if deployments else {}, pods, revisions, unread)
