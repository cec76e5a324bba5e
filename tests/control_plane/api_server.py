"""A real API server on loopback for tests: etcd and kube-apiserver, tokens instead of client certificates, everything in one temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.toolchain import build_tools

START_SECONDS = 60
ADMIN_TOKEN = "admin-of-a-test"


def tools_dir() -> Path:
    """Return the folder of kube-apiserver, kubectl, helm, helm-unittest and kubeconform: GRAFTWORK_BIN, else the cache (built if need be)."""
    if own := os.environ.get("GRAFTWORK_BIN"):
        return Path(own)
    return build_tools(print, ["kubernetes", "helm", "helm-unittest", "kubeconform"])


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Program:
    """One running program and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until `ready`; fail with the end of the log if the program ends or the time is up."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.ended_within(0.1) or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{self.name} did not become ready (exit code {self.process.poll()}); its log ends with:\n{tail}")

    def ended_within(self, seconds: float) -> bool:
        """Wait for the program's end, at most so long; tell whether it came."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End the program."""
        self.process.terminate()
        if not self.ended_within(10):
            self.process.kill()
            self.process.wait()


@dataclass
class ApiServer:
    """The running pair. `url`, `ca` and `kubeconfig` are what clients need; `restart` keeps the data."""

    folder: Path
    tools: Path
    port: int
    etcd_port: int
    programs: list[Program]

    @property
    def url(self) -> str:
        """Base URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate that clients must trust."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """Audit log (level Metadata): one JSON object per line."""
        return self.folder / "audit.json"

    def client(self, user: str = "", groups: tuple[str, ...] = ()) -> httpx.Client:
        """Return a client of the administrator, or of whoever the administrator is to impersonate."""
        headers = [("Authorization", f"Bearer {ADMIN_TOKEN}")]
        if user:
            headers += [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)]
        return httpx.Client(base_url=self.url, headers=headers, verify=ssl.create_default_context(cafile=self.ca), timeout=30)

    def run(self, tool: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run kubectl, helm or another tool as the administrator; the caller looks at the exit code."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        return subprocess.run([str(self.tools / tool), *arguments], env=environment, capture_output=True, text=True, check=False, **options)

    def start(self) -> None:
        """Start what does not run and wait until it answers."""
        etcd = self._spawn("etcd", _etcd_command(self))
        etcd.wait_until(lambda: _answers(f"http://127.0.0.1:{self.etcd_port}/health"))
        server = self._spawn("kube-apiserver", _server_command(self))
        server.wait_until(lambda: self.ca.exists() and _answers(f"{self.url}/readyz", ssl.create_default_context(cafile=self.ca)))

    def stop(self) -> None:
        """End both programs, the API server first."""
        for program in reversed(self.programs):
            program.stop()
        self.programs.clear()

    def _spawn(self, name: str, command: list[str]) -> Program:
        log = self.folder / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=self.folder, start_new_session=True)
        program = Program(name, process, log)
        self.programs.append(program)
        return program


def prepare(folder: Path) -> ApiServer:
    """Write keys, tokens and the kubeconfig into `folder`; nothing runs yet."""
    server = ApiServer(folder, tools_dir(), free_port(), free_port(), [])
    (folder / "certs").mkdir()
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
    (folder / "audit-policy.yaml").write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
    )
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server.url, "certificate-authority": str(server.ca)}}],
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
    }
    server.kubeconfig.write_text(yaml.safe_dump(config))
    return server


def _etcd_command(server: ApiServer) -> list[str]:
    etcd = shutil.which("etcd", path=f"{server.tools}:{os.environ.get('PATH', '')}")
    if not etcd:
        raise RuntimeError("etcd is missing; install Debian's package etcd-server")
    client = f"http://127.0.0.1:{server.etcd_port}"
    peer = f"http://127.0.0.1:{free_port()}"
    return [
        *(etcd, "--data-dir", str(server.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
    ]


def _server_command(server: ApiServer) -> list[str]:
    key = str(server.folder / "sa.key")
    return [
        str(server.tools / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{server.etcd_port}",
        *("--bind-address=127.0.0.1", f"--secure-port={server.port}", f"--cert-dir={server.folder / 'certs'}"),
        f"--token-auth-file={server.folder / 'tokens.csv'}",
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}", f"--service-account-issuer={server.url}"),
        *("--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/16"),
        # No controller manager runs: nobody makes the accounts that pods would need, and nobody takes the finalizer off a claim.
        "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection",
        *(f"--audit-log-path={server.audit_log}", f"--audit-policy-file={server.folder / 'audit-policy.yaml'}", "--audit-log-mode=blocking"),
    ]


def _answers(url: str, verify: ssl.SSLContext | bool = True) -> bool:
    try:
        return httpx.get(url, verify=verify, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
