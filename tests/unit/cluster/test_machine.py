"""cgroup versions, and what counts as left behind."""

from __future__ import annotations

from tests.cluster.leftovers import compare, filter_rules
from tests.cluster.machine import cgroup_mounts

V1 = """30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:13 - cgroup cgroup rw,name=systemd
"""
V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_1_is_known_by_its_memory_controller_even_beside_a_unified_hierarchy() -> None:
    both = "/sys/fs/cgroup/cpu,cpuacct"
    assert cgroup_mounts(V1) == (1, {"cpu": both, "cpuacct": both, "memory": "/sys/fs/cgroup/memory", "name=systemd": "/sys/fs/cgroup/systemd"})


def test_version_2_is_one_hierarchy() -> None:
    assert cgroup_mounts(V2) == (2, {"unified": "/sys/fs/cgroup"})


def test_an_empty_table_that_accepts_everything_is_nothing() -> None:
    assert filter_rules("# x\n*nat\n:PREROUTING ACCEPT [5:300]\nCOMMIT\n") == []


def test_a_chain_a_rule_and_a_dropping_policy_are_something() -> None:
    saved = "*filter\n:FORWARD DROP [7:1]\n:KUBE-X - [0:0]\n-A FORWARD -j KUBE-X\nCOMMIT\n"
    assert filter_rules(saved) == ["*filter :FORWARD DROP", "*filter :KUBE-X -", "*filter -A FORWARD -j KUBE-X"]


def test_what_came_and_what_went_are_both_told() -> None:
    before = {"mounts": ["/", "/a"], "interfaces": ["lo"]}
    after = {"mounts": ["/", "/b"], "interfaces": ["lo"]}
    assert compare(before, after) == ["mounts: left behind: /b", "mounts: gone or changed: /a"]
    assert compare(before, before) == []
