"""Dynamic volumes: local-path-provisioner as a process of the host, with a default class of one node's folders and a class that both nodes share."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import processes
from tests.cluster.api import Api, JsonObject
from tests.cluster.cache import write_atomically
from tests.cluster.layout import Layout
from tests.cluster.processes import Component

NAMESPACE = "local-path-storage"
ACCOUNT = "local-path-provisioner"
CONFIG_MAP = "local-path-config"
STORAGE_CLASS = "local-path"
SHARED_CLASS = "shared-path"
"""ReadWriteMany: both nodes are this machine, so a folder of it is on both."""


def provisioner_config(layout: Layout) -> JsonObject:
    """Return which folders hold the volumes of each class: of one, each node has a folder of its own, since both see the same disk.

    With settings by class, the provisioner refuses a class that has none.
    """
    return {
        "storageClassConfigs": {
            STORAGE_CLASS: {"nodePathMap": [{"node": node.name, "paths": [str(node.volumes)]} for node in layout.nodes]},
            SHARED_CLASS: {"sharedFileSystemPath": str(layout.shared_volumes)},
        }
    }


def storage_class(name: str, binding: str, **annotations: str) -> JsonObject:
    """Return a class of the provisioner."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": binding,
        "reclaimPolicy": "Delete",
    }


def helper_pod(image: str) -> JsonObject:
    """Return the pod that makes and removes a volume's folder on its node."""
    container = {"name": "helper-pod", "image": image, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def objects(layout: Layout, image: str) -> list[tuple[str, JsonObject]]:
    """Return what the provisioner needs in the cluster, as (collection path, object)."""
    core = f"/api/v1/namespaces/{NAMESPACE}"
    scripts = {
        "config.json": json.dumps(provisioner_config(layout)),
        "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
    }
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    classes = (storage_class(STORAGE_CLASS, "WaitForFirstConsumer", **default), storage_class(SHARED_CLASS, "Immediate"))
    return [
        ("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        (
            f"{core}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}, "automountServiceAccountToken": False},
        ),
        (f"{core}/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "data": scripts}),
        *(("/apis/storage.k8s.io/v1/storageclasses", item) for item in classes),
    ]


def start(layout: Layout, api: Api, binaries: Path, image: str) -> None:
    """Create the objects and start the provisioner; `image` is any image that both nodes have and that holds /bin/sh."""
    for path, body in objects(layout, image):
        api.create(path, body)
    config, pod = layout.config / "local-path.json", layout.config / "local-path-pod.json"
    write_atomically(config, json.dumps(provisioner_config(layout)))
    write_atomically(pod, json.dumps(helper_pod(image)))
    flags = {
        "config": config,
        "helper-image": image,
        "helper-pod-file": pod,
        "namespace": NAMESPACE,
        "configmap-name": CONFIG_MAP,
        "service-account-name": ACCOUNT,
        "kubeconfig": layout.user_kubeconfig("local-path"),
    }
    command = [str(binaries / "local-path-provisioner"), "start", *(f"--{name}={value}" for name, value in flags.items())]
    processes.start(layout, Component("local-path", command, {}))
