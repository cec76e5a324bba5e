"""Addresses, names and folders of the cluster: the one place where they are written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cluster_root

BRIDGE = "gw0"
HOST_ADDRESS = "10.10.0.1"
NODE_NETWORK = "10.10.0.0/24"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443
ETCD_CLIENT_PORT = 12379  # not 2379: where Debian's etcd-server package starts a service of its own it listens there
ETCD_PEER_PORT = 12380
NETNS = "gw-b"
VETH = "gw-b0"
RUN_PREFIX = "graftwork-"


@dataclass(frozen=True)
class Node:
    """One node: where it lies in the network and on the disk. `netns` is None for the node that lives in the host's own network."""

    letter: str
    address: str
    pod_subnet: str
    netns: str | None
    root: Path

    @property
    def name(self) -> str:
        """Return the name of the Kubernetes Node."""
        return f"node-{self.letter}"

    @property
    def folder(self) -> Path:
        """Return the node's own folder; `containerd/` in it survives `down`."""
        return self.root / self.name

    @property
    def run(self) -> Path:
        """Return containerd's state folder, which is gone after `down`."""
        return Path(f"/run/{RUN_PREFIX}{self.letter}")

    @property
    def socket(self) -> Path:
        """Return containerd's socket."""
        return Path(f"/run/{RUN_PREFIX}{self.letter}.sock")

    @property
    def cgroup(self) -> str:
        """Return the name of the cgroup under which all pods of the node run."""
        return f"{RUN_PREFIX}{self.letter}"

    @property
    def volumes(self) -> Path:
        """Return where local-path volumes of this node lie."""
        return self.folder / "volumes"

    @property
    def enter(self) -> list[str]:
        """Return the words in front of a command that is to run in the node's network.

        nsenter and not `ip netns exec`: that one remounts /sys, and the kubelet then finds no cgroups.
        """
        return ["nsenter", f"--net=/run/netns/{self.netns}"] if self.netns else []


@dataclass(frozen=True)
class Layout:
    """Folders of one cluster."""

    root: Path

    @classmethod
    def default(cls) -> Layout:
        """Return the layout that the environment asks for."""
        return cls(cluster_root())

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Return both nodes."""
        return (
            Node("a", HOST_ADDRESS, "10.244.1.0/24", None, self.root),
            Node("b", "10.10.0.2", "10.244.2.0/24", NETNS, self.root),
        )

    def node(self, letter: str) -> Node:
        """Return the node with this letter."""
        return {node.letter: node for node in self.nodes}[letter]

    @property
    def pki(self) -> Path:
        """Return the folder of keys and certificates."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """Return the folder of one log per component, kept after `down` until the next `up`."""
        return self.root / "log"

    @property
    def audit_log(self) -> Path:
        """Return the API server's audit log: one JSON object per line."""
        return self.logs / "audit.json"

    @property
    def shared_volumes(self) -> Path:
        """Return where the volumes lie that both nodes can mount."""
        return self.root / "shared-volumes"

    @property
    def components(self) -> Path:
        """Return the folder with one file per component: its command and, while it runs, its process."""
        return self.root / "components"

    @property
    def etcd(self) -> Path:
        """Return etcd's data folder, thrown away by `down`."""
        return self.root / "etcd"

    @property
    def config(self) -> Path:
        """Return the folder of the rendered configuration files of the control plane."""
        return self.root / "config"

    @property
    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.root / "admin.kubeconfig"

    def user_kubeconfig(self, user: str) -> Path:
        """Return the kubeconfig of one component's user."""
        return self.kubeconfig if user == "admin" else self.config / f"{user}.kubeconfig"

    @property
    def phase(self) -> Path:
        """Return the file that says `starting`, `up` or `stopping`; absent when the cluster is down."""
        return self.root / "phase"

    @property
    def before(self) -> Path:
        """Return the file with what the machine's settings were before `up`, from which `down` restores them."""
        return self.root / "before.json"

    @property
    def lock(self) -> Path:
        """Return the file that keeps two `up` or `down` apart."""
        return self.root / "lock"

    @property
    def images(self) -> Path:
        """Return the folder of the archives of the cluster's own two images."""
        return self.root / "images"
