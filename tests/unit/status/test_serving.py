from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from graftwork.api.status import LLMDeploymentStatus
from graftwork.facts.adapters import NOTHING, AliasPlan, Decision, Selection
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status.serving import Observed, status

from tests.unit.status.seen import NOW, adapter, condition, container, loaded, message, refused, seen_agent, seen_pod

EIGHT, SEVEN = adapter(version=8), adapter(version=7, letter="b")
ONE_ALIAS = Selection({item.name: Decision(item, True) for item in (EIGHT, SEVEN)}, (AliasPlan("medical", (EIGHT, SEVEN)),))
READY = (seen_pod("p1"), seen_pod("p2"))
ALL = {"uid-p1": seen_agent(loaded(EIGHT), loaded(SEVEN)), "uid-p2": seen_agent(loaded(EIGHT), loaded(SEVEN))}
GOOD = Observed("support", "ml", 3, 8000, 2, "t1", 7, READY, ALL, ONE_ALIAS, None, None, "", False, {}, NOW)


def see(**fields: Any) -> dict[str, Any]:
    found = status(replace(GOOD, **fields))
    LLMDeploymentStatus.model_validate(found)
    return found


def test_what_serves_as_asked_is_ready() -> None:
    found = see()
    assert condition(found, "Ready") == ("True", "Reconciled")
    assert condition(found, "Reconciling")[0] == condition(found, "Stalled")[0] == "False"
    assert condition(found, "Serving") == ("True", "Serving")
    assert condition(found, "AdaptersLoaded") == ("True", "AdaptersLoaded")
    assert found["summary"] == "2/2 ready, 1/1 adapter, revision 7"
    assert found["endpoint"] == "http://support.ml.svc:8000/v1"
    assert found["selector"] == "graftwork.dev/deployment=support"
    assert (found["replicas"], found["readyReplicas"], found["adaptersText"]) == (2, 2, "1/1")
    assert found["adapters"] == [{"alias": "medical", "stable": "medical-8", "engineName": "medical--aaaaaaaaaaaa", "loaded": 2, "of": 2}]
    assert found["model"]["architecture"] == "Qwen3ForCausalLM"


def test_a_cold_start_is_measured_once_and_not_after_a_restart() -> None:
    fresh = seen_pod("p1", main=(container("vllm", running=True),))
    assert see(pods=(fresh,))["coldStart"] == {
        "pod": "p1",
        "createdAt": "2026-11-21T12:00:00Z",
        "cachedSeconds": 0.0,
        "readySeconds": 60.0,
    }
    restarted = seen_pod("p1", main=(container("vllm", running=True, restarts=1),))
    assert see(pods=(restarted,), before={"coldStart": {"readySeconds": 60.0}})["coldStart"] == {"readySeconds": 60.0}


CRASH = container("vllm", waiting=("CrashLoopBackOff", "back-off"), ended=(1, "noise\nValueError: max_model_len 9000 is too long\n"), restarts=3)
FAILED_DOWNLOAD = container(
    "download",
    waiting=("CrashLoopBackOff", ""),
    ended=(65, '{"apiVersion":"graftwork.dev/result/v1","outcome":"Failed","reason":"SourceNotFound","message":"nothing at s3://models/x"}'),
)
UNREACHED = container(
    "download",
    waiting=("CrashLoopBackOff", ""),
    ended=(70, '{"apiVersion":"graftwork.dev/result/v1","outcome":"Failed","reason":"SourceUnreachable","message":"no answer"}'),
)


