"""Where `make bench-serving` measures the operator itself: on the embedded cluster, or against an API server alone.

The API server alone has neither nodes nor controllers: no pods are made, and nothing but the operator uses the machine. What is measured there is
the operator, not the installation, so its figures are named apart.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cluster.layout import API_PORT, HOST_ADDRESS, Layout
from tests.harness import ask, audit, install, machine
from tests.harness.install import Environment
from tests.harness.venv import ROOT

RESYNC_SECONDS = 60
CLIENT_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """An API server, and the operator that acts on it. `suffix` names the place in figures; `environment` is None without a cluster."""

    suffix: str
    client: httpx.Client
    audit_log: Path
    operator: str
    """The name of the operator's account in the audit log."""
    metrics: Callable[[], str]
    """What the operator's /metrics says now."""
    environment: Environment | None = None


@contextmanager
def cluster() -> Iterator[Place]:
    """Give the embedded cluster with Graftwork installed; what is not there is made."""
    environment = install.prepare(resyncSeconds=RESYNC_SECONDS)
    pki = Layout.default().pki
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
    with httpx.Client(base_url=f"https://{HOST_ADDRESS}:{API_PORT}", verify=context, timeout=CLIENT_SECONDS) as client:
        host = _operator_address(environment)
        yield Place("", client, machine.audit_log(), audit.OPERATOR, lambda: ask.get(host, 8080, "/metrics")[1], environment)


def _operator_address(environment: Environment) -> str:
    kube = environment.kube.within(install.SYSTEM_NAMESPACE)
    (pod,) = [each for each in kube.list("pods", "app.kubernetes.io/component=operator") if each["status"]["phase"] == "Running"]
    return str(pod["status"]["podIP"])


@contextmanager
def alone() -> Iterator[Place]:
    """Start an API server and the operator as a process with the chart's rights; both are gone afterwards."""
    from tests.control_plane import test_runtime_process as process
    from tests.control_plane.api_server import prepare

    with tempfile.TemporaryDirectory(prefix="graftwork-bench-") as scratch:
        folder = Path(scratch)
        (folder / "server").mkdir()
        server = prepare(folder / "server")
        try:
            server.start()
            for arguments in (
                ("apply", "--server-side", "-f", str(ROOT / "crds")),
                ("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"),
                ("create", "namespace", install.SYSTEM_NAMESPACE),
            ):
                done = server.run("kubectl", *arguments)
                if done.returncode:
                    raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
            installed = process.install(server, install.SYSTEM_NAMESPACE, folder, [])
            try:
                operator = installed.start(
                    GRAFTWORK_CONFIG_RESYNC_SECONDS=str(RESYNC_SECONDS),
                    GRAFTWORK_CONFIG_LEASE__DURATION_SECONDS="15",
                    GRAFTWORK_CONFIG_LEASE__RENEW_SECONDS="5",
                )
                process.until(operator.leads, "the operator leads")
                with server.client() as client:
                    yield Place(
                        ", API server alone",
                        client,
                        server.audit_log,
                        installed.account,
                        lambda: ask.get("127.0.0.1", operator.port, "/metrics")[1],
                    )
            finally:
                process.end(installed)
        finally:
            server.stop()


PLACES = {"cluster": cluster, "api-server": alone}
