"""What happens to services on ordinary days, one function each. The plain side gets the same at the same moment, where it has such a thing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import images_load
from tests.cluster.layout import Layout
from tests.e2e.service import container
from tests.e2e.test_45_operator import configure
from tests.e2e.test_70_sources import Hub
from tests.harness import ask, install, processes
from tests.harness.bench_create import value
from tests.harness.install import Environment
from tests.harness.kube import Kube, Object, condition
from tests.harness.sides import REPOSITORY, Ours, Plain, Pods, Side, identities

RESYNC_SECONDS = 120
ENGINE_PROCESS = "EngineCore"
NODES = ("a", "b")


@dataclass
class World:
    """The cluster with both sides on it, and the hub that ours has its model from."""

    environment: Environment
    hub: Hub
    ours: Ours
    plain: Plain
    number: int = 0
    """Changes so far: each disruption has to differ from the last."""
    killed: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Side -> when one of its engines was killed, and the pod's address."""

    @property
    def system(self) -> Kube:
        """A client in Graftwork's own namespace."""
        return self.environment.kube.within(install.SYSTEM_NAMESPACE)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Ours first."""
        return self.ours, self.plain


Before = Mapping[str, Pods]
"""Side's name -> its pods before the disruption."""


@dataclass(frozen=True)
class Disruption:
    """One kind: how it begins, how many pods of a side it replaces, and what may be expected of both."""

    name: str
    begin: Callable[[World, Before], None]
    floor: int
    """How many pods of ours must be ready all the time."""
    replaced: int = 0
    loses: bool = True
    """Whether a plain Deployment has to lose requests, or else the comparison is void."""
    plain: bool = True
    """Whether the plain side has such a thing."""
    restarts: bool = False
    """Whether a container starts again in its pod."""
    prepare: Callable[[World], None] = lambda _: None
    afterwards: Callable[[World], None] = lambda _: None


def edit_flag(world: World, _: Before) -> None:
    """Change a flag of the engine: a rolling update."""
    world.number += 1
    for side in world.sides:
        side.flag(world.number)


def new_revision(world: World, _: Before) -> None:
    """Let the hub's branch move, and ask for it."""
    world.number += 1
    commit = world.hub.moved(REPOSITORY, "notes.txt", f"change {world.number}".encode())
    for side in world.sides:
        side.model(commit)


def new_image(world: World, before: Before) -> None:
    """Name the engine's image by another reference that both nodes have."""
    image = _other_reference(world.environment.images["engine-cpu"])
    used = container_of(before[world.ours.name][0], "vllm")["image"]
    for side in world.sides:
        side.image(image if used != image else world.environment.images["engine-cpu"])


def tag_image(world: World) -> None:
    """Give the engine's image a second name on both nodes."""
    other = _other_reference(world.environment.images["engine-cpu"])
    _ctr("tag", "--force", world.environment.images["engine-cpu"], other)
    assert all(images_load.has_image(Layout.default().node(letter), other) for letter in NODES), f"there is no {other}"


def untag_image(world: World) -> None:
    """Take the second name away, when no pod may start again by it; the image stays."""
    _ctr("rm", _other_reference(world.environment.images["engine-cpu"]))


def drain(world: World, before: Before) -> None:
    """`kubectl drain` of the node without the store; both sides have a pod there."""
    node = _drained(world)
    for side in world.sides:
        assert node in {pod["spec"]["nodeName"] for pod in before[side.name]}, f"{side.name} has no pod on {node}"
    try:
        world.ours.kube.run("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s", timeout=260)
    finally:
        world.ours.kube.run("uncordon", node)


def spread(world: World) -> None:
    """Bring each side's pods onto both nodes: an evicted pod's successor goes where there is room, so it may need a second try."""
    for side in world.sides:
        for _ in range(3):
            pods = side.settled()
            if len({pod["spec"]["nodeName"] for pod in pods}) == 2:
                break
            side.kube.run("delete", "pod", str(pods[0]["metadata"]["name"]), "--wait=false")
            side.settled(2, pods, 1)


