from __future__ import annotations

import copy
from typing import Any

import pytest
from graftwork.cli.logs import NoLogsError, choose
from graftwork.cli.snapshot import KIND, Snapshot, take

from tests.unit.cli.recorded import Recorded, read
from tests.unit.status.seen import container, pod_object

OLD, NEW = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
LABELS = {"graftwork.dev/deployment": "support"}
READY = (container("vllm", running=True),)
CRASHED = (container("vllm", waiting=("CrashLoopBackOff", "back-off"), ended=(1, "ValueError"), restarts=2),)
CRASHED_AND_BACK = (container("vllm", running=True, ended=(1, "ValueError"), restarts=1),)
LOADING = (container("vllm", running=True),)
BEHIND = (container("vllm", waiting=("PodInitializing", "")),)


def pod(name: str, template: str = NEW, **fields: Any) -> dict[str, Any]:
    made = pod_object(name, template=template, labels=LABELS, **fields)
    for status in made["status"].get("containerStatuses", []):
        status["ready"] = bool(fields.get("ready", True))
    return made


def snapshot(*pods: dict[str, Any], forbidden: tuple[str, ...] = ()) -> Snapshot:
    objects = [item for item in copy.deepcopy(read("rolling")) if item["kind"] != "Pod"]
    recorded = Recorded([*objects, *pods], forbidden)
    return take(recorded, recorded.get(KIND, "support"))


CASES: list[tuple[str, list[dict[str, Any]], tuple[str, str, bool]]] = [
    ("all serve: the newest", [pod("a", OLD, main=READY, created="2026-11-20T10:00:00Z"), pod("b", main=READY)], ("b", "vllm", False)),
    ("one starts", [pod("a", OLD, main=READY), pod("b", ready=False, main=LOADING)], ("b", "vllm", False)),
    ("one fails and waits", [pod("a", OLD, main=READY), pod("b", ready=False, main=CRASHED)], ("b", "vllm", False)),
    ("one fails and tries again", [pod("a", OLD, main=READY), pod("b", ready=False, main=CRASHED_AND_BACK)], ("b", "vllm", True)),
    ("new and old fail", [pod("z", OLD, ready=False, main=CRASHED), pod("b", ready=False, main=CRASHED)], ("b", "vllm", False)),
    (
        "a failing old one before a starting new one",
        [pod("a", OLD, ready=False, main=CRASHED), pod("b", ready=False, main=LOADING)],
        ("a", "vllm", False),
    ),
    (
        "the download is at work",
        [pod("a", ready=False, init=(container("download", running=True),), main=BEHIND)],
        ("a", "download", False),
    ),
    (
        "the download fails",
        [pod("a", ready=False, init=(container("download", waiting=("CrashLoopBackOff", ""), ended=(65, "no such key")),), main=BEHIND)],
        ("a", "download", False),
    ),
]


@pytest.mark.parametrize(("pods", "chosen"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_log_that_tells_most_is_chosen(pods: list[dict[str, Any]], chosen: tuple[str, str, bool]) -> None:
    found = choose(snapshot(*pods))
    assert (found.pod, found.container, found.previous) == chosen


def test_a_recorded_crash_shows_the_run_that_crashed() -> None:
    recorded = Recorded(read("rolling"))
    found = choose(take(recorded, recorded.get(KIND, "support")))
    assert found.arguments(follow=True, tail=50) == ["logs", "support-new", "--container=vllm", "--previous", "--tail=50"]
    assert "the run before its last restart" in found.why


@pytest.mark.parametrize("previous", [True, False])
def test_the_user_decides_which_run(previous: bool) -> None:
    assert choose(snapshot(pod("b", ready=False, main=CRASHED_AND_BACK)), previous=previous).previous is previous


def test_the_user_decides_which_container() -> None:
    both = pod("b", init=(container("agent", running=True),), main=READY)
    assert choose(snapshot(both), "agent").arguments(follow=True, tail=None) == ["logs", "b", "--container=agent", "--follow"]
    with pytest.raises(NoLogsError, match=r"no container 'trainer' yet; it has: agent, vllm"):
        choose(snapshot(both), "trainer")


NOTHING: list[tuple[str, list[dict[str, Any]], str]] = [
    ("no pods", [], "support has no pods"),
    ("no node", [pod("b", ready=False, unschedulable="0/2 nodes are available")], "0/2 nodes are available"),
    ("no image", [pod("b", ready=False, main=(container("vllm", waiting=("ImagePullBackOff", "not found")),))], "ImagePullBackOff: not found"),
    ("not begun", [pod("b", ready=False, main=BEHIND)], "has no log yet"),
]


@pytest.mark.parametrize(("pods", "says"), [case[1:] for case in NOTHING], ids=[case[0] for case in NOTHING])
def test_where_there_is_no_log_the_reason_is_told(pods: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(NoLogsError, match=says):
        choose(snapshot(*pods))


def test_pods_that_may_not_be_read_are_not_taken_for_absent() -> None:
    with pytest.raises(NoLogsError, match="Forbidden"):
        choose(snapshot(forbidden=("pods",)))
