"""A bad revision goes back by itself while the old pod serves, and what happens to engines that start or die is told.

One engine starts twice here and one restarts, so this file reuses the shared deployment: its flags at the end are others than before.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.e2e.service import DEPLOYMENT_READY_SECONDS, Service, container
from tests.harness import processes
from tests.harness.kube import Kube, Object, condition, condition_is
from tests.harness.load import Load

FLAG, VALUE = "max-num-batched-tokens", "plenty"  # of a type that only vLLM knows
ROLLED_BACK_SECONDS = 120  # one look of vLLM at its flags, on two busy cores
GONE_SECONDS = 10
LOOK_SECONDS = 0.1


def set_args(kube: Kube, **args: object) -> None:
    """Merge into `engine.args`; None removes a flag."""
    kube.patch("llmdeployment", "tiny", {"spec": {"engine": {"args": {name.replace("_", "-"): value for name, value in args.items()}}}})


def rollout(item: Object) -> Object:
    """Return status.rollout of an LLMDeployment."""
    found: Object = item.get("status", {}).get("rollout", {})
    return found


@pytest.fixture(scope="module")
def good(taught: Service, kube: Kube) -> Object:
    """The deployment as it is before anything goes wrong."""
    return kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=DEPLOYMENT_READY_SECONDS)


def test_a_bad_flag_is_rolled_back_and_quoted_and_a_good_edit_rolls_without_a_lost_request(taught: Service, kube: Kube, good: Object) -> None:
    pods, before = taught.identities(), rollout(good)
    assert before["lastGood"] == before["revision"]
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=2, tokens=8, seconds=600) as load:
        load.wait_for(4)
        set_args(kube, max_num_batched_tokens=VALUE)
        item = kube.wait_condition("llmdeployment", "tiny", "RolledBack", timeout=ROLLED_BACK_SECONDS)
        after = rollout(item)
        assert condition(item, "RolledBack")["reason"] == after["failed"]["reason"] == "EngineCrashed"
        for text in (FLAG, VALUE, "exit code 2"):
            assert text in condition(item, "RolledBack")["message"], condition(item, "RolledBack")
        assert (after["revision"], after["lastGood"], after["templateHash"]) == (before["revision"], before["lastGood"], before["templateHash"])
        assert after["history"][0]["result"] == "RolledBack"
        item = kube.wait_condition("llmdeployment", "tiny", "Stalled", timeout=30)
        assert condition(item, "Stalled")["reason"] == "RolledBack"
        assert condition(item, "Serving")["status"] == "True"
        until_event(kube, "RolledBack", FLAG)
        load.wait_for(8)
        load.wait_until(lambda: [pod["metadata"]["uid"] for pod in taught.pods()] == [uid for uid, *_ in pods], "the failed pod is asked to end", 60)
        assert taught.identities() == pods, "the old pod is the one that serves, untouched"

        set_args(kube, max_num_batched_tokens=None, seed=7)
        delete_while_it_starts(taught, kube, {uid for uid, *_ in pods})
        item = kube.wait("llmdeployment", "tiny", lambda item: rollout(item).get("lastGood") == after["failed"]["revision"] + 1, 240, "rolled out")
        assert "failed" not in rollout(item)
        load.wait_for(8)
    assert load.tally.failures == []
    assert not set(taught.identities()) & set(pods)
    assert condition_is(kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60), "RolledBack", "False")


def until_event(kube: Kube, reason: str, words: str) -> None:
    """Return when an Event of this reason quotes the words."""
    deadline = time.monotonic() + 30
    for _, event in kube.watch("events", deadline=deadline):
        if event.get("reason") == reason and words in event.get("message", ""):
            assert event["type"] == "Warning"
            return
    raise AssertionError(f"no Event {reason} with {words!r}")


def delete_while_it_starts(service: Service, kube: Kube, old: set[str]) -> None:
    """Delete the new pod when its engine's core loads, which is when vLLM loses a SIGTERM; it must be gone within seconds, not a grace period."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        new = [pod for pod in service.pods() if pod["metadata"]["uid"] not in old]
        if new and processes.of_pod(new[0]["metadata"]["uid"], "EngineCore"):
            name = new[0]["metadata"]["name"]
            grace = new[0]["spec"]["terminationGracePeriodSeconds"]
            assert grace > 4 * GONE_SECONDS, "a pod that is killed at the end of its grace period would prove nothing"
            began = time.monotonic()
            kube.delete("pod", name, timeout=grace + 30)
            seconds = time.monotonic() - began
            print(f"the pod was gone {seconds:.1f} s after it was deleted while its engine started; its grace period is {grace} s")
            assert seconds <= GONE_SECONDS
            return
        threading.Event().wait(LOOK_SECONDS)  # the processes of a pod tell nobody that they begin
    raise AssertionError("no engine core of a new pod was seen")


def test_an_engine_that_dies_is_told_with_its_cause_restarts_and_is_not_the_revisions_fault(taught: Service, kube: Kube) -> None:
    """vLLM ends with exit code 0 then, which Kubernetes would call Completed."""
    item = kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)
    revision, pod = rollout(item)["revision"], taught.pod()
    before = container(pod, "vllm")["restartCount"]
    processes.kill(pod["metadata"]["uid"], "EngineCore")
    item = kube.wait("llmdeployment", "tiny", lambda item: condition(item, "Ready").get("reason") == "EngineCrashed", 60, "EngineCrashed")
    told = condition(item, "Ready")["message"]
    assert "exit code 70" in told
    assert "engine core" in told.lower().replace("enginecore", "engine core"), told
    assert condition(item, "RolledBack")["status"] == "False"
    item = kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=DEPLOYMENT_READY_SECONDS)
    assert rollout(item)["revision"] == revision
    (after,) = taught.pods()
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    status = container(after, "vllm")
    assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (before + 1, 70)
    taught.until_answer("medical", "swordfish", timeout=30)
