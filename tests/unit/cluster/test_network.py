"""Packet filter and address ranges."""

from __future__ import annotations

from tests.cluster.network import collisions, removal

SAVED = """# Generated
*nat
:PREROUTING ACCEPT [1:2]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:GRAFTWORK-EGRESS - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -j GRAFTWORK-EGRESS
-A POSTROUTING -m comment --comment "see KUBE-SERVICES" -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X
COMMIT
"""


def test_our_chains_and_the_jumps_to_them_are_removed_and_no_other_rule() -> None:
    assert removal(SAVED).splitlines() == [
        "*nat",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-D POSTROUTING -j GRAFTWORK-EGRESS",
        "-F KUBE-SERVICES",
        "-F GRAFTWORK-EGRESS",
        "-F CNI-HOSTPORT-DNAT",
        "-X KUBE-SERVICES",
        "-X GRAFTWORK-EGRESS",
        "-X CNI-HOSTPORT-DNAT",
        "COMMIT",
    ]


def test_a_table_without_our_chains_is_not_touched() -> None:
    assert removal("*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n") == ""


def test_an_address_or_route_in_our_ranges_is_named_with_its_interface() -> None:
    found = collisions([("eth0", "192.168.1.7/24"), ("tun0", "10.10.0.9/16")], [("wg0", "10.244.7.0/24"), ("eth0", "0.0.0.0/0")])
    assert len(found) == 2
    assert "tun0" in found[0]
    assert "node range 10.10.0.0/24" in found[0]
    assert "route 10.244.7.0/24 of interface wg0 overlaps the pod range 10.244.0.0/16" in found[1]