@pytest.mark.parametrize(
    ("pod", "ready", "stalled", "words"),
    [
        (seen_pod("p1", ready=False), "PodsStarting", False, "0 of 1"),
        (seen_pod("p1", ready=False, unschedulable="0/2 nodes: Insufficient nvidia.com/gpu"), "Unschedulable", False, "Insufficient nvidia.com/gpu"),
        (seen_pod("p1", ready=False, main=(CRASH,)), "EngineCrashed", True, "max_model_len 9000 is too long"),
        (seen_pod("p1", ready=False, main=(container("vllm", running=True, ended=(1, "boom"), restarts=1),)), "EngineCrashed", False, "boom"),
        (
            seen_pod("p1", ready=False, main=(container("vllm", running=True, ended=(0, "EngineDeadError"), restarts=1),)),
            "EngineCrashed",
            False,
            "Dead",
        ),
        (seen_pod("p1", ready=False, main=(container("vllm", waiting=("x", ""), ended=(2, "bad flag"), restarts=1),)), "EngineCrashed", True, "flag"),
        (
            seen_pod("p1", ready=False, main=(container("vllm", running=True, started=True, ended=(1, "weeks ago"), restarts=2),)),
            "PodsStarting",
            False,
            "0 of 1",
        ),
        (seen_pod("p1", ready=False, init=(FAILED_DOWNLOAD,)), "SourceNotFound", True, "nothing at s3://models/x"),
        (seen_pod("p1", ready=False, init=(UNREACHED,)), "SourceUnreachable", False, "no answer"),
        (seen_pod("p1", ready=False, init=(container("install", waiting=("ImagePullBackOff", "not found")),)), "ImagePullFailed", False, "not found"),
        (seen_pod("p1", ready=False, init=(container("install", waiting=("ErrImageNeverPull", "x")),)), "ImagePullFailed", True, "install"),
        (
            seen_pod("p1", ready=False, init=(container("download", waiting=("CreateContainerConfigError", 'secret "models" not found')),)),
            "InvalidSpec",
            True,
            'secret "models" not found',
        ),
        (
            seen_pod("p1", ready=False, main=(container("vllm", waiting=("x", ""), ended=(137, ""), reason="OOMKilled"),)),
            "OutOfMemory",
            False,
            "memory",
        ),
        (
            seen_pod("p1", ready=False, init=(container("install", ended=(0, "")), container("download", ended=(0, "")))),
            "PodsStarting",
            False,
            "0 of 1",
        ),
    ],
)
def test_what_is_wrong_with_a_pod_is_said_with_its_own_words(pod: Any, ready: str, stalled: bool, words: str) -> None:
    found = see(wanted=1, pods=(pod,), agents={}, selection=NOTHING)
    assert condition(found, "Ready") == ("False", ready)
    assert condition(found, "Stalled")[0] == str(stalled)
    assert condition(found, "Reconciling")[0] == str(not stalled)
    assert words in message(found, "Ready")
    assert condition(found, "Serving") == ("False", "NotServing")


def test_a_bad_new_revision_is_stalled_while_the_old_one_serves() -> None:
    found = see(wanted=1, template_hash="t2", pods=(seen_pod("p1"), seen_pod("p2", ready=False, template="t2", main=(CRASH,))))
    assert condition(found, "Stalled") == ("True", "EngineCrashed")
    assert condition(found, "Serving")[0] == "True"
    assert "1 ready pods go on serving" in message(found, "Stalled")


def test_a_rollout_is_not_ready_before_the_old_pods_are_gone() -> None:
    found = see(wanted=1, template_hash="t2", pods=(seen_pod("p1"), seen_pod("p2", template="t2")))
    assert condition(found, "Ready") == ("False", "Progressing")
    gone = see(wanted=1, template_hash="t2", pods=(seen_pod("p1", terminating=True), seen_pod("p2", template="t2")))
    assert condition(gone, "Ready")[0] == "True"


def test_zero_replicas_is_stopped_and_ready() -> None:
    found = see(wanted=0, pods=(), agents={})
    assert condition(found, "Ready") == ("True", "Stopped")
    assert condition(found, "Serving") == ("False", "Stopped")
    assert condition(found, "AdaptersLoaded") == ("False", "Stopped")


def test_an_invalid_spec_is_stalled_and_says_that_serving_goes_on() -> None:
    found = see(
        problem=Problem(Reason.OWNED_FLAG, "spec.engine.args sets 'port'"), revision=None, before={"rollout": {"revision": 6, "templateHash": "t1"}}
    )
    assert condition(found, "Stalled") == ("True", "OwnedFlag")
    assert condition(found, "Ready") == ("False", "OwnedFlag")
    assert "what was served before goes on: 2 ready" in message(found, "Stalled")
    assert found["rollout"] == {"revision": 6, "templateHash": "t1"}


def test_refused_pods_are_told_with_the_answer_of_the_api_server() -> None:
    found = see(pods=(), agents={}, refused_pods="exceeded quota: gpus")
    assert condition(found, "Ready") == ("False", "PodsRefused")
    assert "exceeded quota" in message(found, "Ready")


