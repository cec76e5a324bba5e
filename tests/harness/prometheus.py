"""A real Prometheus in the embedded cluster, for the tests that need one: built and loaded when asked, so that nothing else waits for it.

`deploy` puts it into a namespace of its own that enforces restricted Pod Security; it looks only into the namespaces that it is told. `stop` makes an
outage of metrics, `start` ends it. The configuration is written as JSON, which is YAML too.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.harness import machine
from tests.harness.install import Environment, Steps, image_references, module
from tests.harness.kube import Kube, Object

NAME = "prometheus"
NAMESPACE = "monitoring"
PORT = 9090
MANAGED = "app_kubernetes_io_managed_by"
# /metrics has the engine's series and the guard's. The labels are those that a PodMonitor would give.
PATHS: Mapping[str, str] = {"serving": "/metrics"}


def configuration(namespaces: Sequence[str], interval_seconds: float = 1, paths: Mapping[str, str] = PATHS, **sd: Any) -> Object:
    """Return Prometheus' configuration: the port `http` of all pods of Graftwork in `namespaces`, a job for each of `paths`.

    `sd` are further fields of the service discovery (`api_server`, for a Prometheus outside of the cluster).
    """
    discovery = {"role": "pod", "namespaces": {"names": list(namespaces)}, **sd}
    pod = "__meta_kubernetes_pod_"
    relabeling = [
        {"source_labels": [f"{pod}label_{MANAGED}"], "regex": "graftwork", "action": "keep"},
        {"source_labels": [f"{pod}container_port_name"], "regex": "http", "action": "keep"},
        {"source_labels": [f"{pod}phase"], "regex": "Succeeded|Failed", "action": "drop"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{pod}name"], "target_label": "pod"},
        {"source_labels": [f"{pod}container_name"], "target_label": "container"},
        {"source_labels": [f"{pod}label_graftwork_dev_deployment"], "target_label": "graftwork_dev_deployment"},
    ]
    interval = f"{round(interval_seconds * 1000)}ms"
    jobs = [
        {"job_name": job, "metrics_path": path, "kubernetes_sd_configs": [discovery], "relabel_configs": relabeling} for job, path in paths.items()
    ]
    return {"global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}, "scrape_configs": jobs}


def arguments(config_file: str, data: str, listen: str) -> list[str]:
    """Return the command line of one Prometheus: little disk, and its discovery as quick as its scrapes."""
    return [
        f"--config.file={config_file}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=2h",
        f"--web.listen-address={listen}",
        "--scrape.discovery-reload-interval=1s",  # 5 s by default: for so long the pods of a test would not be seen
    ]


def rights(namespace: str, watched: str) -> list[Object]:
    """Return the Role and its binding by which Prometheus sees the pods of one namespace."""
    name = f"{NAME}-{namespace}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    metadata = {"name": name, "namespace": watched}
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        },
    ]


def _pod(image: str, config: str) -> Object:
    """Return the pod template; the configuration's hash makes a changed one a new pod."""
    container = {
        "name": NAME,
        "image": image,
        "args": arguments("/etc/prometheus/prometheus.yml", "/data/tsdb", f":{PORT}"),
        "ports": [{"name": "web", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "web"}, "periodSeconds": 1, "failureThreshold": 60},
        "resources": {"requests": {"cpu": "20m", "memory": "100Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    annotations = {"config-hash": hashlib.sha256(config.encode()).hexdigest()[:16]}
    return {
        "metadata": {"labels": {"app": NAME}, "annotations": annotations},
        "spec": {
            "serviceAccountName": NAME,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}],
        },
    }


def objects(image: str, namespace: str, watched: Sequence[str], interval_seconds: float = 1, paths: Mapping[str, str] = PATHS) -> list[Object]:
    """Return everything that `deploy` applies, in the order in which it can be made."""
    config = json.dumps(configuration(watched, interval_seconds, paths), indent=1)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAME, "namespace": namespace}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": NAME}}, "template": _pod(image, config)}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        *(item for name in watched for item in rights(namespace, name)),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"prometheus.yml": config}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": NAME}, "ports": [{"name": "web", "port": PORT, "targetPort": "web"}]},
        },
    ]


def build(steps: Steps) -> dict[str, str]:
    """Build the image if it is not built, and return its reference and archive; may run beside other preparations."""
    steps.run("building the image of Prometheus", *module("tests.cluster.images", "build", NAME))
    return image_references(NAME)[NAME]


def load(steps: Steps) -> str:
    """Build the image, load it into both nodes, and return its reference."""
    built = build(steps)
    provider = ("--provider", machine.provider())
    steps.run("loading Prometheus into both nodes", *module("tests.cluster", "load", *provider, built["archive"]))
    return built["reference"]


