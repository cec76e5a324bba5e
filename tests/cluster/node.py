"""One node: containerd, kubelet and kube-proxy, with folders, cgroup and network of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.cluster import machine, processes
from tests.cluster.cache import write_atomically
from tests.cluster.images_load import ctr
from tests.cluster.layout import HOST_ADDRESS, POD_NETWORK, Layout, Node
from tests.cluster.processes import Component
from tests.cluster.progress import ClusterError
from tests.cluster.shell import run
from tests.cluster.waiting import until

CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
CONTAINERD_SECONDS = 30


def cni_bin() -> str:
    """Return where the CNI plugins lie: Debian's folder, else the usual one."""
    return next((folder for folder in CNI_FOLDERS if Path(folder, "ptp").exists()), CNI_FOLDERS[0])


def cni_config(node: Node) -> str:
    """Return the pod network of one node.

    ptp and not bridge: every packet between pods is routed by the host, so a Service whose pod lies on the caller's own node needs no br_netfilter.
    """
    ipam = {"type": "host-local", "ranges": [[{"subnet": node.pod_subnet}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(node.folder / "ipam")}
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "1.0.0", "name": f"graftwork-{node.letter}", "plugins": plugins}, indent=1)


def containerd_config(node: Node, pause: str) -> str:
    """Return containerd's configuration (version 2, which containerd 1.6 to 2.x read): nothing of the machine's own containerd is touched.

    restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox would fail with "can't get final child's PID".
    """
    return f"""version = 2
root = "{node.folder}/containerd"
state = "{node.run}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{node.socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{node.folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_bin()}"
  conf_dir = "{node.folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "{node.run}/runc"
"""


def kubelet_config(layout: Layout, node: Node) -> dict[str, object]:
    """Return the kubelet's configuration.

    Disk evictions are off: a cache on a full disk is no reason to evict. A changed ConfigMap reaches a pod by a watch, as on a real node.
    Each node has its own podLogsDir: with a shared one each kubelet deletes the logs of the other's pods.
    """
    pki = layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(pki / "ca.crt")}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "address": node.address,
        "healthzPort": 0,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "podLogsDir": str(node.folder / "logs"),
        "volumePluginDir": str(node.folder / "volume-plugins"),
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "clusterDNS": [HOST_ADDRESS],
        "clusterDomain": "cluster.local",
        "tlsCertFile": str(pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
        "enforceNodeAllocatable": [],
        "serializeImagePulls": False,
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "containerLogMaxSize": "50Mi",
    }


def containerd(node: Node) -> Component:
    """Return the node's containerd."""
    return Component(f"containerd-{node.letter}", [*node.enter, "containerd", "-c", str(node.folder / "containerd.toml")], {})


def kubelet(layout: Layout, node: Node, binaries: Path) -> Component:
    """Return the node's kubelet."""
    flags = {
        "config": node.folder / "kubelet.json",
        "kubeconfig": layout.user_kubeconfig(node.name),
        "hostname-override": node.name,
        "root-dir": node.folder / "kubelet",
        "node-ip": node.address,
        "cert-dir": node.folder / "kubelet-pki",
    }
    return Component(f"kubelet-{node.letter}", [*node.enter, str(binaries / "kubelet"), *(f"--{k}={v}" for k, v in flags.items())], {})


def proxy(layout: Layout, node: Node, binaries: Path) -> Component:
    """Return the node's kube-proxy; it leaves the machine's connection tracking limits alone."""
    flags = {
        "kubeconfig": layout.user_kubeconfig("proxy"),
        "cluster-cidr": POD_NETWORK,
        "proxy-mode": "iptables",
        "hostname-override": node.name,
        "conntrack-max-per-core": 0,
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
        "iptables-localhost-nodeports": "false",
        "healthz-bind-address": f"{node.address}:10256",
        "metrics-bind-address": f"{node.address}:10249",
    }
    return Component(f"proxy-{node.letter}", [*node.enter, str(binaries / "kube-proxy"), *(f"--{k}={v}" for k, v in flags.items())], {})


