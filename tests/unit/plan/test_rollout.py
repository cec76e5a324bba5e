"""The whole decision table of rollouts: what is seen of pods in, which revision is applied out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from graftwork.facts.pods import Pod
from graftwork.facts.rollout import COMPLETED, HISTORY_LENGTH, ROLLED_BACK, Coming, Failed, Outcome, Progress, Record, progress, record
from graftwork.plan.rollout import Decision, Policy, Seen, deadline_seconds, decide
from graftwork.reasons import Reason
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.status.seen import container, seen_agent, seen_pod

NOW = "2026-11-21T13:00:00.000000Z"
GOOD, BAD, OTHER = "good", "bad", "other"
REVISIONS = {GOOD: 1, BAD: 2, OTHER: 3}
CAUSE = "vllm: error: argument --max-num-seqs: invalid int value: 'x'"
FAILED = Failed(2, BAD, Reason.ENGINE_CRASHED, "cause", "2026-11-21T12:00:00Z")
GPU = Policy(replicas=1)


def ago(minutes: float) -> str:
    return f"2026-11-21T{12 if minutes else 13:02d}:{60 - int(minutes) if minutes else 0:02d}:00Z"


def engine(**fields: Any) -> dict[str, Any]:
    """Return the engine's container status; `since` is when its process was started."""
    status = container("vllm", **{key: value for key, value in fields.items() if key not in ("since", "started")})
    if "running" in status["state"]:
        status["state"]["running"]["startedAt"] = fields.get("since", ago(1))
    return {**status, "ready": False, "started": fields.get("started", False)}


def coming(name: str = "new", template: str = BAD, **fields: Any) -> Pod:
    main = (engine(**fields.pop("engine")),) if "engine" in fields else ()
    return seen_pod(name, ready=False, template=template, main=main, **fields)


def old(count: int = 1) -> list[Pod]:
    return [seen_pod(f"old-{number}", template=GOOD) for number in range(count)]


def seen(*pods: Pod, wanted: str = BAD, agents: dict[str, Any] | None = None, **fields: Any) -> Seen:
    return Seen(
        **{
            "wanted": wanted,
            "revisions": REVISIONS,
            "progress": progress([*old(), *pods], agents or {}, wanted),
            "record": Record(GOOD, 1),
            "watched_seconds": 3600.0,
            "now": NOW,
            **fields,
        }
    )


def result(decision: Decision) -> tuple[str, str]:
    failed = decision.record.failed
    return decision.applied, str(failed.reason) if failed else str(decision.problem.reason) if decision.problem else ""


def before_engine(*init: dict[str, Any]) -> Pod:
    """Return a pod whose engine waits for its init containers."""
    return coming(engine={"waiting": ("PodInitializing", "")}, init=init)


