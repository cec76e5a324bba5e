"""The operator as a process with the rights of the chart: what it does when it runs, idles, is told to stop, loses the Lease or the API server."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.control_plane.api_server import ApiServer, free_port
from tests.control_plane.conftest import ROOT
from tests.control_plane.objects import Objects

RSS_LIMIT_BYTES = 150 * 1024 * 1024
QUICK = {"GRAFTWORK_CONFIG_RESYNC_SECONDS": "1", "GRAFTWORK_CONFIG_LEASE__DURATION_SECONDS": "5", "GRAFTWORK_CONFIG_LEASE__RENEW_SECONDS": "1"}


def until(holds: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Ask again and again until the answer is true; return it.

    It asks because what it waits for are a process's lines, metrics and port, of which nobody sends word.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Operator:
    """One process."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def answer(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except httpx.HTTPError:
            return None

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        answer = self.answer("/readyz")
        return answer is not None and answer.status_code == 200

    def leads(self) -> bool:
        return self.ready() and self.metric("graftwork_lease_held") == 1

    def metric(self, start: str) -> float:
        """Return the sum of the series whose lines begin so."""
        answer = self.answer("/metrics")
        lines = answer.text.splitlines() if answer else []
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def passes(self, count: int) -> None:
        """Wait for so many more passes."""
        begin = self.metric("graftwork_reconcile_passes_total")
        until(lambda: self.metric("graftwork_reconcile_passes_total") >= begin + count, f"{count} more passes")

    def ends(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)


@dataclass
class Installation:
    """The chart's account, rights, configuration and Lease for one namespace, without its Deployment: the process runs here."""

    server: ApiServer
    namespace: str
    folder: Path
    account: str
    running: list[Operator] = field(default_factory=list)

    def start(self, **environment: str) -> Operator:
        port = free_port()
        log = self.folder / f"operator-{len(self.running)}.log"
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(self.folder / "operator.kubeconfig"),
            "GRAFTWORK_CONFIG": str(self.folder / "config.yaml"),
            "GRAFTWORK_CONFIG_PORT": str(port),
            "GRAFTWORK_CONFIG_LOG_FORMAT": "text",
            **QUICK,
            **environment,
        }
        with log.open("wb") as stream:
            process = subprocess.Popen([sys.executable, "-m", "graftwork"], env=settings, stdout=stream, stderr=stream)
        operator = Operator(process, log, port)
        self.running.append(operator)
        return operator

    def lease(self) -> dict[str, Any]:
        with self.server.client() as admin:
            spec: dict[str, Any] = admin.get(self._lease_path()).json()["spec"]
            return spec

    def take_lease(self, holder: str) -> None:
        with self.server.client() as admin:
            patch = {"spec": {"holderIdentity": holder}}
            admin.patch(self._lease_path(), json=patch, headers={"Content-Type": "application/merge-patch+json"}).raise_for_status()

    def writes(self) -> list[str]:
        """Return what the operator's account wrote besides its Lease, and every request of it that was refused: verb, resource, code."""
        found = []
        for line in self.server.audit_log.read_text().splitlines():
            entry = json.loads(line)
            if entry["user"]["username"] != self.account:
                continue
            resource, code = entry.get("objectRef", {}).get("resource", ""), entry.get("responseStatus", {}).get("code", 0)
            wrote = entry["verb"] in ("create", "update", "patch", "delete") and resource != "leases"
            if wrote or code == 403:
                found.append(f"{entry['verb']} {resource} {code}")
        return found

    def _lease_path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.namespace}-operator"


