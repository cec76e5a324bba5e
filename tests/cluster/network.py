"""The bridge, node b's network namespace, routes and packet filter rules: made by `up`, taken away by `down` to the last one."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.layout import BRIDGE, HOST_ADDRESS, NETNS, NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK, VETH, Layout
from tests.cluster.progress import ClusterError
from tests.cluster.shell import run, succeeds

FORWARD = "GRAFTWORK-FORWARD"
INPUT = "GRAFTWORK-INPUT"
EGRESS = "GRAFTWORK-EGRESS"
OUR_CHAINS = re.compile(r"^(GRAFTWORK|KUBE|CNI)-")
TABLES = ("filter", "nat", "mangle", "raw")


def collisions(addresses: Iterable[tuple[str, str]], routes: Iterable[tuple[str, str]]) -> list[str]:
    """Return one sentence for each existing address or route that lies in our ranges, given as (interface, network)."""
    ours = {"node": NODE_NETWORK, "pod": POD_NETWORK, "Service": SERVICE_NETWORK}
    found = []
    for kind, rows in (("address", addresses), ("route", routes)):
        for interface, text in rows:
            network = ipaddress.ip_network(text, strict=False)
            for name, range_ in ours.items():
                if network.version == 4 and network.prefixlen > 0 and network.overlaps(ipaddress.ip_network(range_)):
                    found.append(
                        f"{kind} {text} of interface {interface} overlaps the {name} range {range_}; take that interface down while the cluster runs"
                    )
    return found


def find_collisions() -> list[str]:
    """Look for collisions on this machine, our own interfaces left aside."""
    addresses = [
        (link["ifname"], f"{a['local']}/{a['prefixlen']}")
        for link in json.loads(run(["ip", "-j", "-4", "addr"]) or "[]")
        for a in link.get("addr_info", [])
        if link["ifname"] != BRIDGE
    ]
    routes = [
        (route.get("dev", "?"), route["dst"])
        for route in json.loads(run(["ip", "-j", "-4", "route"]) or "[]")
        if route["dst"] != "default" and route.get("dev") != BRIDGE
    ]
    return collisions(addresses, routes)


def foreign_kubernetes() -> bool:
    """Tell whether another kubelet or kube-proxy works in this machine's packet filter."""
    return any(":KUBE-" in run(["iptables-save", "-t", table], check=False) for table in ("filter", "nat"))


def up(layout: Layout) -> None:
    """Make the network; every step may already be done."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "addr", "replace", f"{HOST_ADDRESS}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    node = layout.node("b")
    if not Path(f"/run/netns/{NETNS}").exists():
        run(["ip", "netns", "add", NETNS])
    if not Path(f"/sys/class/net/{VETH}").exists():
        run(["ip", "link", "add", VETH, "type", "veth", "peer", "name", "eth0", "netns", NETNS])
    run(["ip", "link", "set", VETH, "master", BRIDGE, "up"])
    inside = ("ip", "-n", NETNS)
    run([*inside, "addr", "replace", f"{node.address}/24", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "route", "replace", "default", "via", HOST_ADDRESS])
    run(["ip", "route", "replace", node.pod_subnet, "via", node.address])
    for enter in ([], node.enter):
        run([*enter, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    _allow()


def _allow() -> None:
    """Let the cluster's packets through whatever the machine's own policy is, and give pods the way out that a node would.

    Chains of our own, called first: nothing of the machine's rules or policies changes, so nothing is to be restored.
    """
    ranges = (POD_NETWORK, NODE_NETWORK)
    for chain, hook, table, rules in (
        (FORWARD, "FORWARD", "filter", [f"-{side} {r} -j ACCEPT" for r in ranges for side in "sd"]),
        (INPUT, "INPUT", "filter", [f"-s {r} -j ACCEPT" for r in ranges]),
        (EGRESS, "POSTROUTING", "nat", [f"-s {r} -d {d} -j RETURN" for r in ranges for d in ranges] + [f"-s {r} -j MASQUERADE" for r in ranges]),
    ):
        if not succeeds(["iptables", "-w", "-t", table, "-n", "-L", chain]):
            lines = [f"*{table}", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), f"-I {hook} 1 -j {chain}", "COMMIT"]
            run(["iptables-restore", "-w", "--noflush"], "\n".join(lines) + "\n")


def removal(saved: str) -> str:
    """Turn the output of `iptables-save -t TABLE` into input for `iptables-restore --noflush` that takes our chains away and nothing else."""
    table = ""
    chains: list[str] = []
    jumps: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith(":"):
            name = line[1:].split()[0]
            if OUR_CHAINS.match(name):
                chains.append(name)
        elif line.startswith("-A "):
            words = line.split()
            if not OUR_CHAINS.match(words[1]) and any(w in {"-j", "-g"} and OUR_CHAINS.match(words[i + 1]) for i, w in enumerate(words[:-1])):
                jumps.append("-D" + line[2:])
    if not chains:
        return ""
    return "\n".join([table, *jumps, *(f"-F {c}" for c in chains), *(f"-X {c}" for c in chains), "COMMIT"]) + "\n"


def _clear_filter() -> None:
    for family in ("iptables", "ip6tables"):
        for table in TABLES:
            if orders := removal(run([f"{family}-save", "-t", table], check=False)):
                run([f"{family}-restore", "-w", "--noflush"], orders)


def down(layout: Layout) -> None:
    """Take the network away; every part may already be gone."""
    node = layout.node("b")
    succeeds(["ip", "route", "del", node.pod_subnet, "via", node.address])
    if Path(f"/run/netns/{NETNS}").exists():
        run(["ip", "netns", "del", NETNS])
    for link in (VETH, BRIDGE):
        if Path(f"/sys/class/net/{link}").exists():
            succeeds(["ip", "link", "del", link])
    _clear_filter()
    for address in (POD_NETWORK, NODE_NETWORK):
        succeeds(["conntrack", "-D", "-s", address])


def require_free() -> None:
    """Refuse to start where another network or another Kubernetes is in the way."""
    problems = find_collisions()
    if foreign_kubernetes():
        problems.append(
            "another Kubernetes has KUBE- chains in this machine's iptables; stop it first (its kube-proxy and ours would undo each other's rules)"
        )
    if problems:
        raise ClusterError("the network of this machine is not free for the cluster:\n" + "\n".join(f"  {problem}" for problem in problems))