@dataclass(frozen=True)
class Sample:
    """One series of an answer at the time of the query."""

    labels: dict[str, str]
    value: float


class QueryError(AssertionError):
    """Prometheus refused a query, or its answer is not a vector or a scalar."""


@dataclass(frozen=True)
class Prometheus:
    """A client of one Prometheus."""

    host: str
    port: int = PORT

    @property
    def url(self) -> str:
        """Return its address, as the operator's configuration takes it."""
        return f"http://{self.host}:{self.port}"

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer of the API; connection errors are the caller's, and one that is still starting counts as such."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status == 503 and not body.startswith(b"{"):
            raise ConnectionError(f"{self.url} is not ready: {body.decode(errors='replace')}")
        document = json.loads(body)
        if document["status"] != "success":
            raise QueryError(f"{path} {parameters}: {document.get('errorType')}: {document.get('error')}")
        return document["data"]

    def query(self, promql: str) -> list[Sample]:
        """Return the series of an instant query; a scalar is one series without labels."""
        data = self.get("query", query=promql)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        if data["resultType"] != "vector":
            raise QueryError(f"{promql}: the answer is a {data['resultType']}; ask for a vector or a scalar")
        return [Sample(row["metric"], float(row["value"][1])) for row in data["result"]]

    def value(self, promql: str) -> float | None:
        """Return the value of a query that has one series or none."""
        found = self.query(promql)
        if len(found) > 1:
            raise QueryError(f"{promql}: {len(found)} series, not one: {[sample.labels for sample in found]}")
        return found[0].value if found else None

    def wait(self, promql: str, until: Callable[[list[Sample]], Any], timeout: float = 60) -> list[Sample]:
        """Ask until the answer fits; a Prometheus that does not answer yet is asked again."""
        deadline = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < deadline:
            try:
                found = self.query(promql)
                if until(found):
                    return found
                last = found
            except OSError as error:
                last = error
            threading.Event().wait(0.2)  # there is nothing to watch: a series appears with a scrape
        raise AssertionError(f"{promql}: not as expected after {timeout:.0f} s; last answer: {last}")


def client(kube: Kube, namespace: str = NAMESPACE) -> Prometheus:
    """Return a client by the Service's address, which this machine reaches because it is a node."""
    service = kube.within(namespace).get("service", NAME)
    assert service, f"no Service {NAME} in {namespace}; deploy it first"
    return Prometheus(service["spec"]["clusterIP"])


def deploy(
    kube: Kube, image: str, watched: Sequence[str], interval_seconds: float = 1, namespace: str = NAMESPACE, paths: Mapping[str, str] = PATHS
) -> Prometheus:
    """Make or change a Prometheus that watches the (existing) namespaces `watched`; return when it answers."""
    for item in objects(image, namespace, watched, interval_seconds, paths):  # one by one: kubectl takes objects of one namespace at a time
        kube.within(item["metadata"].get("namespace", namespace)).apply(item)
    start(kube, namespace)
    return client(kube, namespace)


def stop(kube: Kube, namespace: str = NAMESPACE) -> None:
    """A metrics outage: end Prometheus, keep its Service. Its data is gone with it."""
    kube.within(namespace).patch("deployment", NAME, {"spec": {"replicas": 0}})
    kube.within(namespace).wait_gone("pods", f"app={NAME}")


def start(kube: Kube, namespace: str = NAMESPACE, timeout: float = 120) -> None:
    """Run one Prometheus, and return when it is ready by the Deployment's own count."""
    within = kube.within(namespace)
    within.patch("deployment", NAME, {"spec": {"replicas": 1}})

    def ready(item: Object) -> bool:
        status = item.get("status", {})
        current = status.get("observedGeneration") == item["metadata"]["generation"]
        return bool(current and status.get("updatedReplicas") == 1 and status.get("readyReplicas") == 1 and status.get("replicas") == 1)

    within.wait("deployment", NAME, ready, timeout, "ready")


def remove(kube: Kube, watched: Sequence[str], namespace: str = NAMESPACE) -> None:
    """Remove it and its rights."""
    for name in watched:
        for kind in ("rolebinding", "role"):
            kube.within(name).delete(kind, f"{NAME}-{namespace}")
    kube.delete("namespace", namespace)


def prepare(steps: Steps, environment: Environment, watched: Sequence[str], interval_seconds: float = 1) -> Prometheus:
    """Build, load and deploy: one call for a test that needs a Prometheus."""
    return deploy(environment.kube, load(steps), watched, interval_seconds)
