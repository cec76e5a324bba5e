"""How a served model is reached from outside its namespace: Ingress, HTTPRoute, NetworkPolicy. Nothing here is part of a pod."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graftwork.api import cel
from graftwork.api.base import Model, field
from graftwork.api.common import NAME, AnnotationText, Label

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
HOST = rf"^([*]\.)?{_LABEL}(\.{_LABEL})*$"
_SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
PATH = rf"^/({_SEGMENT}/)*({_SEGMENT})?$"

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=HOST)]
Cidr = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]

_PATH_DOC = (
    "What is published, by prefix; it reaches the engine as it is. `/v1` is what clients of OpenAI's API ask. `/` publishes the rest of the port, "
    "too: `/health`, `/tokenize`, and metrics that tell the names of aliases and keys."
)


class IngressSettings(Model):
    """An Ingress in front of the Service."""

    host: str = field(doc="Host name that clients ask for.", restarts=False, min_length=1, max_length=253, pattern=HOST)
    class_name: str = field("", doc="IngressClass. Empty: the cluster's default class.", restarts=False, max_length=253, pattern=NAME)
    path: str = field("/v1", doc=_PATH_DOC, restarts=False, max_length=256, pattern=PATH)
    tls_secret: str = field(
        "",
        doc="Secret of the namespace (type kubernetes.io/tls) with the host's certificate: it is named, never read. Empty: plain HTTP, on which API "
        "keys can be read.",
        restarts=False,
        max_length=253,
        pattern=NAME,
    )
    annotations: dict[str, AnnotationText] = field(
        default_factory=dict,
        doc="More annotations, for the Ingress controller or cert-manager. They win over those that Graftwork sets so that long answers and streams "
        "are neither cut nor held back (ingress-nginx, NGINX, HAProxy; other controllers: docs/how-to/ingress-and-routes.md).",
        restarts=False,
        max_length=32,
        rules=(
            cel.OWN_KEYS,
            cel.Rule(
                "self.all(k, !k.contains('snippet'))",
                "annotations with configuration snippets are refused: they are code that runs in the Ingress controller; make an Ingress of your own",
            ),
        ),
    )


class ParentRef(Model):
    """A Gateway that the route is attached to."""

    name: str = field(doc="Name of the Gateway.", restarts=False, min_length=1, max_length=253, pattern=NAME)
    namespace: str = field("", doc="Its namespace, whose listeners must allow routes of this one. Empty: the same.", restarts=False, max_length=63)
    section_name: str = field(
        "", doc="One listener of it, such as the one that ends TLS. Empty: every listener that fits.", restarts=False, max_length=253, pattern=NAME
    )


class RouteSettings(Model):
    """An HTTPRoute of the Gateway API in front of the Service."""

    parent_refs: tuple[ParentRef, ...] = field(
        doc="Gateways that the route is attached to. TLS is ended by their listeners.", restarts=False, min_length=1, max_length=8
    )
    hostnames: tuple[Host, ...] = field((), doc="Host names that clients ask for. Empty: those of the listeners.", restarts=False, max_length=16)
    path: str = field("/v1", doc=_PATH_DOC, restarts=False, max_length=256, pattern=PATH)


class LabelSelector(Model):
    """Labels; none: everything."""

    match_labels: dict[str, Label] = field(default_factory=dict, doc="Labels that it must have. Empty: all.", restarts=False, max_length=16)


class IPBlock(Model):
    """A range of addresses."""

    cidr: Cidr = field(doc="The range, such as `10.0.0.0/8`.", restarts=False)
    except_: tuple[Cidr, ...] = field((), alias="except", doc="Parts of it that are meant not.", restarts=False, max_length=16)


class NetworkPeer(Model):
    """Who may come in; the same fields as a NetworkPolicy's peers."""

    RULES = (
        cel.Rule(
            "has(self.ipBlock) ? !has(self.namespaceSelector) && !has(self.podSelector) : has(self.namespaceSelector) || has(self.podSelector)",
            "a peer is an ipBlock, or a namespaceSelector, a podSelector, or both of these; namespaceSelector: {} means every namespace",
        ),
    )

    namespace_selector: LabelSelector | None = field(
        None, doc="Namespaces, such as `kubernetes.io/metadata.name: clients`. Left out: this one.", restarts=False
    )
    pod_selector: LabelSelector | None = field(None, doc="Pods of these namespaces. Left out: all of them.", restarts=False)
    ip_block: IPBlock | None = field(None, doc="Addresses instead of pods.", restarts=False)


class NetworkPolicySettings(Model):
    """A NetworkPolicy over the serving pods. What comes in is bounded, what goes out is not."""

    from_: tuple[NetworkPeer, ...] = field(
        (),
        alias="from",
        doc="Who may reach the port `http`. An Ingress controller or a Gateway is such a client, too. Empty: everybody.",
        restarts=False,
        max_length=32,
    )
    scrapers: tuple[NetworkPeer, ...] = field(
        (),
        doc="Who else may reach the port `http`, for its metrics, and the agent's (9901), which otherwise only the operator reaches.",
        restarts=False,
        max_length=16,
    )


class Access(Model):
    """What is made beside the Service. What is removed here is deleted."""

    ingress: IngressSettings | None = field(None, doc="An Ingress in front of the Service.", restarts=False)
    route: RouteSettings | None = field(
        None, doc="An HTTPRoute in front of the Service. Needs the Gateway API's CRDs; without them AccessReady says so.", restarts=False
    )
    network_policy: NetworkPolicySettings | None = field(
        None,
        doc="A NetworkPolicy over the serving pods; `{}` has all defaults. Whether it is enforced depends on the cluster's network.",
        restarts=False,
    )