CUDA = (
    '{"apiVersion":"graftwork.dev/result/v1","outcome":"Failed","reason":"EngineCrashed","message":"vLLM ended with exit code 1: '
    'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"}'
)
LATE = {"running": True, "since": ago(50)}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        # --- the revision has failed
        (coming(engine={"ended": (2, CAUSE)}), (GOOD, "EngineCrashed")),
        (coming(engine={"running": True, "ended": (2, CAUSE), "restarts": 1}), (GOOD, "EngineCrashed")),
        (coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (70, "dead"), "restarts": 2}), (GOOD, "EngineCrashed")),
        (coming(engine={"running": True, "ended": (1, "dead"), "restarts": 3}), (GOOD, "EngineCrashed")),
        (coming(engine={"running": True, "ended": (0, "EngineDeadError"), "restarts": 3}), (GOOD, "EngineCrashed")),
        (coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (137, ""), "reason": "OOMKilled", "restarts": 2}), (GOOD, "OutOfMemory")),
        (coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (1, CUDA), "restarts": 2}), (GOOD, "OutOfMemory")),
        (coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (137, ""), "restarts": 2}), (GOOD, "EngineCrashed")),
        (
            coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (128, "no python3"), "reason": "StartError", "restarts": 3}),
            (GOOD, "EngineCrashed"),
        ),
        (before_engine(container("install", waiting=("CrashLoopBackOff", ""), ended=(1, "no guard"), restarts=2)), (GOOD, "EngineCrashed")),
        (before_engine(container("agent", running=True, ended=(70, "dead"), restarts=3) | {"ready": False}), (GOOD, "EngineCrashed")),
        (coming(engine=LATE), (GOOD, "StartTooSlow")),
        (coming(engine={**LATE, "started": True}), (GOOD, "StartTooSlow")),
        # --- not yet
        (coming(engine={"running": True}), (BAD, "")),
        (coming(engine={"running": True, "since": ago(19)}), (BAD, "")),
        (coming(engine={"running": True, "since": ago(21), "started": True}), (BAD, "")),
        (coming(engine={"ended": (1, "dead")}), (BAD, "")),
        (before_engine(container("install", ended=(1, "no guard"), restarts=1)), (BAD, "")),
        (before_engine(container("install", ended=(0, ""), restarts=5)), (BAD, "")),
        (before_engine(container("agent", running=True, ended=(70, "dead"), restarts=3)), (BAD, "")),
        (coming(engine={"running": True, "ended": (137, ""), "reason": "OOMKilled", "restarts": 2}), (BAD, "")),
        # --- waiting helps: never the revision's fault
        (coming(unschedulable="0/2 nodes: Insufficient nvidia.com/gpu", node=""), (BAD, "RolloutNeedsDowntime")),
        (coming(engine={"waiting": ("ImagePullBackOff", "not found")}), (BAD, "")),
        (coming(engine={"waiting": ("PodInitializing", "")}, init=(container("download", running=True),)), (BAD, "")),
        (
            coming(
                engine={"waiting": ("PodInitializing", "")},
                init=(container("download", waiting=("CrashLoopBackOff", ""), ended=(70, ""), restarts=9),),
            ),
            (BAD, ""),
        ),
        (coming(engine={"waiting": ("PodInitializing", "")}, init=(container("download", ended=(65, "nothing there")),)), (BAD, "")),
        (coming(engine={"waiting": ("CreateContainerConfigError", "secret not found")}), (BAD, "")),
        (coming(engine=LATE, disrupted=True), (BAD, "")),
        (coming(engine=LATE, terminating=True), (BAD, "")),
        (coming(engine={"running": True, "ended": (255, ""), "reason": "Unknown", "restarts": 7}), (BAD, "")),
        (coming(), (BAD, "")),
    ],
)
def test_a_revision_has_failed_when_its_engine_has_and_never_for_want_of_what_it_needs(pod: Pod, expected: tuple[str, str]) -> None:
    assert result(decide(GPU, seen(pod))) == expected


def test_a_failure_is_recorded_with_its_cause_and_nothing_else_is_forgotten() -> None:
    decision = decide(GPU, seen(coming(engine={"ended": (2, CAUSE)}), record=Record(GOOD, 1, None, (Outcome(1, GOOD, COMPLETED, "t"),))))
    failed = decision.record.failed
    assert failed is not None
    assert (failed.revision, failed.template_hash, failed.at) == (2, BAD, NOW)
    assert CAUSE in failed.message
    assert (decision.record.last_good, decision.newly_failed, decision.completed, decision.problem) == (GOOD, True, False, None)
    assert [(item.revision, item.result) for item in decision.record.history] == [(2, ROLLED_BACK), (1, COMPLETED)]


@pytest.mark.parametrize(
    ("rules", "known", "expected"),
    [
        (GPU, Record(GOOD, 1), (GOOD, "EngineCrashed")),
        (replace(GPU, auto_rollback=False), Record(GOOD, 1), (BAD, "EngineCrashed")),  # told, and left as it is
        (GPU, Record(), (GOOD, "EngineCrashed")),  # the status was lost: what serves is good
        (GPU, Record("pruned", 7), (GOOD, "EngineCrashed")),  # its template is not there any more
        (GPU, Record(BAD, 2), (BAD, "")),  # it was good: what ails it now is not the revision
        (replace(GPU, replicas=0), Record(GOOD, 1), (BAD, "")),
    ],
)
def test_what_a_failed_revision_leads_to(rules: Policy, known: Record, expected: tuple[str, str]) -> None:
    assert result(decide(rules, seen(coming(engine={"ended": (2, CAUSE)}), record=known))) == expected


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    first = progress([coming(engine={"ended": (2, CAUSE)})], {}, BAD)
    assert result(decide(GPU, seen(record=Record(), progress=first))) == (BAD, "EngineCrashed")


