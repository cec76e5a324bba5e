"""The configuration files of the cluster, as far as the traps go that were met."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.cluster import controlplane, dns, node, storage
from tests.cluster.layout import HOST_ADDRESS, Layout
from tests.cluster.pki import certificates

LAYOUT = Layout(Path("/state"))
A, B = LAYOUT.nodes


def _flags(command: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in command if word.startswith("--") and "=" in word)


def test_the_nodes_share_no_folder_socket_cgroup_or_pod_range() -> None:
    for what in ("folder", "run", "socket", "cgroup", "pod_subnet", "volumes", "address"):
        assert getattr(A, what) != getattr(B, what), what
    logs = [node.kubelet_config(LAYOUT, one)["podLogsDir"] for one in LAYOUT.nodes]
    assert logs[0] != logs[1]


def test_the_second_node_is_entered_by_nsenter_and_the_first_lives_on_the_host() -> None:
    assert node.kubelet(LAYOUT, A, Path("/bin")).command[0] == "/bin/kubelet"
    assert node.kubelet(LAYOUT, B, Path("/bin")).command[:2] == ["nsenter", "--net=/run/netns/gw-b"]


def test_containerd_touches_nothing_of_the_machine() -> None:
    parsed = tomllib.loads(node.containerd_config(A, "localhost/pause:1"))
    cri = parsed["plugins"]["io.containerd.grpc.v1.cri"]
    assert (parsed["root"], parsed["state"], parsed["grpc"]["address"]) == ("/state/node-a/containerd", "/run/graftwork-a", "/run/graftwork-a.sock")
    assert cri["sandbox_image"] == "localhost/pause:1"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["containerd"]["runtimes"]["runc"]["options"]["Root"] == "/run/graftwork-a/runc"
    assert parsed["plugins"]["io.containerd.internal.v1.opt"]["path"] == "/state/node-a/opt"


def test_pods_are_routed_and_each_node_hands_out_its_own_range() -> None:
    config = json.loads(node.cni_config(B))
    assert [plugin["type"] for plugin in config["plugins"]] == ["ptp", "portmap"]
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert config["plugins"][0]["ipMasq"] is False


def test_the_kubelet_watches_config_maps_and_never_evicts_for_a_full_disk() -> None:
    config = node.kubelet_config(LAYOUT, A)
    assert config["configMapAndSecretChangeDetectionStrategy"] == "Watch"
    assert config["clusterDNS"] == [HOST_ADDRESS]
    assert config["cgroupDriver"] == "cgroupfs"
    assert config["evictionHard"] == {"memory.available": "200Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"}


def test_the_api_server_has_an_audit_log_an_aggregation_layer_and_finds_kubelets_by_address() -> None:
    flags = _flags(controlplane.apiserver(LAYOUT, Path("/bin")).command)
    assert flags["audit-log-path"] == "/state/log/audit.json"
    assert flags["kubelet-preferred-address-types"] == "InternalIP"
    assert flags["enable-aggregator-routing"] == "true"
    assert {"requestheader-client-ca-file", "proxy-client-cert-file", "requestheader-username-headers"} <= flags.keys()
    assert controlplane.AUDIT_POLICY["omitStages"] == ["RequestReceived"]


def test_etcd_keeps_away_from_the_ports_of_a_system_service() -> None:
    command = controlplane.etcd(LAYOUT).command
    assert not [word for word in command if ":2379" in word or ":2380" in word]


def test_the_api_servers_certificate_covers_each_name_it_is_called_by() -> None:
    by_name = {certificate.name: certificate for certificate in certificates(LAYOUT)}
    assert {"IP:10.10.0.1", "IP:10.96.0.1", "DNS:kubernetes.default.svc"} <= set(by_name["apiserver"].alternatives.split(","))
    assert by_name["node-b"].subject == "/O=system:nodes/CN=system:node:node-b"


@pytest.mark.parametrize(("resolv", "upstream"), [("search x\nnameserver 192.0.2.1\n", True), ("# nameserver 192.0.2.1\n", False), ("", False)])
def test_dns_forwards_only_where_the_machine_has_a_server(resolv: str, upstream: bool) -> None:
    assert dns.has_upstream(resolv) is upstream
    text = dns.corefile(Path("/k"), upstream)
    assert ("forward . /etc/resolv.conf" in text) is upstream
    assert f"bind {HOST_ADDRESS}" in text
    assert text.count("{") == text.count("}")


def test_the_default_storage_class_waits_for_the_first_consumer_and_uses_a_local_helper_image() -> None:
    found, _ = [item for _, item in storage.objects(LAYOUT, "localhost/x:1") if item["kind"] == "StorageClass"]
    assert found["volumeBindingMode"] == "WaitForFirstConsumer"
    assert found["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert storage.helper_pod("localhost/x:1")["spec"]["containers"][0]["image"] == "localhost/x:1"
    paths = [row["paths"][0] for row in storage.provisioner_config(LAYOUT)["storageClassConfigs"]["local-path"]["nodePathMap"]]
    assert paths == ["/state/node-a/volumes", "/state/node-b/volumes"]


def test_every_class_of_volumes_is_configured_and_one_is_for_both_nodes() -> None:
    classes = [item for _, item in storage.objects(LAYOUT, "localhost/x:1") if item["kind"] == "StorageClass"]
    configured = storage.provisioner_config(LAYOUT)["storageClassConfigs"]
    assert {item["metadata"]["name"] for item in classes} == set(configured)
    assert configured["shared-path"] == {"sharedFileSystemPath": "/state/shared-volumes"}
    shared = next(item for item in classes if item["metadata"]["name"] == "shared-path")
    assert shared["volumeBindingMode"] == "Immediate"
    assert not shared["metadata"]["annotations"], "not the default class"
