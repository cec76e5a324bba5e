"""`kubectl graft` on a deployment that serves: the tree is what there is, and the log is the engine's."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.e2e.conftest import repository
from tests.e2e.service import Service


def graft(service: Service, command: str, *arguments: str) -> str:
    """Run one command of the plugin through the tests' kubectl."""
    kube = service.kube
    environment = {**os.environ, "KUBECTL": kube.kubectl, "PYTHONPATH": str(repository() / "operator")}
    where = (f"--namespace={kube.namespace}", f"--kubeconfig={kube.kubeconfig}")
    line = [sys.executable, "-m", "graftwork.cli.main", command, service.name, *arguments, *where]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tree_has_the_pod_its_revision_and_the_adapter(taught: Service) -> None:
    text = graft(taught, "status")
    (pod,) = [line for line in text.splitlines() if taught.pod()["metadata"]["name"] in line]
    assert "ready" in pod
    assert f" on {taught.pod()['spec']['nodeName']}" in pod
    assert ["Ready", "True"] in [line.split()[2:4] for line in text.splitlines()]
    assert "(current)" in text
    assert "medical -> medical-1  loaded 1/1" in text


def test_the_log_of_a_deployment_that_serves_is_its_engines(taught: Service) -> None:
    assert "vLLM" in graft(taught, "logs")


def test_the_log_of_the_agent_is_had_by_its_name(taught: Service) -> None:
    assert "medical" in graft(taught, "logs", "--container=agent")