def start_runtime(layout: Layout, node: Node, pause: str) -> None:
    """Start containerd and wait until it answers; throw away what pods of an earlier cluster left in its store."""
    for name in ("cni", "containerd", "kubelet", "logs", "volumes"):
        (node.folder / name).mkdir(parents=True, exist_ok=True)
    write_atomically(node.folder / "cni" / "10-pods.conflist", cni_config(node))
    write_atomically(node.folder / "containerd.toml", containerd_config(node, pause))
    write_atomically(node.folder / "kubelet.json", json.dumps(kubelet_config(layout, node), indent=1))
    machine.make_cgroup(node)
    wait_runtime(layout, node, processes.start(layout, containerd(node)))
    purge(node)


def wait_runtime(layout: Layout, node: Node, pid: int) -> None:
    """Wait until containerd answers on its socket."""
    handle = os.pidfd_open(pid)
    try:
        if until(lambda: _answers(node), CONTAINERD_SECONDS, handle):
            return
    finally:
        os.close(handle)
    log = layout.logs / f"containerd-{node.letter}.log"
    raise ClusterError(f"containerd of {node.name} does not answer on {node.socket}; the end of {log}:\n{processes.ended(log)}")


def _answers(node: Node) -> bool:
    return node.socket.exists() and "Server:" in ctr(node, "version", check=False)


def start_kubelet(layout: Layout, node: Node, binaries: Path) -> None:
    """Start kubelet and kube-proxy; returns at once."""
    processes.start(layout, kubelet(layout, node, binaries))
    processes.start(layout, proxy(layout, node, binaries))


def purge(node: Node) -> None:
    """Remove every container, its task and its writable layer from containerd; images stay."""
    if tasks := ctr(node, "tasks", "ls", "-q", check=False).split():
        ctr(node, "tasks", "rm", "-f", *tasks, check=False)
    if containers := ctr(node, "containers", "ls", "-q", check=False).split():
        ctr(node, "containers", "rm", *containers, check=False)
    rows = [line.split() for line in ctr(node, "snapshots", "ls", check=False).splitlines()[1:]]
    for key in [row[0] for row in rows if row and row[-1] == "Active"]:
        ctr(node, "snapshots", "rm", key, check=False)
    if leases := ctr(node, "leases", "ls", "-q", check=False).split():
        ctr(node, "leases", "rm", *leases, check=False)
    # The CRI plugin keeps a folder per sandbox and container here, and reads no folder whose container is gone.
    for name in ("sandboxes", "containers"):
        shutil.rmtree(node.folder / "containerd" / "io.containerd.grpc.v1.cri" / name, ignore_errors=True)


def stop(layout: Layout, node: Node) -> None:
    """End the node: kubelet first, so that nothing is started again, then pods, then containerd and what it left."""
    processes.stop(layout, f"kubelet-{node.letter}", f"proxy-{node.letter}")
    machine.kill_pods(node)
    name = f"containerd-{node.letter}"
    if processes.pid_of(layout, name) and _answers(node):
        purge(node)
    processes.stop(layout, name)


def clear(node: Node) -> None:
    """Take away mounts, sockets, cgroups and folders of a node whose processes have ended; images stay."""
    _unlink_shim_sockets(node)
    for point in reversed([m for m in machine.mount_points() if m.startswith((f"{node.folder}/", f"{node.run}/"))]):
        run(["umount", "-l", point], check=False)
    machine.remove_cgroup(node)
    for socket in (node.socket, Path(f"{node.socket}.ttrpc")):
        socket.unlink(missing_ok=True)
    for folder in (node.run, *(node.folder / name for name in ("ipam", "kubelet", "kubelet-pki", "logs", "volumes", "cni"))):
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, but nothing through a mount that could not be taken away: that would delete somebody's volume."""
    if not any(f"{point}/".startswith(f"{folder}/") for point in machine.mount_points()):
        shutil.rmtree(folder, ignore_errors=True)


def _unlink_shim_sockets(node: Node) -> None:
    for address in node.run.glob("io.containerd.runtime.v2.task/*/*/address"):
        path = Path(address.read_text().strip().removeprefix("unix://"))
        if path.is_relative_to("/run/containerd/s"):
            path.unlink(missing_ok=True)