@pytest.mark.parametrize(
    ("wanted", "rules", "applied", "failed"),
    [
        (BAD, GPU, GOOD, True),
        (OTHER, GPU, OTHER, False),  # something else: it is tried
        (GOOD, GPU, GOOD, False),  # taken back by the user
        (BAD, replace(GPU, auto_rollback=False), BAD, False),  # the same once more, by declaration
        (BAD, replace(GPU, replicas=0), GOOD, True),
    ],
)
def test_it_stays_rolled_back_until_the_spec_asks_for_something_else(wanted: str, rules: Policy, applied: str, failed: bool) -> None:
    decision = decide(rules, seen(wanted=wanted, record=Record(GOOD, 1, FAILED)))
    assert (decision.applied, decision.record.failed is not None, decision.newly_failed) == (applied, failed, False)
    assert decision.look_again_seconds is None


def test_a_revision_is_good_when_all_of_its_pods_are_ready_and_no_other_is_left() -> None:
    new = seen_pod("new", template=BAD)
    assert decide(GPU, seen(new)).record.last_good == GOOD
    decision = decide(GPU, seen(progress=progress([new], {}, BAD)))
    assert (decision.record.last_good, decision.record.last_good_revision, decision.completed) == (BAD, 2, True)
    again = decide(GPU, seen(progress=progress([new], {}, BAD), record=decision.record))
    assert (again.record, again.completed) == (decision.record, False)
    assert decide(replace(GPU, replicas=2), seen(progress=progress([new], {}, BAD))).record.last_good == GOOD


CRASHING = {"running": True, "ended": (1, "dead"), "restarts": 3}


@pytest.mark.parametrize(
    ("ready", "pods", "rolled_back"),
    [
        (1, [coming(engine=CRASHING)], False),  # another pod of it serves: rather its node
        (1, [coming(engine=CRASHING), coming("new2", engine=CRASHING)], True),
        (1, [coming(engine=CRASHING), coming("new2", engine=LATE)], True),
        (2, [coming(engine={"ended": (2, CAUSE)})], True),  # flags are the same everywhere
    ],
)
def test_one_bad_pod_among_good_ones_is_not_the_revision(ready: int, pods: list[Pod], rolled_back: bool) -> None:
    good = [seen_pod(f"ready-{number}", template=BAD) for number in range(ready)]
    decision = decide(replace(GPU, replicas=4), seen(*good, *pods))
    assert decision.newly_failed is rolled_back


def test_a_process_that_has_just_begun_to_look_calls_nothing_too_slow() -> None:
    decision = decide(GPU, seen(coming(engine=LATE), watched_seconds=1))
    assert result(decision) == (BAD, "")
    assert decision.look_again_seconds == 29


def test_the_clock_of_a_pod_that_was_ready_begins_anew_and_stops_without_keys() -> None:
    pod = coming(engine=LATE)
    assert decide(GPU, seen(replace(pod, unready_since=ago(1)))).record.failed is None
    without_keys = {"uid-new": seen_agent(keys_error="the Secret is missing")}
    assert decide(GPU, seen(pod, agents=without_keys)).record.failed is None
    assert decide(GPU, seen(pod, agents={"uid-new": seen_agent()})).record.failed is not None


SAID = "Waiting for 3 other workers"


