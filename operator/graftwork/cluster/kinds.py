"""The kinds that the operator touches, so that no request is spent on discovery."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from graftwork import names


@dataclass(frozen=True)
class Kind:
    """How one kind is addressed. `watched` kinds are kept in the mirror; `ours` are watched whole, the others by the managed-by label.

    An `optional` kind may be missing in a cluster (its CRD is somebody else's), so nothing may wait for it: it is never watched.
    """

    name: str
    group: str
    version: str
    plural: str
    watched: bool = False
    ours: bool = False
    create_once: bool = False
    optional: bool = False

    @property
    def api_version(self) -> str:
        """Return what stands in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def discovery_path(self) -> str:
        """Return the URL path under which the API server lists the kinds of this group and version; 404 where it has none of them."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def label_selector(self) -> str:
        """Return the label selector under which the kind is listed and watched; empty means all of them."""
        return "" if self.ours else f"{names.LABEL_MANAGED_BY}={names.MANAGER}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of one object, or of the collection (in all namespaces where namespace is None, in none where it is empty)."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)  # a name can come from a user's URI: it must stay one segment


@dataclass(frozen=True, order=True)
class Key:
    """One object: kind, namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


LLM_DEPLOYMENT = "LLMDeployment"
FINE_TUNE_JOB = "FineTuneJob"
LORA_ADAPTER = "LoRAAdapter"
HTTP_ROUTE = "HTTPRoute"
SWEEP = "Sweep"
"""No kind of the API server: the task that looks after the store of one namespace."""

_ALL = (
    Kind(LLM_DEPLOYMENT, names.GROUP, names.VERSION, "llmdeployments", watched=True, ours=True),
    Kind(FINE_TUNE_JOB, names.GROUP, names.VERSION, "finetunejobs", watched=True, ours=True),
    Kind(LORA_ADAPTER, names.GROUP, names.VERSION, "loraadapters", watched=True, ours=True),
    Kind("Deployment", "apps", "v1", "deployments", watched=True),
    Kind("Service", "", "v1", "services", watched=True),
    Kind("ConfigMap", "", "v1", "configmaps", watched=True),
    Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", watched=True),
    Kind("Ingress", "networking.k8s.io", "v1", "ingresses", watched=True),
    Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", watched=True),
    Kind(HTTP_ROUTE, "gateway.networking.k8s.io", "v1", "httproutes", optional=True),
    Kind("ControllerRevision", "apps", "v1", "controllerrevisions", watched=True, create_once=True),
    Kind("Job", "batch", "v1", "jobs", watched=True, create_once=True),
    Kind("Pod", "", "v1", "pods", watched=True),
    Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", watched=True),
    Kind("StorageClass", "storage.k8s.io", "v1", "storageclasses"),
    Kind("Namespace", "", "v1", "namespaces", create_once=True),
    Kind("Event", "events.k8s.io", "v1", "events"),
    Kind("Lease", "coordination.k8s.io", "v1", "leases"),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
WATCHED: tuple[Kind, ...] = tuple(kind for kind in _ALL if kind.watched)


def sweep_key(namespace: str) -> Key:
    """Return the key of the task that sweeps a namespace's part of the store."""
    return Key(SWEEP, namespace, "graftwork-sweep")


def key_of(obj: dict[str, object]) -> Key:
    """Return the key of an API object; KeyError if it has no kind or no name."""
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return Key(str(obj["kind"]), str(metadata.get("namespace", "")), str(metadata["name"]))
