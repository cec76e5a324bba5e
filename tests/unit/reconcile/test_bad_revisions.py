"""Every kind of a bad revision, as far as pods tell it; and whatever is edited in whichever order, where it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graftwork import names
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.reconcile.test_llmdeployment import serving
from tests.unit.reconcile.test_rollout import USAGE, applied, arguments, edited
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, container, message

BACK_OFF = ("CrashLoopBackOff", "back-off")
CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
WAITING = container("vllm", waiting=("PodInitializing", ""))


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"main": (USAGE,)}, "EngineCrashed", "max-num-batched-tokens"),
        ({"main": (container("vllm", waiting=BACK_OFF, ended=(1, "ValueError: boom"), restarts=2),)}, "EngineCrashed", "ValueError: boom"),
        (
            {"main": (container("vllm", waiting=BACK_OFF, ended=(137, ""), reason="OOMKilled", restarts=2),)},
            "OutOfMemory",
            "more memory than its limit",
        ),
        ({"main": (container("vllm", waiting=BACK_OFF, ended=(1, CUDA), restarts=2),)}, "OutOfMemory", "Tried to allocate 2.00 GiB"),
        ({"main": (WAITING,), "init": (container("install", waiting=BACK_OFF, ended=(1, "no guard"), restarts=2),)}, "EngineCrashed", "no guard"),
    ],
)
async def test_it_goes_back_by_itself_and_quotes_why(fields: dict[str, Any], reason: str, words: str) -> None:
    world = World()
    await serving(world)
    good = applied(world)
    await edited(world, engine={"maxModelLen": 256})
    world.pod("p2", ready=False, **fields)
    await world.run("LLMDeployment", "support")
    assert applied(world) == good
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack") == ("True", reason)
    assert words in status["rollout"]["failed"]["message"]
    assert condition(status, "Serving")[0] == "True"


NOT_FOUND = container("download", waiting=BACK_OFF, ended=(65, "nothing at s3://models/other"), restarts=9)


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"main": (container("vllm", waiting=("ImagePullBackOff", "engine:nope: not found")),)}, "ImagePullFailed", "engine:nope"),
        ({"main": (WAITING,), "init": (NOT_FOUND,)}, "SourceUnreachable", "nothing at s3://models/other"),
        ({"main": (), "node": "", "unschedulable": "0/1 nodes: Insufficient nvidia.com/gpu"}, "RolloutNeedsDowntime", "Insufficient nvidia.com/gpu"),
        ({"main": (container("vllm", waiting=("CreateContainerConfigError", 'secret "x" not found')),)}, "InvalidSpec", 'secret "x" not found'),
    ],
)
async def test_what_waiting_or_somebody_else_helps_is_told_for_ever_and_never_goes_back(fields: dict[str, Any], reason: str, words: str) -> None:
    world = World()
    await serving(world)
    await edited(world, engine={"maxModelLen": 256})
    wanted = applied(world)
    world.pod("p2", ready=False, **fields)
    for _ in range(3):
        await world.clock.advance(3600)
        await world.run("LLMDeployment", "support")
    assert applied(world) == wanted
    status = world.status("LLMDeployment", "support")
    assert condition(status, "RolledBack")[0] == "False"
    assert condition(status, "Ready") == ("False", reason)
    assert words in message(status, "Ready")
    assert condition(status, "Serving")[0] == "True"


class Cluster:
    """One deployment whose pods a simple Deployment controller replaces: a new one first, and the old one goes when that is ready."""

    def __init__(self) -> None:
        self.world = World()
        self._made = 1

    def template(self) -> str:
        annotations = self.world.get("Deployment", "support")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations[names.ANNOTATION_TEMPLATE_HASH])

    def pods(self) -> dict[str, dict[str, Any]]:
        return {key.name: obj for key, obj in self.world.cluster.objects.items() if key.kind == "Pod"}

    def control(self) -> None:
        """Bring the pods one step closer to the template."""
        world, wanted = self.world, self.template()
        mine = {name for name, pod in self.pods().items() if pod["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH] == wanted}
        for name, pod in self.pods().items():
            if name not in mine and not is_ready(pod):
                self.remove(name)
        if not mine:
            self._made += 1
            bad = any(item.startswith("--max-num-batched-tokens=x") for item in arguments(world))
            world.pod(f"p{self._made}", **({"ready": False, "main": (USAGE,)} if bad else {}))
            mine = set() if bad else {f"p{self._made}"}
        if any(is_ready(pod) for name, pod in self.pods().items() if name in mine):
            for name in set(self.pods()) - mine:
                self.remove(name)

    def remove(self, name: str) -> None:
        self.world.cluster.objects.pop(next(key for key in self.world.cluster.objects if (key.kind, key.name) == ("Pod", name)))
        self.world.ctx.mirror.remove("Pod", "ml", name)

    async def settle(self) -> None:
        for _ in range(4):
            self.control()
            await self.world.run("LLMDeployment", "support")


def is_ready(pod: dict[str, Any]) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"]["conditions"])


def engine(kind: str, number: int) -> dict[str, Any]:
    args = {"bad": {"max-num-batched-tokens": f"x{number}"}, "invalid": {"port": number}}.get(kind, {})
    return {"maxModelLen": 100 + number, "args": args}


edits = st.lists(st.tuples(st.sampled_from(["good", "bad", "invalid"]), st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=10)


async def edit_and_settle(sequence: list[tuple[str, int, int]]) -> list[tuple[str, str, str]]:
    cluster = Cluster()
    world = cluster.world
    await serving(world)
    good = {cluster.template()}
    last = ("good", 0)
    for kind, number, steps in sequence:
        before = cluster.template()
        await edited(world, engine=engine(kind, number))
        if kind == "invalid":
            assert cluster.template() == before
        else:
            last = (kind, number)
        for _ in range(steps):
            cluster.control()
            await world.run("LLMDeployment", "support")
            assert any(is_ready(pod) for pod in cluster.pods().values()), "never without a ready pod"
        good |= {cluster.template()} if last[0] == "good" else set()
    if sequence[-1][0] == "invalid":  # it is taken back at the end
        await edited(world, engine=engine(*last) if last != ("good", 0) else {})
    await cluster.settle()
    status = world.status("LLMDeployment", "support")
    if last[0] == "bad":
        assert condition(status, "RolledBack") == ("True", "EngineCrashed")
        assert cluster.template() in good
        assert cluster.template() == status["rollout"]["lastGoodHash"]
    else:
        assert condition(status, "Ready") == ("True", "Reconciled")
        assert condition(status, "RolledBack")[0] == "False"
        wanted = f"--max-model-len={100 + last[1]}"
        assert last == ("good", 0) or wanted in arguments(world)
        assert cluster.template() == status["rollout"]["lastGoodHash"]
    world.writes()
    await world.run("LLMDeployment", "support")
    return world.writes()


@settings(max_examples=60, deadline=None)
@given(edits)
def test_whatever_is_edited_it_ends_with_the_last_valid_spec_or_with_what_was_good_before(sequence: list[tuple[str, int, int]]) -> None:
    assert asyncio.run(edit_and_settle(sequence)) == [], "it has come to rest"