@pytest.mark.parametrize(
    ("status", "agent", "words"),
    [
        (LATE, {"said": SAID}, f"and does not answer; it last said: {SAID}"),
        (
            {**LATE, "ended": (1, "dead"), "restarts": 1},
            {"said": SAID},
            f"{SAID}; before that, container vllm of pod new ended with exit code 1: dead",
        ),
        (LATE, {"said": SAID, "reachable": False, "silent": 3600}, SAID),  # the last that was heard
        (LATE, {}, "and does not answer"),
        ({**LATE, "started": True}, {}, "answers, and is not made ready by its agent"),
    ],
)
def test_a_start_that_only_hangs_is_quoted(status: dict[str, Any], agent: dict[str, Any], words: str) -> None:
    failed = decide(GPU, seen(coming(engine=status), agents={"uid-new": seen_agent(**agent)})).record.failed
    assert failed is not None
    assert failed.reason is Reason.START_TOO_SLOW
    assert failed.message.endswith(words)


def test_a_long_quotation_is_kept_whole_beside_what_ended_the_start_before() -> None:
    said, before = "s" * 600, "b" * 500
    failed = decide(GPU, seen(coming(engine={**LATE, "ended": (1, before), "restarts": 1}), agents={"uid-new": seen_agent(said=said)})).record.failed
    assert failed is not None
    assert said in failed.message
    assert before in failed.message


def test_what_was_said_before_the_engine_ended_is_not_taken_for_its_present_start() -> None:
    pod = coming(engine={"waiting": ("CrashLoopBackOff", ""), "ended": (1, "dead"), "restarts": 1})
    assert progress([pod], {"uid-new": seen_agent(said=SAID)}, BAD).coming[0].said == ""


@pytest.mark.parametrize(("silent", "rolled_back"), [(1, False), (419, False), (421, True)])
def test_a_pod_whose_node_may_be_lost_is_not_too_slow(silent: float, rolled_back: bool) -> None:
    """A lost node's pods stay as they were last told of, and running, until the cluster takes them away."""
    decision = decide(GPU, seen(coming(engine=LATE), agents={"uid-new": seen_agent(reachable=False, silent=silent)}))
    assert decision.newly_failed is rolled_back
    assert rolled_back or decision.look_again_seconds == 420 - silent


def test_the_time_that_is_left_is_when_it_is_looked_at_again() -> None:
    decision = decide(replace(GPU, deadline_seconds=600), seen(coming(engine={"running": True, "since": ago(9)})))
    assert decision.look_again_seconds == 60
    assert decide(GPU, seen(coming(unschedulable="no", node=""))).look_again_seconds is None


@pytest.mark.parametrize(
    ("rules", "pod", "seconds"),
    [
        (GPU, Coming("p"), 1200),
        (replace(GPU, eager=True), Coming("p"), 900),
        (replace(GPU, eager=True), Coming("p", weights_bytes=100 * 2**30), 600 + 1024),
        (GPU, Coming("p", weights_bytes=100 * 2**30), 1200 + 1024),
        (replace(GPU, cpu=True), Coming("p"), 1800),
        (replace(GPU, deadline_seconds=90), Coming("p", weights_bytes=2**40), 90),
        (GPU, Coming("p", weights_bytes=2**40, startup_seconds=3600), 3540),  # before the kubelet ends it without a word
        (replace(GPU, deadline_seconds=7200), Coming("p", startup_seconds=3600), 3540),
    ],
)
def test_the_deadline(rules: Policy, pod: Coming, seconds: float) -> None:
    assert deadline_seconds(rules, pod) == seconds


HOMELESS = "0/2 nodes: Insufficient nvidia.com/gpu"


def homeless(minutes: float) -> Pod:
    return replace(coming(unschedulable=HOMELESS, node=""), unschedulable_since=ago(minutes))


@pytest.mark.parametrize(
    ("rules", "pods", "one_at_a_time", "expected"),
    [
        (GPU, [], False, (1, 0)),
        (replace(GPU, surge=0), [], False, (0, 1)),
        (replace(GPU, surge=3, replicas=4), [homeless(30)], False, (3, 0)),
        (GPU, [homeless(30)], False, (1, 0)),  # the only one is never ended without consent
        (replace(GPU, surge=0), [homeless(30)], False, (0, 1)),
        (replace(GPU, replicas=2), [homeless(4)], False, (1, 0)),
        (replace(GPU, replicas=2), [homeless(5)], False, (0, 1)),
        (replace(GPU, replicas=2), [coming()], True, (0, 1)),  # until the rollout is done
    ],
)
def test_surge(rules: Policy, pods: list[Pod], one_at_a_time: bool, expected: tuple[int, int]) -> None:
    decision = decide(rules, seen(*pods, one_at_a_time=one_at_a_time))
    assert (decision.surge, decision.unavailable) == expected


