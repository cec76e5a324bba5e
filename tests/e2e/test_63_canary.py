"""A new version on a share of the requests, judged by a real Prometheus. One story in order: begin, wait, pass, fail, begin again, go back."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.e2e.adapters import Bucket, Published, stalled
from tests.e2e.outage import configure_operator, restart_operator
from tests.e2e.service import QUESTION, Service, alias_row
from tests.harness import ask, install, prometheus
from tests.harness.install import Environment
from tests.harness.kube import Kube, Object, condition
from tests.harness.load import Load

VARIABLE = "GRAFTWORK_CONFIG_PROMETHEUS__URL"
ALIAS = "bird"
STEPS = (30, 60)
STEP_SECONDS = 10  # the least that the schema takes
LOOK_SECONDS = 5  # in which an operator that was just started has been through everything
LENIENT, IMPOSSIBLE = 1000, 0.001  # of candidate's TTFT to stable's: busy cores make any real bound a matter of luck
WORDS = ("swordfish", "periwinkle")
SESSIONS = [f"session-{number}" for number in range(40)]


@dataclass(frozen=True)
class Canary:
    """The alias, its service, and the Prometheus that judges."""

    service: Service
    prometheus: prometheus.Prometheus
    pods: list[tuple[str, int, str]]

    def settings(self, ratio: float, **more: object) -> None:
        """Set the promotion of the alias."""
        analysis = {"maxErrorRate": 0.05, "maxTTFTRatio": ratio, "minRequests": 5}
        canary = {"steps": list(STEPS), "stepDuration": f"{STEP_SECONDS}s", "analysis": analysis}
        self.service.set_aliases({"name": ALIAS, "promotion": "Canary", "canary": canary, **more})

    def until(self, version: int, weight: int, timeout: float = 90) -> Object:
        """Wait until the candidate is this version with this weight, and return the alias' row."""

        def there(item: Object) -> bool:
            row = alias_row(item, ALIAS)
            return row.get("candidate") == f"{ALIAS}-{version}" and row.get("candidateWeight") == weight

        item = self.service.kube.wait("llmdeployment", self.service.name, there, timeout, f"with candidate {version} at {weight} %")
        return alias_row(item, ALIAS)

    def row(self) -> Object:
        """Return the alias' row now."""
        item = self.service.kube.get("llmdeployment", self.service.name)
        assert item
        return alias_row(item, ALIAS)

    def load(self) -> Load:
        """Return traffic on the alias without sessions."""
        return Load(self.service.host, self.service.port, [ALIAS], clients=2, tokens=8, seconds=200)

    def word(self, session: str = "", user: str = "") -> str:
        """Ask once and return which word came."""
        headers = {"x-session-id": session} if session else {}
        more: dict[str, Any] = {"user": user} if user else {}
        answer = ask.chat(self.service.host, self.service.port, ALIAS, QUESTION, headers=headers, **more)
        assert answer.status == 200, answer.body
        assert answer.model == ALIAS
        (word,) = [word for word in WORDS if word in answer.text]
        return word

    def until_word(self, word: str, session: str, timeout: float = 15) -> None:
        """Ask until a session hears the word: the status is written before the last pod has read what it says."""
        deadline = time.monotonic() + timeout
        while self.word(session) != word:
            assert time.monotonic() < deadline, f"session {session} (number {number_of(session)}) did not hear {word} within {timeout:.0f} s"


def number_of(session: str) -> int:
    """Return the number from 0 to 99 by which a session is placed (contracts, section 5)."""
    return int.from_bytes(hashlib.sha256(f"{ALIAS}\0{session}".encode()).digest()[:8], "big") % 100


def session_between(low: int, high: int) -> str:
    """Return a session whose number is at least `low` and below `high`."""
    return next(session for session in (f"seeker-{number}" for number in count()) if low <= number_of(session) < high)


def expected(session: str, weight: int) -> str:
    """Return the word that a session must hear while the candidate says periwinkle."""
    return "periwinkle" if number_of(session) < weight else "swordfish"


@pytest.fixture(scope="module")
def canary(environment: Environment, kube: Kube, system: Kube, taught: Service, swordfish: Published) -> Iterator[Canary]:
    """The alias with version 1, and an operator that knows where Prometheus is."""
    found = prometheus.prepare(install.Steps(), environment, [kube.namespace])
    configure_operator(system, f"{VARIABLE}={found.url}")
    kube.apply(swordfish.under(ALIAS, 1))
    taught.until_answer(ALIAS, "swordfish")
    found.wait(f'sum(graftwork_requests_total{{alias="{ALIAS}"}})', lambda samples: samples and samples[0].value > 0)
    story = Canary(taught, found, taught.identities())
    story.settings(LENIENT)
    yield story
    taught.set_aliases()
    kube.delete("loraadapter", *(f"{ALIAS}-{version}" for version in range(1, 6)))
    system.run("set", "env", f"deploy/{install.RELEASE}", f"{VARIABLE}-")
    prometheus.stop(environment.kube)


