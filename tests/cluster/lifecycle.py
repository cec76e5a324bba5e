"""`up` and `down`: the order in which the parts start and end, and what happens when that is interrupted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tests.cluster import controlplane, dns, machine, network, node, oci, pki, processes, storage
from tests.cluster.api import Api
from tests.cluster.cache import exclusive, write_atomically
from tests.cluster.images_load import load_image
from tests.cluster.layout import Layout, Node
from tests.cluster.progress import ClusterError
from tests.cluster.waiting import until

Say = Callable[[str], None]
NODE_READY_SECONDS = 120
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def phase(layout: Layout) -> str:
    """Return `down`, `starting`, `up` or `stopping`; what was up before the machine was restarted is no longer."""
    try:
        name, boot = layout.phase.read_text().split()
    except (OSError, ValueError):
        return "down"
    return name if boot == BOOT_ID.read_text().strip() else "stopping"


def _enter(layout: Layout, name: str) -> None:
    write_atomically(layout.phase, f"{name} {BOOT_ID.read_text().strip()}\n")


def up(layout: Layout, binaries: Path, say: Say, helper_image: str | None = None) -> bool:
    """Bring the cluster up; return False if it was up already. Interrupted, it cleans up after itself; killed, the next call does."""
    with exclusive(layout.lock):
        now = phase(layout)
        if now == "up":
            _repair(layout, say)
            return False
        if now != "down" or processes.all_ours(layout):
            say("an earlier start or stop did not end: cleaning up first")
            _down(layout, say)
        network.require_free()
        try:
            _up(layout, binaries, say, helper_image)
        except BaseException:
            say("start did not end: cleaning up")
            _down(layout, say)
            raise
    return True


def _repair(layout: Layout, say: Say) -> None:
    stopped = [name for name in processes.known(layout) if processes.pid_of(layout, name) is None]
    for name in stopped:
        say(f"{name}: does not run, starting it again (its last words are in {layout.logs / name}.log)")
        processes.start_again(layout, name)
    say("the cluster is up" + ("" if stopped else " already; nothing to do"))


def _up(layout: Layout, binaries: Path, say: Say, helper_image: str | None) -> None:
    _enter(layout, "starting")
    shutil.rmtree(layout.logs, ignore_errors=True)
    layout.logs.mkdir(parents=True)
    machine.remember(layout)
    say("keys, network")
    pki.ensure(layout)
    network.up(layout)
    say("etcd, API server, containerd of both nodes")
    controlplane.start_storage_and_api(layout, binaries)
    pause, helper = oci.pause_image(layout), oci.helper_image(layout)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: node.start_runtime(layout, n, pause.reference), layout.nodes))
    for image in (pause, helper):
        load_image(image.archive, image.reference, layout=layout)
    controlplane.wait_api(layout)
    say("API server ready; controllers, kubelets, DNS, volumes")
    controlplane.start_controllers(layout, binaries)
    for one in layout.nodes:
        node.start_kubelet(layout, one, binaries)
    dns.start(layout, binaries)
    api = Api(layout)
    storage.start(layout, api, binaries, helper_image or helper.reference)
    wait_nodes(layout, {n.name for n in layout.nodes})
    _wait_default_account(api)
    _enter(layout, "up")


def wait_nodes(layout: Layout, names: set[str], seconds: float = NODE_READY_SECONDS) -> None:
    """Wait, by a watch, until these nodes are Ready."""
    waiting = set(names)
    for event in Api(layout).watch("/api/v1/nodes", seconds):
        status = {c["type"]: c["status"] for c in event["object"].get("status", {}).get("conditions", [])}
        if status.get("Ready") == "True":
            waiting.discard(event["object"]["metadata"]["name"])
        if not waiting:
            return
    logs = "\n".join(
        f"  {layout.logs / f'kubelet-{name[-1]}.log'}:\n{processes.ended(layout.logs / f'kubelet-{name[-1]}.log')}" for name in sorted(waiting)
    )
    raise ClusterError(f"{', '.join(sorted(waiting))}: not Ready after {seconds:.0f} s:\n{logs}")


def _wait_default_account(api: Api) -> None:
    """Wait until pods can be created: the controller manager makes the ServiceAccount `default` of the namespace a moment after it starts."""
    for event in api.watch("/api/v1/namespaces/default/serviceaccounts", 30):
        if event["object"]["metadata"]["name"] == "default":
            return
    raise ClusterError("controller manager: made no ServiceAccount `default` in 30 s")


def down(layout: Layout, say: Say, purge: bool = False) -> None:
    """End the cluster and leave nothing behind but images and logs; with `purge` not even these."""
    with exclusive(layout.lock):
        _down(layout, say)
        if purge:
            for path in layout.root.iterdir():
                if path != layout.lock:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            say(f"{layout.root}: emptied")


def _down(layout: Layout, say: Say) -> None:
    if layout.phase.exists():
        _enter(layout, "stopping")
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: node.stop(layout, n), layout.nodes))
    control_plane = ("local-path", "coredns", "scheduler", "controller-manager")
    processes.stop(layout, *control_plane, seconds=2)
    processes.stop(layout, "apiserver", seconds=2)
    processes.stop(layout, "etcd")
    processes.stop_pids(layout, processes.all_ours(layout), seconds=2)
    for one in layout.nodes:
        node.clear(one)
    network.down(layout)
    machine.restore(layout)
    for folder in (layout.etcd, layout.shared_volumes):
        shutil.rmtree(folder, ignore_errors=True)
    processes.forget(layout)
    layout.phase.unlink(missing_ok=True)
    say(f"down after {time.monotonic() - begin:.0f} s")


def stop_component(name: str, layout: Layout | None = None) -> None:
    """Stop one component of a running cluster, for tests of its absence; see `start_component`."""
    where = layout or Layout.default()
    if name not in processes.known(where):
        raise ClusterError(f"component {name!r} is not known; known are: {', '.join(processes.known(where)) or 'none (the cluster is down)'}")
    processes.stop(where, name)


def start_component(name: str, layout: Layout | None = None, wait: bool = True) -> None:
    """Start a stopped component again, and with `wait` return only when it works."""
    where = layout or Layout.default()
    begin = datetime.now(UTC)
    pid = processes.start_again(where, name)
    if not wait:
        return
    if name == "apiserver":
        controlplane.wait_api(where)
    elif name.startswith("kubelet-"):
        _wait_heartbeat(where, name, pid, begin)
        wait_nodes(where, {f"node-{name[-1]}"})
    elif name.startswith("containerd-"):
        node.wait_runtime(where, _node_of(where, name), pid)


def _wait_heartbeat(layout: Layout, component: str, pid: int, since: datetime) -> None:
    """Wait for a heartbeat of the node later than `since`: for some time after a kubelet ended its Node still says Ready.

    A kubelet that ends meanwhile is started again, as its unit does elsewhere: a containerd that answers may not be initialized yet for it.
    """
    name, deadline = f"node-{component[-1]}", time.monotonic() + NODE_READY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        handle = os.pidfd_open(pid)
        try:
            if until(lambda: _heartbeat(layout, name) > since, left, handle):
                return
        finally:
            os.close(handle)
        pid = processes.start_again(layout, component)
    raise ClusterError(f"{name}: its kubelet sent no heartbeat in {NODE_READY_SECONDS} s; see {layout.logs / f'{component}.log'}")


def _heartbeat(layout: Layout, name: str) -> datetime:
    lease = Api(layout).get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
    return datetime.fromisoformat(lease["spec"]["renewTime"])


def _node_of(layout: Layout, name: str) -> Node:
    return layout.node(name.rpartition("-")[2])