@pytest.mark.parametrize(("one_at_a_time", "expected"), [(True, (0, 1)), (False, (1, 0))])
def test_a_rollout_goes_back_the_way_it_came(one_at_a_time: bool, expected: tuple[int, int]) -> None:
    failing = seen(coming(engine={"ended": (2, CAUSE)}), homeless(30), one_at_a_time=one_at_a_time)
    decision = decide(replace(GPU, replicas=2), failing)
    assert decision.newly_failed
    assert (decision.surge, decision.unavailable) == expected


def test_after_a_rollout_without_spare_room_the_next_one_begins_with_it() -> None:
    done = progress([seen_pod("a", template=BAD), seen_pod("b", template=BAD)], {}, BAD)
    assert decide(replace(GPU, replicas=2), seen(progress=done, one_at_a_time=True)).surge == 1


@pytest.mark.parametrize(("rules", "told"), [(GPU, True), (replace(GPU, surge=0), False), (replace(GPU, replicas=2), False)])
def test_a_single_replica_without_room_beside_it_needs_consent_to_downtime(rules: Policy, told: bool) -> None:
    problem = decide(rules, seen(homeless(1))).problem
    assert (problem is not None and problem.reason is Reason.ROLLOUT_NEEDS_DOWNTIME) is told
    if problem:
        assert HOMELESS in problem.message
        assert "spec.rollout.surge to 0" in problem.message
        assert not problem.needs_user


def test_the_record_survives_the_status_and_the_history_has_an_end() -> None:
    known = Record(GOOD, 1, FAILED, (Outcome(2, BAD, ROLLED_BACK, "t", "EngineCrashed"), Outcome(1, GOOD, COMPLETED, "t")))
    assert record(known.to_status()) == known
    assert record(None) == record({}) == Record()
    full = replace(known, failed=None, history=tuple(Outcome(1, GOOD, COMPLETED, str(number)) for number in range(HISTORY_LENGTH)))
    decision = decide(GPU, seen(coming(engine={"ended": (2, CAUSE)}), record=full))
    assert len(decision.record.history) == HISTORY_LENGTH
    assert decision.record.history[0].result == ROLLED_BACK


pods_of = st.builds(
    Coming,
    name=st.sampled_from(["a", "b"]),
    ends=st.integers(0, 5),
    definitive=st.booleans(),
    clock_from=st.sampled_from(["", ago(1), ago(50)]),
    answers=st.booleans(),
)
progresses = st.builds(
    Progress,
    ready=st.integers(0, 2),
    others=st.integers(0, 2),
    others_ready=st.sampled_from([(), (GOOD,), (OTHER,)]),
    coming=st.lists(pods_of, max_size=2).map(tuple),
    unschedulable=st.sampled_from(["", HOMELESS]),
)
records = st.builds(Record, last_good=st.sampled_from(["", GOOD, BAD, "pruned"]), failed=st.sampled_from([None, FAILED]))
rules_of = st.builds(Policy, replicas=st.integers(0, 2), auto_rollback=st.booleans(), surge=st.sampled_from([None, 0, 1]))


@given(rules_of, progresses, records, st.sampled_from([GOOD, BAD, OTHER]))
def test_whatever_is_seen_the_decision_holds_to_its_rules(rules: Policy, how_far: Progress, known: Record, wanted: str) -> None:
    first = decide(rules, seen(wanted=wanted, progress=how_far, record=known))
    failed = first.record.failed
    assert first.applied in REVISIONS
    assert first.applied == (first.record.last_good if failed else wanted)
    assert failed is None or failed.template_hash == wanted != first.applied
    assert (first.surge, first.unavailable) != (0, 0)
    again = decide(rules, seen(wanted=wanted, progress=how_far, record=first.record))
    assert (again.applied, again.record, again.newly_failed, again.completed) == (first.applied, first.record, False, False)
