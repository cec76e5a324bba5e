from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from graftwork.api.status import ColdStart
from graftwork.facts.agents import Agent
from graftwork.facts.pods import Pod
from graftwork.status.cold_start import PHASES, cold_start, fresh

from tests.unit.status.seen import container, seen_agent, seen_pod

AGENT = seen_agent(engine_started_at="2026-11-21T12:00:50.250000Z")
MEASURED = {
    "pod": "p1",
    "createdAt": "2026-11-21T12:00:00Z",
    "scheduledSeconds": 2,
    "pulledSeconds": 10 + 4,
    "cachedSeconds": 8,
    "loadedSeconds": 24.2,
    "readySeconds": 60,
}


def ended(name: str, began: str, finished: str) -> dict[str, Any]:
    status = container(name, ended=(0, ""))
    status["state"]["terminated"] |= {"startedAt": f"2026-11-21T12:00:{began}Z", "finishedAt": f"2026-11-21T12:00:{finished}Z"}
    return status


def started(name: str = "p1", *, download: bool = True, restarts: int = 0, **fields: Any) -> Pod:
    """Return a pod that was created at 12:00:00 and ready a minute later."""
    engine = container("vllm", running=True, restarts=restarts)
    engine["state"]["running"]["startedAt"] = "2026-11-21T12:00:26Z"
    init = (ended("install", "12", "13"), *([ended("download", "13", "21")] if download else []), container("agent", running=True))
    pod = seen_pod(name, init=init, main=(engine,), **fields)
    return replace(pod, scheduled_at="2026-11-21T12:00:02Z", initialized_at="2026-11-21T12:00:22Z")


def measured(*pods: Pod, before: dict[str, Any] | None = None, agent: Agent = AGENT) -> Any:
    found = cold_start(before, pods, {f"uid-{pod.name}": agent for pod in pods}, "t1")
    if found:
        ColdStart.model_validate(found)
    return found


def test_each_phase_is_measured() -> None:
    assert measured(started()) == MEASURED
    assert measured(started(download=False))["cachedSeconds"] == 0


def test_what_was_measured_of_a_pod_stays_while_its_agent_is_silent_and_comes_when_it_speaks() -> None:
    silent = Agent(reachable=False)
    assert measured(started(), before=MEASURED, agent=silent) == MEASURED
    first = measured(started(), agent=silent)
    assert "loadedSeconds" not in first
    assert measured(started(), before=first) == MEASURED


def test_only_first_starts_of_the_newest_pod_of_the_present_template_count() -> None:
    newer = replace(started("p2"), created="2026-11-21T12:00:30Z")
    assert measured(started(), newer)["pod"] == "p2"
    for other in (started(restarts=1), started(template="old"), seen_pod("p3")):
        assert measured(other, before=MEASURED) == MEASURED
        assert measured(other) is None


def test_a_pod_that_loses_its_readiness_for_a_moment_has_not_started_again() -> None:
    newer = replace(started("p2"), created="2026-11-21T12:00:30Z")
    first = measured(started(), newer)
    flapped = replace(newer, ready_since="2026-11-21T15:00:00Z")
    assert measured(started(), before=first) == first, "only the older one is ready"
    assert measured(started(), flapped, before=first) == first
    assert fresh(first, measured(started(), flapped, before=first)) == {}


def test_clocks_that_are_apart_make_no_negative_time() -> None:
    assert measured(replace(started(), scheduled_at="2026-11-21T11:59:59Z"))["scheduledSeconds"] == 0


@pytest.mark.parametrize(
    ("before", "after", "phases"),
    [
        (None, MEASURED, set(PHASES.values())),
        (MEASURED, MEASURED, set()),
        (MEASURED, {**MEASURED, "pod": "p2"}, set(PHASES.values())),
        ({key: value for key, value in MEASURED.items() if key != "loadedSeconds"}, MEASURED, {"loaded"}),
        ({"readySeconds": 60.0}, MEASURED, set()),  # measured by an operator that knew no phases: it may be of this pod
        (MEASURED, None, set()),
    ],
)
def test_each_start_is_counted_once(before: dict[str, Any] | None, after: dict[str, Any] | None, phases: set[str]) -> None:
    assert set(fresh(before, after)) == phases