def test_a_refusal_by_an_agent_names_alias_version_pod_and_what_answers_meanwhile() -> None:
    agents = {"uid-p1": seen_agent(refused(EIGHT, "TensorMismatch", "q_proj is 128, the base has 256"), loaded(SEVEN)), "uid-p2": ALL["uid-p2"]}
    found = see(agents=agents)
    assert condition(found, "AdaptersLoaded") == ("False", "AdapterFailed")
    for words in ("medical version 8", "pod p1", "q_proj is 128", "medical-7 answers meanwhile"):
        assert words in message(found, "AdaptersLoaded")
    assert (found["adapters"][0]["reason"], found["adapters"][0]["loaded"], found["adapters"][0]["of"]) == ("TensorMismatch", 1, 2)
    assert condition(found, "Ready")[0] == "True"


def test_a_silent_agent_is_unknown_and_not_false() -> None:
    found = see(agents={"uid-p1": ALL["uid-p1"], "uid-p2": seen_agent(loaded(EIGHT), reachable=False, silent=60)})
    assert condition(found, "AdaptersLoaded") == ("Unknown", "AgentUnreachable")
    assert "p2" in message(found, "AdaptersLoaded")
    assert found["adapters"][0]["loaded"] == 1


def test_an_operator_that_has_just_started_keeps_what_was_known_of_adapters() -> None:
    before = see()
    found = see(agents={}, settling=True, before=before)
    assert found == before


def test_loading_counts_are_in_the_message() -> None:
    found = see(agents={"uid-p1": ALL["uid-p1"], "uid-p2": seen_agent()})
    assert condition(found, "AdaptersLoaded") == ("False", "AdaptersLoading")
    assert "medical 1/2" in message(found, "AdaptersLoaded")


def test_a_refused_alias_has_a_row_and_one_for_another_base_has_none() -> None:
    high = Decision(EIGHT, False, Reason.RANK_TOO_HIGH, "spec.rank is 32")
    found = see(selection=Selection({EIGHT.name: high}, ()))
    assert found["adapters"][0]["reason"] == "RankTooHigh"
    assert "spec.rank is 32" in message(found, "AdaptersLoaded")
    other = Decision(EIGHT, False, Reason.BASE_MISMATCH, "another base")
    found = see(selection=Selection({EIGHT.name: other}, ()))
    assert found["adapters"] == []
    assert condition(found, "AdaptersLoaded") == ("True", "NoAdapters")


def test_no_store_is_said_of_adapters_only() -> None:
    found = see(selection=NOTHING, adapters_problem=Problem(Reason.STORE_NOT_CONFIGURED, "no store"))
    assert condition(found, "AdaptersLoaded") == ("False", "StoreNotConfigured")
    assert condition(found, "Ready")[0] == "True"


def test_times_change_only_with_a_status() -> None:
    first = see()
    later = see(before=first, now="2026-11-21T14:00:00.000000Z")
    assert later == first
    stopped = see(before=first, now="2026-11-21T14:00:00.000000Z", pods=(READY[0],))
    times = {item["type"]: item["lastTransitionTime"] for item in stopped["conditions"]}
    assert times["Ready"] == "2026-11-21T14:00:00.000000Z"
    assert times["Serving"] == NOW


def test_an_unreadable_model_is_stalled() -> None:
    pod = seen_pod("p1", ready=False)
    found = see(wanted=1, pods=(pod,), agents={"uid-p1": seen_agent(base=None, base_error="no config.json")}, selection=NOTHING)
    assert condition(found, "Stalled") == ("True", "ModelInvalid")
    assert "no config.json" in message(found, "Stalled")


def test_what_an_engine_says_shows_while_it_starts() -> None:
    starting, other = seen_pod("p2", ready=False), seen_pod("p0", ready=False, template="old")
    known = {"uid-p1": seen_agent(), "uid-p2": seen_agent(said="Loading shards: 50%"), "uid-p0": seen_agent(said="of another revision")}
    found = see(pods=(READY[0], other, starting), agents=known)
    assert message(found, "Reconciling").endswith("; vLLM of pod p2 last said: Loading shards: 50%")
    assert "last said" not in message(see(pods=(READY[0], starting), agents=ALL), "Reconciling")
