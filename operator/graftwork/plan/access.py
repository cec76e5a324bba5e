"""How an LLMDeployment is reached from outside its namespace: Ingress, HTTPRoute and NetworkPolicy, each only where the spec asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.access import NetworkPeer
from graftwork.config import Config
from graftwork.plan.pods import Manifest
from graftwork.plan.serving import selector

STREAM_SECONDS = 3600
"""Least time that a proxy must wait for the next byte: an answer that is not streamed sends nothing until it is complete."""

OPERATOR_LABELS = {"app.kubernetes.io/name": "graftwork", "app.kubernetes.io/component": "operator"}
"""Labels of the operator's pod, as the chart sets them."""


def ingress(resource: LLMDeployment) -> Manifest | None:
    """Return the Ingress; a certificate is named and never read."""
    settings = resource.spec.access.ingress
    if settings is None:
        return None
    spec: Manifest = {
        "rules": [
            {
                "host": settings.host,
                "http": {
                    "paths": [
                        {
                            "path": settings.path,
                            "pathType": "Prefix",
                            "backend": {"service": {"name": resource.metadata.name, "port": {"name": "http"}}},
                        }
                    ]
                },
            }
        ]
    }
    if settings.class_name:
        spec["ingressClassName"] = settings.class_name
    if settings.tls_secret:
        spec["tls"] = [{"hosts": [settings.host], "secretName": settings.tls_secret}]
    annotations = {**_long_answers(resource.spec.rollout.answer_seconds), **settings.annotations}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": _metadata(resource, annotations), "spec": spec}


def _long_answers(answer_seconds: int) -> dict[str, str]:
    """Return the annotations by which Ingress controllers neither cut long answers, nor hold back streams, nor refuse long prompts.

    Each controller reads only its own. None of them can switch a timeout off, so it is as long as the longest answer.
    """
    seconds = max(STREAM_SECONDS, answer_seconds)
    nginx, f5, haproxy = "nginx.ingress.kubernetes.io", "nginx.org", "haproxy.org"
    return {
        f"{nginx}/proxy-body-size": "0",
        f"{nginx}/proxy-buffering": "off",
        f"{nginx}/proxy-read-timeout": str(seconds),
        f"{nginx}/proxy-send-timeout": str(seconds),
        f"{f5}/client-max-body-size": "0",
        f"{f5}/proxy-buffering": "false",
        f"{f5}/proxy-read-timeout": f"{seconds}s",
        f"{f5}/proxy-send-timeout": f"{seconds}s",
        f"{haproxy}/timeout-server": f"{seconds}s",
    }


def http_route(resource: LLMDeployment) -> Manifest | None:
    """Return the HTTPRoute. Its timeouts cover a whole streamed answer, and a gateway has its own unless they are switched off (`0s`)."""
    settings = resource.spec.access.route
    if settings is None:
        return None
    spec: Manifest = {
        "parentRefs": [parent.model_dump(mode="json", by_alias=True, exclude_defaults=True) for parent in settings.parent_refs],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": settings.path}}],
                "backendRefs": [{"name": resource.metadata.name, "port": resource.spec.service.port}],
                "timeouts": {"request": "0s", "backendRequest": "0s"},
            }
        ],
    }
    if settings.hostnames:
        spec["hostnames"] = list(settings.hostnames)
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": _metadata(resource), "spec": spec}


def network_policy(resource: LLMDeployment, config: Config) -> Manifest | None:
    """Return the NetworkPolicy: clients reach the engine, the operator reaches the agent, and probes come from the node, which no policy stops."""
    settings = resource.spec.access.network_policy
    if settings is None:
        return None
    scrapers = _peers(settings.scrapers)
    clients: Manifest = {"ports": [{"protocol": "TCP", "port": "http"}]}  # by name: pods of two ports serve side by side while it changes
    if settings.from_:
        clients["from"] = [*_peers(settings.from_), *scrapers]
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": config.lease.namespace}},
        "podSelector": {"matchLabels": dict(OPERATOR_LABELS)},
    }
    # By number: not every network knows the port names of sidecars.
    agents = {"from": [operator, *scrapers], "ports": [{"protocol": "TCP", "port": names.PORT_AGENT}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(resource),
        "spec": {"podSelector": {"matchLabels": selector(resource.metadata.name)}, "policyTypes": ["Ingress"], "ingress": [clients, agents]},
    }


def _peers(peers: Sequence[NetworkPeer]) -> list[Manifest]:
    return [peer.model_dump(mode="json", by_alias=True, exclude_defaults=True) for peer in peers]


def _metadata(resource: LLMDeployment, annotations: dict[str, str] | None = None) -> Manifest:
    name = resource.metadata.name
    metadata: Manifest = {"name": name, "labels": {names.LABEL_DEPLOYMENT: name}}
    return {**metadata, "annotations": annotations} if annotations else metadata
