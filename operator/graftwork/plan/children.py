"""The objects that belong to an LLMDeployment, one function each. Owner and common labels are added where they are applied."""

from __future__ import annotations

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.plan.pods import Manifest
from graftwork.plan.serving import selector
from graftwork.sizing import startup


def _metadata(deployment: str, name: str | None = None) -> Manifest:
    return {"name": name or deployment, "labels": {names.LABEL_DEPLOYMENT: deployment}}


def adapters_config_map(deployment: str, content: str) -> Manifest:
    """Return the ConfigMap that the agents read; it is written, and awaited, before any pod is told."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(deployment, names.adapters_config_map(deployment)),
        "data": {names.ADAPTERS_KEY: content},
    }


def deployment(resource: LLMDeployment, template: Manifest, *, surge: int = 1, unavailable: int = 0, replicas: int | None = None) -> Manifest:
    """Return the Deployment; a new pod is Ready before an old one goes, unless `surge` is 0. `replicas` None: as many as the spec says."""
    name, deadline = resource.metadata.name, startup.deployment_seconds(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name),
        "spec": {
            "replicas": resource.spec.replicas if replicas is None else replicas,
            "revisionHistoryLimit": 3,
            **({"progressDeadlineSeconds": deadline} if deadline else {}),
            "selector": {"matchLabels": selector(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": template,
        },
    }


def service(resource: LLMDeployment) -> Manifest:
    """Return the Service in front of the engines."""
    name = resource.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(name),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(name),
            "ports": [{"name": "http", "port": resource.spec.service.port, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def disruption_budget(resource: LLMDeployment) -> Manifest:
    """Return the PodDisruptionBudget: one pod at a time, and pods that are broken anyway may always go (or they would block drains)."""
    name = resource.metadata.name
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(name)}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }
