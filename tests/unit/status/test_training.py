from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from graftwork.api.status import FineTuneJobStatus
from graftwork.facts.pods import pod as facts
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status.training import JobFacts, Observed, ending, job_facts, status

from tests.unit.status.seen import NOW, condition, container, message, pod_object

DIGEST = "sha256:" + "a" * 64
RESULT = {
    "apiVersion": "graftwork.dev/result/v1",
    "outcome": "Succeeded",
    "reason": "Published",
    "message": "",
    "adapter": {"source": f"store://ml/medical/{'a' * 12}", "digest": DIGEST, "rank": 8, "sizeBytes": 1000},
    "base": {"fingerprint": "sha256:" + "1" * 64},
    "dataset": {"examples": 10, "validation": 2, "tokens": 100, "digest": DIGEST, "format": "messages", "warnings": ["few"]},
    "evaluation": {"baseLoss": 7.1, "adapterLoss": 0.4, "improvement": 0.94, "verdict": "Passed"},
    "training": {"steps": 60, "seconds": 8.0, "loss": 0.2},
    "memory": {"measuredPeakBytes": 1_900_000_000},
    "publishedAt": "2026-11-21T13:00:00.123456Z",
}
JOB = JobFacts(exists=True, started="2026-11-21T12:00:00Z")
FAILED = replace(JOB, failed=("BackoffLimitExceeded", "too many"), failed_at="2026-11-21T12:59:30Z")
SEEN = Observed(1, 1, False, JOB, (), None, None, "", None, {}, NOW, retry_limit=3)


def run_pod(name: str = "r1", **fields: Any) -> Any:
    return facts(pod_object(name, ready=False, **fields))


def ended(code: int, message: str, **more: Any) -> Any:
    return run_pod(phase="Succeeded" if code == 0 else "Failed", main=(container("trainer", ended=(code, message), **more),), **more)


def see(job: JobFacts = JOB, *pods: Any, **fields: Any) -> dict[str, Any]:
    found = status(replace(SEEN, job=job, pods=pods, ending=ending(job, pods), **fields))
    FineTuneJobStatus.model_validate({key: value for key, value in found.items() if value is not None})
    return found


def result(**changes: Any) -> str:
    return json.dumps({**RESULT, **changes})


@pytest.mark.parametrize(
    ("pods", "progress", "phase"),
    [
        ((), None, "Pending"),
        ((run_pod(),), None, "Pending"),
        ((run_pod(init=(container("download-base", running=True),)),), None, "Preparing"),
        ((run_pod(main=(container("trainer", running=True),)),), None, "Preparing"),
        ((run_pod(main=(container("trainer", running=True),)),), {"phase": "Training", "step": 48, "steps": 120}, "Training"),
        ((run_pod(main=(container("trainer", running=True),)),), {"phase": "Evaluating"}, "Evaluating"),
    ],
)
def test_a_run_that_goes_on_has_the_phase_that_was_seen(pods: tuple[Any, ...], progress: dict[str, Any] | None, phase: str) -> None:
    found = see(JOB, *pods, progress=progress)
    assert found["phase"] == phase
    assert condition(found, "Reconciling") == ("True", phase)
    assert condition(found, "Stalled")[0] == "False"


def test_progress_is_live_and_stays_when_the_trainer_falls_silent() -> None:
    pod = run_pod(main=(container("trainer", running=True),))
    live = {"phase": "Training", "step": 48, "steps": 120, "loss": 0.83, "etaSeconds": 84, "epoch": None}
    first = see(JOB, pod, progress=live)
    assert first["progressText"] == "48/120"
    assert first["progress"] == {"step": 48, "steps": 120, "loss": 0.83, "etaSeconds": 84}
    silent = see(JOB, pod, before=first)
    assert (silent["phase"], silent["progressText"]) == ("Training", "48/120")


def test_a_published_run_has_succeeded_with_its_numbers() -> None:
    found = see(JOB, ended(0, result()), adapter="medical-8")
    assert (found["phase"], found["adapter"], found["progressText"]) == ("Succeeded", "medical-8", "60/60")
    assert condition(found, "Ready") == ("True", "Published")
    assert found["evaluation"]["verdict"] == "Passed"
    assert found["dataset"]["warnings"] == ["few"]
    assert found["memory"] == {"measuredPeakBytes": 1_900_000_000}
    assert found["publishedAt"] == "2026-11-21T13:00:00.123456Z"
    assert found["finishedAt"] == "2026-11-21T12:59:00Z"
    assert found["startedAt"] == "2026-11-21T12:00:01Z"
    assert found["attempts"] == 1


