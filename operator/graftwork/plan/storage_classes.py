"""Whether the volumes of a StorageClass can be mounted by several nodes: what is known of its provisioner, and what the configuration says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftwork.config import CacheConfig

DEFAULT = "storageclass.kubernetes.io/is-default-class"

_SHARED = frozenset(
    {
        "efs.csi.aws.com",
        "fsx.csi.aws.com",
        "fsx.openzfs.csi.aws.com",
        "filestore.csi.storage.gke.io",
        "lustre.csi.storage.gke.io",
        "file.csi.azure.com",
        "kubernetes.io/azure-file",
        "nfs.csi.k8s.io",
        "cluster.local/nfs-subdir-external-provisioner",
        "k8s-sigs.io/nfs-subdir-external-provisioner",
        "driver.longhorn.io",
        "csi.juicefs.com",
        "csi.weka.io",
        "beegfs.csi.netapp.com",
        "spectrumscale.csi.ibm.com",
    }
)
_SINGLE_NODE = frozenset(
    {
        "ebs.csi.aws.com",
        "ebs.csi.eks.amazonaws.com",
        "kubernetes.io/aws-ebs",
        "pd.csi.storage.gke.io",
        "kubernetes.io/gce-pd",
        "disk.csi.azure.com",
        "kubernetes.io/azure-disk",
        "cinder.csi.openstack.org",
        "dobs.csi.digitalocean.com",
        "csi.hetzner.cloud",
        "csi.scaleway.com",
        "linodebs.csi.linode.com",
        "block.csi.vultr.com",
        "block.csi.ibm.com",
        "rancher.io/local-path",
        "docker.io/hostpath",
        "hostpath.csi.k8s.io",
        "k8s.io/minikube-hostpath",
        "microk8s.io/hostpath",
        "openebs.io/local",
        "local.csi.openebs.io",
        "zfs.csi.openebs.io",
        "topolvm.io",
        "topolvm.cybozu.com",
    }
)
# Ceph's drivers are named <namespace of the operator>.<kind>.csi.ceph.com.
_SHARED_ENDS, _SINGLE_NODE_ENDS = (".cephfs.csi.ceph.com", ".nfs.csi.ceph.com"), (".rbd.csi.ceph.com",)


@dataclass(frozen=True)
class StorageClass:
    """One class. `shared` None: it is not known whether several nodes can mount its volumes."""

    name: str
    provisioner: str
    expandable: bool
    shared: bool | None

    def __str__(self) -> str:
        return f"StorageClass {self.name} ({self.provisioner})"


def find(objects: Iterable[Mapping[str, Any]], name: str, config: CacheConfig) -> StorageClass | None:
    """Return the class of that name; without a name the default one, and of several the newest, as the API server does."""
    if name:
        found = [item for item in objects if item["metadata"]["name"] == name]
    else:
        found = [item for item in objects if (item["metadata"].get("annotations") or {}).get(DEFAULT) == "true"]
    newest = max(found, key=lambda item: (item["metadata"].get("creationTimestamp") or "", item["metadata"]["name"]), default=None)
    return _storage_class(newest, config) if newest else None


def _storage_class(obj: Mapping[str, Any], config: CacheConfig) -> StorageClass:
    name, provisioner = obj["metadata"]["name"], str(obj.get("provisioner") or "")
    return StorageClass(name, provisioner, bool(obj.get("allowVolumeExpansion")), _is_shared(name, provisioner, config))


def _is_shared(name: str, provisioner: str, config: CacheConfig) -> bool | None:
    if name in config.shared_classes or name in config.single_node_classes:
        return name in config.shared_classes
    if provisioner in _SHARED or provisioner.endswith(_SHARED_ENDS):
        return True
    if provisioner in _SINGLE_NODE or provisioner.endswith(_SINGLE_NODE_ENDS):
        return False
    return None