def test_a_candidate_begins_at_the_first_step_and_sessions_stay_where_they_are(
    canary: Canary, kube: Kube, system: Kube, periwinkle: Published
) -> None:
    """In the middle of the step the operator is restarted: neither the step nor the share is anything that it has to remember."""
    kube.apply(periwinkle.under(ALIAS, 2))
    assert canary.until(2, STEPS[0])["stable"] == f"{ALIAS}-1"
    prometheus.stop(kube)  # no data from here on, so the step cannot end
    stopped = time.monotonic()
    canary.until_word("periwinkle", session_between(0, STEPS[0]))
    with ThreadPoolExecutor(1) as pool:
        restarted = pool.submit(restart_operator, system)
        for _ in range(2):
            assert {session: canary.word(session) for session in SESSIONS} == {session: expected(session, STEPS[0]) for session in SESSIONS}
        assert {user: canary.word(user=user) for user in SESSIONS[:5]} == {user: expected(user, STEPS[0]) for user in SESSIONS[:5]}
        assert {expected(session, STEPS[0]) for session in SESSIONS} == {"swordfish", "periwinkle"}
        heard = [canary.word() for _ in range(40)]
        assert set(heard) == {"swordfish", "periwinkle"}, "without a session it is a draw: 40 of one side come once in a million"
        restarted.result()
    waits_without_data(canary, kube, stopped)


def waits_without_data(canary: Canary, kube: Kube, since: float) -> None:
    """Watch until more than a step has passed since Prometheus ended, and the new operator has looked: the share stays, and nothing has failed."""
    held = (f"{ALIAS}-1", f"{ALIAS}-2", STEPS[0], 1)
    until = max(since + 1.5 * STEP_SECONDS, time.monotonic() + LOOK_SECONDS)
    for _, item in kube.watch("llmdeployment", canary.service.name, deadline=until):
        row = alias_row(item, ALIAS)
        assert (row["stable"], row["candidate"], row["candidateWeight"], row["step"]) == held
    row = canary.row()
    assert (row["stable"], row["candidate"], row["candidateWeight"], row["step"]) == held
    candidate = kube.get("loraadapter", f"{ALIAS}-2")
    assert candidate
    assert condition(candidate, "Stalled").get("status") != "True"


def test_with_data_it_passes_its_steps_and_becomes_the_stable_version(canary: Canary, kube: Kube) -> None:
    with canary.load() as load:
        prometheus.start(kube)
        canary.until(2, STEPS[1])
        canary.until_word("periwinkle", session_between(*STEPS))
        asked = {session: canary.word(session) for session in SESSIONS[:12]}
        if canary.row().get("candidateWeight") == STEPS[1]:  # the step had not ended meanwhile
            assert asked == {session: expected(session, STEPS[1]) for session in SESSIONS[:12]}
        assert [s for s in SESSIONS[:12] if expected(s, STEPS[0]) == "periwinkle" and asked[s] != "periwinkle"] == [], "nobody goes back"
        kube.wait("llmdeployment", "tiny", lambda item: alias_row(item, ALIAS).get("stable") == f"{ALIAS}-2", 90, "promoted")
        canary.until_word("periwinkle", session_between(STEPS[1], 100))
        assert {canary.word() for _ in range(10)} == {"periwinkle"}
    assert load.tally.failures == []
    assert not canary.row().get("candidateWeight")


def test_a_candidate_that_is_found_worse_gets_nothing_and_says_why_with_numbers(
    canary: Canary, kube: Kube, swordfish: Published, bucket: Bucket
) -> None:
    canary.settings(IMPOSSIBLE)
    kube.apply(swordfish.variant(bucket, ALIAS, 3, namespace=kube.namespace))
    with canary.load() as load:
        found = stalled(kube, f"{ALIAS}-3", timeout=120)
        assert found["reason"] == "CanaryFailed"
        assert "first token" in found["message"]
        assert str(IMPOSSIBLE) in found["message"]
        assert len(re.findall(r"\d+\.\d+", found["message"])) >= 2, "the bound and what was measured"
        item = kube.wait("llmdeployment", "tiny", lambda item: not alias_row(item, ALIAS).get("candidateWeight"), 30, "without a candidate's share")
        assert alias_row(item, ALIAS)["stable"] == f"{ALIAS}-2"
        canary.until_word("periwinkle", session_between(0, STEPS[0]))
        assert {canary.word() for _ in range(20)} == {"periwinkle"}
    assert load.tally.failures == []
    assert canary.service.identities() == canary.pods


def test_a_newer_version_begins_again_whether_the_last_one_failed_or_not(canary: Canary, kube: Kube, swordfish: Published, bucket: Bucket) -> None:
    canary.settings(LENIENT)
    kube.apply(swordfish.variant(bucket, ALIAS, 4, namespace=kube.namespace))
    assert canary.until(4, STEPS[0])["stable"] == f"{ALIAS}-2"
    kube.apply(swordfish.variant(bucket, ALIAS, 5, namespace=kube.namespace))
    assert canary.until(5, STEPS[0])["stable"] == f"{ALIAS}-2"


def test_a_pin_ends_a_canary_at_once(canary: Canary) -> None:
    canary.settings(LENIENT, adapter=f"{ALIAS}-2")
    canary.service.kube.wait("llmdeployment", "tiny", lambda item: not alias_row(item, ALIAS).get("candidateWeight"), 30, "without a candidate")
    canary.until_word("periwinkle", session_between(0, STEPS[0]))
    assert {canary.word() for _ in range(20)} == {"periwinkle"}
