"""coredns as a process of the host, on the bridge address that both nodes' pods reach."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import processes
from tests.cluster.cache import write_atomically
from tests.cluster.layout import HOST_ADDRESS, Layout
from tests.cluster.processes import Component

RESOLV_CONF = Path("/etc/resolv.conf")


def corefile(kubeconfig: Path, upstream: bool) -> str:
    """Return coredns's configuration; names outside the cluster go to the machine's own servers, where it has any."""
    lines = [
        ".:53 {",
        f"  bind {HOST_ADDRESS}",
        "  errors",
        f"  health {HOST_ADDRESS}:8181",
        f"  ready {HOST_ADDRESS}:8182",
        "  kubernetes cluster.local in-addr.arpa ip6.arpa {",
        f"    kubeconfig {kubeconfig}",
        "    pods insecure",
        "    fallthrough in-addr.arpa ip6.arpa",
        "    ttl 5",
        "  }",
    ]
    if upstream:
        # The names of the cluster come out of memory; only the answers of others are kept, and for a short time.
        lines += [f"  forward . {RESOLV_CONF}", "  cache 30 {", "    disable success cluster.local", "    disable denial cluster.local", "  }"]
    return "\n".join([*lines, "}"]) + "\n"


def has_upstream(text: str) -> bool:
    """Tell whether a resolv.conf names a server."""
    return any(line.split()[:1] == ["nameserver"] for line in text.splitlines())


def start(layout: Layout, binaries: Path) -> None:
    """Start coredns; it answers as soon as it has read the cluster's Services."""
    path = layout.config / "Corefile"
    upstream = RESOLV_CONF.exists() and has_upstream(RESOLV_CONF.read_text())
    write_atomically(path, corefile(layout.user_kubeconfig("coredns"), upstream))
    processes.start(layout, Component("coredns", [str(binaries / "coredns"), "-conf", str(path)], {}))