def install(server: ApiServer, namespace: str, folder: Path, watched: list[str]) -> Installation:
    """Apply the chart's objects of the operator but its Deployment, and write kubeconfig and configuration."""
    values = {"nameOverride": namespace, "watchNamespaces": watched, "admissionPolicy": {"enabled": False}, "store": {"url": "s3://graftwork/store"}}
    rendered = server.run("helm", "template", "graftwork", "charts/graftwork", "-n", namespace, "--values", "-", input=json.dumps(values), cwd=ROOT)
    assert rendered.returncode == 0, rendered.stderr
    objects = [obj for obj in yaml.safe_load_all(rendered.stdout) if obj and obj["kind"] != "Deployment"]
    applied = server.run("kubectl", "apply", "-f", "-", input=yaml.safe_dump_all(objects))
    assert applied.returncode == 0, applied.stderr
    (config,) = [obj for obj in objects if obj["kind"] == "ConfigMap"]
    (folder / "config.yaml").write_text(config["data"]["config.yaml"])
    token = server.run("kubectl", "create", "token", namespace, "-n", namespace).stdout.strip()
    kubeconfig = yaml.safe_load(server.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": "admin", "user": {"token": token}}]
    (folder / "operator.kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    payload = token.split(".")[1]
    account = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    return Installation(server, namespace, folder, account)


def clear(admin: httpx.Client) -> None:
    """Delete every resource of ours that earlier tests left: some of those still have news after a while, as an import whose pod never comes."""
    for plural in ("finetunejobs", "loraadapters", "llmdeployments"):
        for item in admin.get(f"/apis/graftwork.dev/v1alpha1/{plural}").json()["items"]:
            url = f"/apis/graftwork.dev/v1alpha1/namespaces/{item['metadata']['namespace']}/{plural}/{item['metadata']['name']}"
            patch = {"metadata": {"finalizers": None}}
            admin.patch(url, json=patch, headers={"Content-Type": "application/merge-patch+json"})
            admin.delete(url)


@pytest.fixture(params=["its namespace", "all namespaces"])
def anywhere(request: pytest.FixtureRequest, api_server: ApiServer, admin: httpx.Client, namespace: str, tmp_path: Path) -> Iterator[Installation]:
    clear(admin)
    made = install(api_server, namespace, tmp_path, [namespace] if request.param == "its namespace" else [])
    yield made
    end(made)


@pytest.fixture
def installation(api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Installation]:
    made = install(api_server, namespace, tmp_path, [namespace])
    yield made
    end(made)


def end(installation: Installation) -> None:
    for operator in installation.running:
        operator.process.kill()
        operator.process.wait()


def quiet(installation: Installation, operator: Operator, passes: int) -> bool:
    """Return whether so many passes wrote nothing."""
    before = installation.writes()
    operator.passes(passes)
    return installation.writes() == before


def test_it_makes_children_then_writes_nothing_but_its_lease_and_stays_small(anywhere: Installation, objects: Objects, admin: httpx.Client) -> None:
    objects.made("LLMDeployment")
    objects.made("LoRAAdapter", name="medical-8")
    operator = anywhere.start()
    until(operator.leads, "leading and ready")
    path = f"/apis/apps/v1/namespaces/{anywhere.namespace}/deployments/one"
    until(lambda: admin.get(path).status_code == 200, "the Deployment")
    until(lambda: "status" in admin.get(objects.url("LoRAAdapter", "medical-8")).json(), "the adapter's status")
    # Each resource gets several passes.
    several = 3 * int(operator.metric("graftwork_resources"))
    until(lambda: quiet(anywhere, operator, several), "it settles", 60)

    before = anywhere.writes()
    operator.passes(several)
    assert anywhere.writes() == before, "written while idle"
    assert before, "and yet it wrote before"
    assert not [entry for entry in before if entry.endswith(" 403")], "the chart's rights do not suffice"

    objects.patch("LLMDeployment", {"spec": {"replicas": 3}})
    until(lambda: admin.get(path).json()["spec"]["replicas"] == 3, "the edit")
    assert len(anywhere.writes()) > len(before), "the query would see a write"

    metadata = admin.get(objects.url("LLMDeployment", "one")).json()["metadata"]
    assert not [key for key in metadata.get("annotations", {}) if "kopf" in key]
    assert not [name for name in metadata.get("finalizers", []) if "kopf" in name]
    pages = int(Path(f"/proc/{operator.process.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") <= RSS_LIMIT_BYTES
    assert operator.metric("graftwork_mirror_repairs_total") == 0
    health = operator.answer("/healthz")
    assert health is not None
    assert health.json() == {"ok": True, "problems": {}}


def test_a_deleted_child_is_back_at_once(installation: Installation, objects: Objects, admin: httpx.Client) -> None:
    objects.made("LLMDeployment")
    operator = installation.start(GRAFTWORK_CONFIG_RESYNC_SECONDS="600")
    path = f"/api/v1/namespaces/{installation.namespace}/services/one"
    uid = until(lambda: admin.get(path).json().get("metadata", {}).get("uid"), "the Service")
    until(operator.leads, "leading")
    admin.delete(path).raise_for_status()
    assert until(lambda: admin.get(path).json().get("metadata", {}).get("uid", uid) != uid, "another Service", 5)


def test_a_term_signal_ends_it_in_order_and_the_next_need_not_wait(installation: Installation, objects: Objects) -> None:
    objects.made("LLMDeployment")
    operator = installation.start()
    until(operator.leads, "leading")
    operator.process.send_signal(signal.SIGTERM)
    assert operator.ends(10) == 0, operator.log.read_text()
    assert not installation.lease()["holderIdentity"]
    successor = installation.start()
    until(successor.leads, "leading", 4.9)


def test_a_term_signal_ends_a_stand_by_too(installation: Installation) -> None:
    installation.take_lease("somebody")
    operator = installation.start()
    until(operator.ready, "a stand-by is ready")
    operator.process.send_signal(signal.SIGTERM)
    assert operator.ends(10) == 0
    assert installation.lease()["holderIdentity"] == "somebody"


def test_only_one_of_two_acts_and_the_other_takes_over_when_it_dies(installation: Installation) -> None:
    first = installation.start()
    until(first.leads, "leading")
    second = installation.start()
    until(second.ready, "a stand-by is ready")
    assert second.metric("graftwork_lease_held") == 0
    first.process.kill()
    until(second.leads, "takes over", 20)


def test_a_lease_that_another_took_ends_the_process_with_1(installation: Installation) -> None:
    operator = installation.start()
    until(operator.leads, "leading")
    installation.take_lease("somebody")
    assert operator.ends(5) == 1
    assert "was taken by somebody" in operator.log.read_text()
    assert installation.lease()["holderIdentity"] == "somebody"


def test_a_process_that_was_frozen_past_its_lease_ends_with_1_and_disturbs_nobody(
    installation: Installation, objects: Objects, admin: httpx.Client
) -> None:
    objects.made("LLMDeployment")
    first = installation.start()
    path = f"/apis/apps/v1/namespaces/{installation.namespace}/deployments/one"
    until(lambda: admin.get(path).status_code == 200, "the Deployment")
    first.process.send_signal(signal.SIGSTOP)
    second = installation.start()
    until(second.leads, "takes over", 20)
    first.process.send_signal(signal.SIGCONT)
    assert first.ends(10) == 1
    until(second.leads, "still leading")


def test_it_ends_with_1_when_the_api_server_is_gone_and_works_again_after_both_are_back(
    installation: Installation, objects: Objects, admin: httpx.Client
) -> None:
    operator = installation.start()
    until(operator.leads, "leading")
    try:
        installation.server.stop()
        assert operator.ends(20) == 1
        assert "could not be renewed in time" in operator.log.read_text()
        waiting = installation.start()
        until(lambda: waiting.answer("/healthz") is not None, "it listens without an API server")
        assert not waiting.ready()
    finally:
        installation.server.start()
    objects.made("LLMDeployment")
    path = f"/apis/apps/v1/namespaces/{installation.namespace}/deployments/one"
    until(lambda: admin.get(path).status_code == 200, "the Deployment")


def test_a_refused_configuration_ends_it_with_1_and_says_why(installation: Installation) -> None:
    operator = installation.start(GRAFTWORK_CONFIG_RESYNC_SECONDS="never")
    assert operator.ends(10) == 1
    assert "resyncSeconds" in operator.log.read_text()