def evict(world: World, before: Before) -> None:
    """Ask the eviction API for one pod of each side."""
    for side in world.sides:
        name = before[side.name][0]["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": side.kube.namespace}}
        path = f"/api/v1/namespaces/{side.kube.namespace}/pods/{name}/eviction"
        side.kube.run("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def three(world: World) -> None:
    """Scale both sides to three."""
    for side in world.sides:
        side.scale(3)
    for side in world.sides:
        side.settled(3)


def two(world: World, _: Before) -> None:
    """Scale both sides down to two."""
    for side in world.sides:
        side.scale(2)


def kill_engine(world: World, before: Before) -> None:
    """End the engine's process in one pod of each side by SIGKILL."""
    for side in world.sides:
        pod = before[side.name][0]
        processes.kill(pod["metadata"]["uid"], ENGINE_PROCESS)
        world.killed[side.name] = (time.monotonic(), str(pod["status"]["podIP"]))


def upgrade_operator(world: World, before: Before) -> None:
    """Replace the operator by one with other images in its configuration, and wait until it has looked at the deployment."""
    world.number += 1
    images = {"IMAGES__AGENT": "agent", "IMAGES__ENGINE": "engine"}
    configure(world.system, *(f"GRAFTWORK_CONFIG_{name}=localhost/graftwork/{image}:another-{world.number}" for name, image in images.items()))
    deadline = time.monotonic() + RESYNC_SECONDS
    while not value(_operator_metrics(world.system), "graftwork_reconcile_passes_total", kind="LLMDeployment"):
        assert time.monotonic() < deadline, f"the new operator has not looked at the LLMDeployment within {RESYNC_SECONDS} s"
    now, old = identities(world.ours.pods()), identities(before[world.ours.name])
    assert now == old, f"the operator's upgrade restarted pods: {old} -> {now}"


def first_operator(world: World) -> None:
    """Give the operator its own images back."""
    configure(world.system, "GRAFTWORK_CONFIG_IMAGES__AGENT-", "GRAFTWORK_CONFIG_IMAGES__ENGINE-")


DISRUPTIONS = {
    "drain": Disruption("kubectl drain", drain, 1, 1, prepare=spread),
    "flag": Disruption("flag change", edit_flag, 2, 2),
    "revision": Disruption("model revision", new_revision, 2, 2),
    "image": Disruption("image change", new_image, 2, 2, prepare=tag_image),
    "eviction": Disruption("eviction", evict, 1, 1),
    "scale-down": Disruption("scale-down 3 -> 2", two, 2, 1, prepare=three),
    "crash": Disruption("engine crash in 1 of 2 pods", kill_engine, 1, restarts=True),
    "operator": Disruption("operator upgrade", upgrade_operator, 2, loses=False, plain=False, afterwards=first_operator),
}


def restarted(before: Pods) -> Callable[[list[Object]], bool]:
    """Return the check that one engine container is another than before, in the same pods, all ready again."""
    old = {pod["metadata"]["uid"]: container(pod, "vllm")["restartCount"] for pod in before}

    def good(pods: list[Object]) -> bool:
        if {pod["metadata"]["uid"] for pod in pods} != set(old):
            return False
        more = sum(container(pod, "vllm")["restartCount"] - old[pod["metadata"]["uid"]] for pod in pods)
        return more == 1 and all(condition(pod, "Ready").get("status") == "True" for pod in pods)

    return good


def container_of(pod: Object, name: str) -> dict[str, Any]:
    """Return a container of a pod's spec."""
    return next(each for each in pod["spec"]["containers"] if each["name"] == name)


def wait_settled(disruption: Disruption, side: Side, before: Pods) -> None:
    """Return when the disruption of this side is over."""
    if disruption.restarts:
        side.until(restarted(before), "the same pods, ready again, one engine restarted")
        side.settled()
    else:
        side.settled(2, before, disruption.replaced)


def chosen(names: str) -> Sequence[str]:
    """Return the keys of DISRUPTIONS that a comma-separated list names, all of them for an empty one."""
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - set(DISRUPTIONS)):
        raise ValueError(f"--disruptions {names}: there is no {', '.join(unknown)}; there are {', '.join(DISRUPTIONS)}")
    return wanted or list(DISRUPTIONS)


def _drained(world: World) -> str:
    (keep,) = {pod["spec"]["nodeName"] for pod in world.system.list("pods", "app.kubernetes.io/component=store")}
    (node,) = {node["metadata"]["name"] for node in world.ours.kube.list("nodes")} - {keep}
    return str(node)


def _other_reference(reference: str) -> str:
    return f"{reference}-again"


def _ctr(*arguments: str) -> None:
    for letter in NODES:
        images_load.ctr(Layout.default().node(letter), "images", *arguments, check=False)


def _operator_metrics(system: Kube) -> str:
    pods = [pod for pod in system.list("pods", "app.kubernetes.io/component=operator") if not pod["metadata"].get("deletionTimestamp")]
    return ask.get(pods[0]["status"]["podIP"], 8080, "/metrics")[1]