def test_below_the_gate_is_rejected_and_nothing_is_published() -> None:
    text = result(outcome="Rejected", reason="BelowGate", message="improvement 0.01 is below 0.02", adapter=None)
    found = see(JOB, ended(0, text))
    assert (found["phase"], found["adapter"]) == ("Rejected", None)
    assert condition(found, "Stalled") == ("True", "BelowGate")
    assert "0.01 is below 0.02" in message(found, "Stalled")


DATA = json.dumps(
    {"apiVersion": "graftwork.dev/result/v1", "outcome": "Failed", "reason": "DatasetInvalid", "message": "train.jsonl line 7: expected messages"}
)


@pytest.mark.parametrize(
    ("job", "pod", "reason", "words"),
    [
        (replace(FAILED, failed=("PodFailurePolicy", "")), ended(64, DATA), "DatasetInvalid", "train.jsonl line 7: expected messages"),
        (FAILED, ended(70, "Traceback\n  File x\nRuntimeError: boom\n"), "TrainingFailed", "RuntimeError: boom"),
        (FAILED, ended(70, '{"apiVersion": "other"}'), "TrainingFailed", "other"),
        (FAILED, ended(137, "", reason="OOMKilled"), "OutOfMemory", "limits.memory"),
        (FAILED, run_pod(phase="Failed", init=(container("download-base", ended=(65, "no such bucket")),)), "SourceUnreachable", "no such bucket"),
        (replace(FAILED, failed=("DeadlineExceeded", "")), run_pod(phase="Failed"), "TimeLimit", "timeLimit"),
        (JOB, ended(0, "not json"), "TrainingFailed", "not json"),
        (JOB, ended(0, result(adapter={**RESULT["adapter"], "source": f"store://ml/medical/{'b' * 12}"})), "TrainingFailed", "cannot be used"),  # type: ignore[dict-item]
    ],
)
def test_a_failed_run_says_why_in_the_programs_own_words(job: JobFacts, pod: Any, reason: str, words: str) -> None:
    found = see(job, pod)
    assert found["phase"] == "Failed"
    assert condition(found, "Stalled")[0] == "True"
    assert condition(found, "Ready")[1] == reason
    assert words in message(found, "Stalled")


def test_a_failed_attempt_is_no_end_while_the_job_tries_again() -> None:
    found = see(JOB, ended(70, "RuntimeError: boom"), run_pod("r2", created="2026-11-21T12:30:00Z"))
    assert found["phase"] == "Pending"
    assert "attempt 2 of 4" in message(found, "Ready")
    assert "boom" in message(found, "Ready")
    assert found["attempts"] == 2


def test_a_disrupted_pod_does_not_hide_the_real_failure() -> None:
    disrupted = run_pod("r2", phase="Failed", created="2026-11-21T12:30:00Z", disrupted=True, main=(container("trainer", ended=(143, "")),))
    assert "boom" in message(see(FAILED, ended(70, "boom"), disrupted), "Stalled")


def test_a_result_that_is_gone_with_its_pod_is_said() -> None:
    found = see(replace(JOB, complete_at="2026-11-21T12:59:00Z"))
    assert found["phase"] == "Failed"
    assert "its pod is gone" in message(found, "Stalled")


def test_suspended_and_blocked_runs_say_so() -> None:
    assert see(JobFacts(exists=False), suspend=True)["phase"] == "Suspended"
    found = see(JobFacts(exists=False), problem=Problem(Reason.DEPLOYMENT_NOT_FOUND, "no such deployment", needs_user=False))
    assert found["phase"] == "Pending"
    assert condition(found, "Ready") == ("False", "DeploymentNotFound")
    assert condition(found, "Stalled")[0] == "False"


def test_an_unschedulable_run_is_pending_with_the_schedulers_words() -> None:
    found = see(JOB, run_pod(unschedulable="Insufficient nvidia.com/gpu"))
    assert (found["phase"], condition(found, "Ready")[1]) == ("Pending", "Unschedulable")


def test_job_facts_read_the_conditions() -> None:
    job = {"spec": {"suspend": True}, "status": {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}]}}
    assert job_facts(job).failed == ("PodFailurePolicy", "")
    assert job_facts(job).suspended
    assert not job_facts(None).exists
