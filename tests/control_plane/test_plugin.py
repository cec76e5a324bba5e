"""`kubectl graft` as kubectl finds and runs it, on objects of a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.control_plane.api_server import ApiServer
from tests.control_plane.conftest import ROOT
from tests.control_plane.test_reconcile import Operator, make, operator
from tests.golden import render

__all__ = ["operator"]

Graft = Callable[..., subprocess.CompletedProcess[str]]
ENTRY = "import sys; from graftwork.cli.main import main; sys.exit(main())"


@pytest.fixture
def graft(api_server: ApiServer, namespace: str, tmp_path: Path) -> Graft:
    """Run `kubectl graft ...` in the test's namespace, with a kubectl-graft on the PATH as its installation makes it."""
    plugin = tmp_path / "kubectl-graft"
    plugin.write_text(f"#!{sys.executable}\n{ENTRY}\n")
    plugin.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(api_server.tools), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(api_server.kubeconfig)}

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(api_server.tools / "kubectl"), "graft", *arguments, "-n", namespace]
        return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture
async def served(operator: Operator) -> Operator:
    """An LLMDeployment `support` whose children are made."""
    await make(operator, "serving-keys")
    await operator.run("LLMDeployment", "support")
    return operator


def test_status_shows_what_the_operator_has_written(served: Operator, graft: Graft) -> None:
    done = graft("status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"LLMDeployment {served.namespace}/support: 0/1 ready, no adapters, revision 1\n")
    assert ["Reconciling", "True"] in [line.split()[2:4] for line in done.stdout.splitlines()]
    assert "(current)" in done.stdout
    assert "pods: none" in done.stdout


def test_logs_without_a_pod_say_so(served: Operator, graft: Graft) -> None:
    done = graft("logs", "support")
    assert (done.returncode, done.stdout) == (1, "")
    assert "support has no pods" in done.stderr


def test_an_error_is_that_of_kubectl(graft: Graft) -> None:
    done = graft("status", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert '"nobody" not found' in done.stderr


async def test_what_a_plan_says_of_restarts_is_what_happens(served: Operator, graft: Graft) -> None:
    """The plan compares with the object as the API server stores it, defaults and all; the operator then does as the plan says."""
    (wanted,) = [item for item in render.read("serving-keys") if item["kind"] == "LLMDeployment"]
    same = {"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": {"name": "support"}, "spec": wanted["spec"]}
    for more, says, restarts in (
        ({}, "nothing changes", False),
        ({"replicas": 2, "access": {"networkPolicy": {}}}, "no pod restarts", False),
        ({"engine": {"enforceEager": True}}, "the pods (1) are replaced one after another", True),
    ):
        done = graft("plan", "-f", "-", stdin=yaml.safe_dump({**same, "spec": {**same["spec"], **more}}))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].startswith(f"LLMDeployment support: {says}")
        before = await revisions(served)
        await served.cluster.merge("LLMDeployment", served.namespace, "support", {"spec": more})
        await served.run("LLMDeployment", "support")
        assert (await revisions(served) != before) is restarts


async def revisions(served: Operator) -> int:
    return len(await served.cluster.list("ControllerRevision", served.namespace))
