"""The tests' own Prometheus: what is applied, what it is told to scrape, and, where its binary is built, that the real one does as it is told."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cache import cache_root
from tests.cluster.imagebuild.graph import Graph
from tests.cluster.imagebuild.places import REPOSITORY
from tests.harness import prometheus
from tests.harness.prometheus import Prometheus, QueryError, Sample, configuration, objects

IMAGE = "localhost/graftwork/prometheus:0123456789abcdef"
MISSING = "the prometheus binary is not built (python3 -m tests.cluster build prometheus)"


def by_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(item for item in found if item["kind"] == kind)


def test_it_looks_into_the_named_namespaces_only_and_has_no_other_rights() -> None:
    found = objects(IMAGE, "monitoring", ["ml", "e2e"])
    config = json.loads(by_kind(found, "ConfigMap")["data"]["prometheus.yml"])
    for job in config["scrape_configs"]:
        assert [sd["namespaces"]["names"] for sd in job["kubernetes_sd_configs"]] == [["ml", "e2e"]]
    roles = [item for item in found if item["kind"] == "Role"]
    assert [role["metadata"]["namespace"] for role in roles] == ["ml", "e2e"]
    assert all(role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}] for role in roles)
    assert not [item for item in found if item["kind"].startswith("Cluster")]
    bindings = [item for item in found if item["kind"] == "RoleBinding"]
    subject = {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}
    assert [(each["metadata"]["namespace"], each["subjects"]) for each in bindings] == [("ml", [subject]), ("e2e", [subject])]


def test_the_interval_is_a_duration_and_never_shorter_than_the_timeout() -> None:
    assert configuration(["ml"], 0.25)["global"] == {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}


def test_its_pod_passes_the_restricted_standard_that_its_namespace_enforces() -> None:
    found = objects(IMAGE, "monitoring", ["ml"])
    assert by_kind(found, "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    pod = by_kind(found, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {"configMap", "emptyDir"}


def test_another_configuration_is_another_pod() -> None:
    templates = [by_kind(objects(IMAGE, "monitoring", ["ml"], interval), "Deployment")["spec"]["template"] for interval in (1, 2, 1)]
    assert templates[0] == templates[2] != templates[1]


def test_neither_the_demo_nor_the_cluster_builds_or_loads_it() -> None:
    graph = Graph(REPOSITORY)
    assert "prometheus" not in graph.select([])
    assert graph.select(["prometheus"]) == ["prometheus"]


@dataclass
class Cluster:
    """An API server with pods, and the pods: one HTTP server for both. `hung` holds the watches until the end."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    hung: threading.Event = field(default_factory=threading.Event)
    port: int = 0


def _pod(name: str, port: int, labels: dict[str, str], phase: str = "Running") -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": port, "protocol": "TCP"}, {"name": "agent", "containerPort": 1, "protocol": "TCP"}]
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": name, "resourceVersion": "1", "labels": labels},
        "spec": {"nodeName": "a", "containers": [{"name": "vllm", "image": "x", "ports": ports}]},
        "status": {"phase": phase, "podIP": "127.0.0.1", "hostIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]},
    }


@contextmanager
def serving(cluster: Cluster) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "sendInitialEvents" in self.path:
                self.answer(400, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 400})
            elif "watch=true" in self.path or "watch=1" in self.path:
                cluster.hung.wait(60)
            elif self.path.startswith("/api/v1/namespaces/ml/pods"):
                self.answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": cluster.pods})
            elif self.path == "/metrics":
                engine, guard = (
                    'vllm:num_requests_running{model_name="support"} 2',
                    'graftwork_requests_total{alias="medical",digest="3f2a9c41d0e7"} 7',
                )
                self.say(200, "text/plain", f"{engine}\n{guard}\n".encode())
            else:
                self.say(404, "text/plain", b"")

        def answer(self, status: int, document: object) -> None:
            self.say(status, "application/json", json.dumps(document).encode())

        def say(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        cluster.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            cluster.hung.set()
            server.shutdown()
            thread.join()


def binary(name: str) -> Path:
    found = sorted(cache_root().glob(f"bin/prometheus-*/{name}"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip(MISSING)
    return found[-1]


@contextmanager
def running(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    program, file = binary("prometheus"), folder / "prometheus.yml"
    file.write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(program), *prometheus.arguments(str(file), str(folder / "data"), f"127.0.0.1:{port}")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait(20)


def test_the_real_one_accepts_the_configuration_that_is_applied(tmp_path: Path) -> None:
    config = by_kind(objects(IMAGE, "monitoring", ["ml"]), "ConfigMap")["data"]["prometheus.yml"]
    (tmp_path / "prometheus.yml").write_text(config)
    done = subprocess.run([binary("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_real_one_scrapes_our_running_pods_and_of_no_others(tmp_path: Path) -> None:
    cluster = Cluster()
    ours = {"app.kubernetes.io/managed-by": "graftwork", "graftwork.dev/deployment": "support"}
    with serving(cluster):
        cluster.pods = [
            _pod("support-1", cluster.port, ours),
            _pod("done-1", cluster.port, ours, "Succeeded"),
            _pod("other-1", cluster.port, {"app.kubernetes.io/managed-by": "Helm"}),
        ]
        config = configuration(["ml"], 0.2, api_server=f"http://127.0.0.1:{cluster.port}")
        with running(tmp_path, config) as client:
            found = client.wait("graftwork_requests_total", bool, 30)
            engine = client.wait("vllm:num_requests_running", bool, 30)
            up = client.query("up")
            assert client.value("sum(graftwork_requests_total)") == 7
            assert client.value("absent_series") is None
            assert client.query("1 + 1") == [Sample({}, 2.0)]
            with pytest.raises(QueryError, match=r"2 series, not one"):
                client.value('{__name__=~"up|graftwork_requests_total"}')
            with pytest.raises(QueryError, match=r"bad_data"):
                client.query("sum(")
            with pytest.raises(QueryError, match=r"matrix"):
                client.query("up[5m]")
    pod = {"namespace": "ml", "pod": "support-1", "container": "vllm", "graftwork_dev_deployment": "support", "instance": f"127.0.0.1:{cluster.port}"}
    name = {"__name__": "graftwork_requests_total", "alias": "medical", "digest": "3f2a9c41d0e7"}
    assert [sample.labels for sample in found] == [{**pod, **name, "job": "serving"}]
    assert [sample.labels["job"] for sample in engine] == ["serving"]
    assert sorted((sample.labels["job"], sample.labels["pod"], sample.value) for sample in up) == [
        ("serving", "support-1", 1.0),
    ]


def test_the_real_one_says_what_version_it_is() -> None:
    printed = subprocess.run([binary("prometheus"), "--version"], capture_output=True, text=True, check=True).stdout
    assert "version 3.15.0" in printed
