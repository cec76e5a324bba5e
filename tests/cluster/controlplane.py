"""etcd, API server, controller manager and scheduler as processes of the host."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cluster import processes
from tests.cluster.api import Api
from tests.cluster.cache import write_atomically
from tests.cluster.layout import API_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT, HOST_ADDRESS, SERVICE_NETWORK, Layout
from tests.cluster.processes import Component
from tests.cluster.progress import ClusterError
from tests.cluster.waiting import until

READY_SECONDS = 90
AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}


def etcd(layout: Layout) -> Component:
    """Return etcd: one member, in nobody's way, and without fsync, because the data lives as long as the cluster."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (ETCD_CLIENT_PORT, ETCD_PEER_PORT))
    command = ["etcd", "--data-dir", str(layout.etcd), "--unsafe-no-fsync", "--name", "graftwork"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"graftwork={peer}"]
    return Component("etcd", command, {})


def apiserver(layout: Layout, binaries: Path) -> Component:
    """Return the API server, with the audit log on and the aggregation layer ready for metrics adapters."""
    pki = layout.pki
    flags = {
        "etcd-servers": f"http://127.0.0.1:{ETCD_CLIENT_PORT}",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "advertise-address": HOST_ADDRESS,
        "bind-address": HOST_ADDRESS,
        "secure-port": str(API_PORT),
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-client-certificate": pki / "admin.crt",
        "kubelet-client-key": pki / "admin.key",
        # Node names resolve nowhere: without this, logs and exec fail.
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": pki / "ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": pki / "front-proxy.crt",
        "proxy-client-key-file": pki / "front-proxy.key",
        "enable-aggregator-routing": "true",
        "audit-policy-file": layout.config / "audit.json",
        "audit-log-path": layout.audit_log,
    }
    return Component("apiserver", [str(binaries / "kube-apiserver"), *(f"--{name}={value}" for name, value in flags.items())], {})


def _with_kubeconfig(layout: Layout, user: str) -> dict[str, object]:
    path = layout.user_kubeconfig(user)
    return {
        "kubeconfig": path,
        "authentication-kubeconfig": path,
        "authorization-kubeconfig": path,
        "bind-address": HOST_ADDRESS,
        "leader-elect": "false",
    }


def controller_manager(layout: Layout, binaries: Path) -> Component:
    """Return the controller manager; the autoscaler looks every 5 s instead of 15, so that tests of scaling end sooner."""
    flags = {
        **_with_kubeconfig(layout, "controller-manager"),
        "service-account-private-key-file": layout.pki / "service-accounts.key",
        "root-ca-file": layout.pki / "ca.crt",
        "cluster-signing-cert-file": layout.pki / "ca.crt",
        "cluster-signing-key-file": layout.pki / "ca.key",
        "use-service-account-credentials": "true",
        "horizontal-pod-autoscaler-sync-period": "5s",
    }
    return Component("controller-manager", [str(binaries / "kube-controller-manager"), *(f"--{name}={value}" for name, value in flags.items())], {})


def scheduler(layout: Layout, binaries: Path) -> Component:
    """Return the scheduler."""
    flags = _with_kubeconfig(layout, "scheduler")
    return Component("scheduler", [str(binaries / "kube-scheduler"), *(f"--{name}={value}" for name, value in flags.items())], {})


def wait_api(layout: Layout) -> None:
    """Wait until the API server is ready; end early, with its last words, if it ended itself."""
    pid = processes.pid_of(layout, "apiserver")
    handle = os.pidfd_open(pid) if pid else None
    try:
        if pid and until(Api(layout).ready, READY_SECONDS, handle):
            return
    finally:
        if handle is not None:
            os.close(handle)
    state = f"not ready after {READY_SECONDS} s" if processes.pid_of(layout, "apiserver") else "has ended"
    raise ClusterError(f"API server {state}; the end of {layout.logs / 'apiserver.log'}:\n{processes.ended(layout.logs / 'apiserver.log')}")


def start_storage_and_api(layout: Layout, binaries: Path) -> None:
    """Start etcd and the API server; returns at once."""
    write_atomically(layout.config / "audit.json", json.dumps(AUDIT_POLICY))
    layout.etcd.mkdir(parents=True, exist_ok=True, mode=0o700)
    processes.start(layout, etcd(layout))
    processes.start(layout, apiserver(layout, binaries))


def start_controllers(layout: Layout, binaries: Path) -> None:
    """Start what works on the API server, once that is ready."""
    processes.start(layout, controller_manager(layout, binaries))
    processes.start(layout, scheduler(layout, binaries))
