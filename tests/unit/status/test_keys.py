"""What is wrong with API keys is told on the LLMDeployment, and takes nothing away that serves."""

from __future__ import annotations

import pytest
from graftwork.facts.agents import agent
from graftwork.facts.pods import Pod

from tests.unit.status.seen import condition, container, loaded, message, seen_agent, seen_pod
from tests.unit.status.test_serving import EIGHT, READY, SEVEN, see

TEXT = "team-b.key has 8 characters; it must be 16 to 512 visible ASCII characters without blanks"
BAD = seen_agent(loaded(EIGHT), loaded(SEVEN), keys_error=TEXT)
GOOD = seen_agent(loaded(EIGHT), loaded(SEVEN))


def test_a_bad_file_is_told_while_everything_serves_on() -> None:
    found = see(agents={"uid-p1": GOOD, "uid-p2": BAD})
    assert condition(found, "Ready") == ("False", "ApiKeysInvalid")
    assert condition(found, "Stalled") == ("True", "ApiKeysInvalid")
    assert condition(found, "Serving") == ("True", "Serving")
    assert condition(found, "AdaptersLoaded")[0] == "True"
    assert (found["readyReplicas"], found["summary"]) == (2, "2/2 ready, 1/1 adapter, revision 7")
    for words in ("in pod p2", TEXT, "keys without fault are in force", "spec.service.apiKeysSecret"):
        assert words in message(found, "Ready")


def test_a_pod_that_never_had_keys_says_why_it_is_not_ready() -> None:
    found = see(wanted=1, pods=(seen_pod("p1", ready=False),), agents={"uid-p1": BAD})
    assert condition(found, "Ready") == ("False", "ApiKeysInvalid")
    assert "it is not ready before it has keys" in message(found, "Ready")
    assert condition(found, "Serving")[0] == "False"


@pytest.mark.parametrize(
    ("pods", "agents", "reason"),
    [
        ((*READY, seen_pod("p0", template="old")), {"uid-p1": GOOD, "uid-p2": GOOD, "uid-p0": BAD}, "Progressing"),
        (READY, {"uid-p1": GOOD, "uid-p2": seen_agent(reachable=False, keys_error=TEXT)}, "Reconciled"),
        (
            (seen_pod("p1", ready=False, main=(container("vllm", waiting=("x", ""), ended=(2, "bad flag"), restarts=1),)),),
            {"uid-p1": BAD},
            "EngineCrashed",
        ),
    ],
    ids=["an older template names another Secret", "old news", "what ends the engine comes first"],
)
def test_what_is_not_about_the_present_keys_is_not_told(pods: tuple[Pod, ...], agents: dict[str, object], reason: str) -> None:
    assert condition(see(pods=pods, agents=agents), "Ready")[1] == reason


def test_an_agents_error_is_read_from_its_status() -> None:
    said = {"observedHash": "", "adapters": [], "routes": {}}
    assert agent({**said, "keys": {"count": 2, "error": TEXT}}, reachable=True, silent_seconds=0).keys_error == TEXT
    assert agent({**said, "keys": {"count": 2, "error": ""}}, reachable=True, silent_seconds=0).keys_error == ""
    assert agent(said, reachable=True, silent_seconds=0).keys_error == ""
