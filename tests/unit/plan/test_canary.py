from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from graftwork.api.status import ServedAlias
from graftwork.facts.canary import Numbers, Observation, Outcome, Settings, Standing, from_row
from graftwork.plan.canary import Candidate, Verdict, advance, hold, judge, manual, weight
from graftwork.reasons import Reason
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 21, 13, 0, 0, 123456, tzinfo=UTC)
SETTINGS = Settings(steps=(10, 50), step_seconds=300)
EIGHT = Candidate("medical-8", "medical-7", loaded=True, weight_in_effect=None)


def numbers(requests: float = 100, errors: float = 0, ttft: float = 0.2, streams: float = 40) -> Numbers:
    return Numbers(requests, errors, ttft * streams, streams)


def seen(stable: Numbers | None = None, **candidate: float) -> Observation:
    return Observation(numbers(**candidate), stable or numbers(requests=900))


GOOD = seen()


def at(step: int, seconds: float = 0.0, **fields: Any) -> Standing:
    return Standing("medical-8", step, NOW - timedelta(seconds=seconds), **fields)


def go(standing: Standing, observation: Observation | None = GOOD, candidate: Candidate | None = None, **changes: Any) -> Outcome:
    """Do one pass with a candidate whose share is in effect."""
    given = candidate or replace(EIGHT, weight_in_effect=weight(SETTINGS, standing, "medical-8"))
    return advance(replace(SETTINGS, **changes), standing, given, lasted(observation, standing, NOW), NOW)


def lasted(observation: Observation | None, standing: Standing, now: datetime) -> Observation | None:
    """Return what Prometheus says at this moment of a step."""
    return replace(observation, lasted_seconds=(now - standing.since).total_seconds()) if observation and standing.since else observation


def test_a_canary_goes_through_its_steps_and_ends_as_the_stable_version() -> None:
    begun = go(Standing())
    assert (begun.weight, begun.standing) == (10, Standing("medical-8", 1))
    told = go(begun.standing)
    assert (told.weight, told.standing) == (10, at(1))
    assert go(at(1, 299)).weight == 10
    second = go(at(1, 300))
    assert (second.weight, second.standing) == (50, Standing("medical-8", 2))
    assert not go(at(2, 299)).promoted
    last = go(at(2, 300))
    assert last.promoted
    assert last.standing == Standing()
    assert last.reason is Reason.PROMOTED


def test_a_step_that_waits_for_data_of_pods_that_are_too_old_says_so_and_what_to_do() -> None:
    old = replace(EIGHT, weight_in_effect=10, outdated=("p1",))
    waiting = go(at(1, 400), seen(requests=0), old)
    assert (waiting.reason, waiting.weight, waiting.standing) == (Reason.GUARD_TOO_OLD, 10, at(1, 400))
    for words in ("medical-8 gets 10 %", "pods p1 were made by an older Graftwork", "rollout.upgradePolicy to Rolling", "adapter to medical-8"):
        assert words in waiting.message
    assert go(at(1, 400), GOOD, old).standing.step == 2, "the pods that can have given enough data"
    assert go(at(1, 10), seen(errors=50), old).reason is Reason.CANARY_FAILED


@pytest.mark.parametrize(
    ("candidate", "observation", "reason", "words"),
    [
        (replace(EIGHT, loaded=False), GOOD, Reason.CANARY_WAITING, "not loaded in every ready pod"),
        (EIGHT, None, Reason.CANARY_WAITING, "has not answered yet"),
        (replace(EIGHT, outdated=("p1", "p2")), GOOD, Reason.GUARD_TOO_OLD, "pods p1, p2 were made by an older Graftwork"),
        (EIGHT, Observation(problem="Prometheus at prom:9090 cannot be reached"), Reason.PROMETHEUS_UNREACHABLE, "prom:9090"),
    ],
)
def test_nobody_is_sent_where_nobody_looks(candidate: Candidate, observation: Observation | None, reason: Reason, words: str) -> None:
    outcome = go(Standing(), observation, candidate)
    assert (outcome.weight, outcome.standing.step, outcome.reason) == (0, 0, reason)
    assert words in outcome.message


@pytest.mark.parametrize(
    ("observation", "reason", "words"),
    [
        (None, Reason.CANARY_RUNNING, "medical-8 gets 10 %"),
        (Observation(problem="Prometheus at prom:9090 did not answer within 10 s"), Reason.PROMETHEUS_UNREACHABLE, "did not answer"),
        (Observation(), Reason.CANARY_WAITING, "no requests of medical-8 nor of medical-7: does it scrape /graftwork/metrics"),
        (Observation(stable=numbers()), Reason.CANARY_WAITING, "no requests of medical-8"),
        (seen(requests=49), Reason.CANARY_WAITING, "49 of 50 requests"),
        (seen(requests=3), Reason.CANARY_WAITING, "3 of 50 requests"),
        (seen(streams=9), Reason.CANARY_WAITING, "10 streams of each version are needed, and there were 9 of medical-8"),
        (seen(stable=Numbers()), Reason.CANARY_WAITING, "there were 0 of medical-7"),
    ],
)
def test_without_enough_data_a_step_goes_on_unchanged_for_ever(observation: Observation | None, reason: Reason, words: str) -> None:
    outcome = go(at(1, 1_000_000), observation)
    assert (outcome.weight, outcome.standing, outcome.reason) == (10, at(1, 1_000_000), reason)
    assert words in outcome.message
    assert outcome.look_again_seconds


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (seen(errors=2), "2 of 100 requests failed (2.00%, at most 1.00%)"),
        (seen(requests=50, errors=1), "1 of 50 requests failed"),
        (seen(errors=50, streams=0), "50 of 100 requests failed"),  # errors count, whatever is known of times
        (seen(requests=3, errors=1), "1 of 3 requests failed (33.33%, at most 1.00%), too many whatever becomes of the rest of 50"),
    ],
)
def test_a_bad_analysis_takes_the_share_away_at_once(observation: Observation, words: str) -> None:
    outcome = go(at(2, 1), observation)
    assert (outcome.weight, outcome.reason) == (0, Reason.CANARY_FAILED)
    assert outcome.standing.failed == "medical-8"
    assert words in outcome.standing.failure
    assert "at 50 % (step 2 of 2)" in outcome.standing.failure
    again = go(outcome.standing, GOOD)
    assert (again.weight, again.reason, again.message, again.standing) == (0, Reason.CANARY_FAILED, outcome.standing.failure, outcome.standing)


def test_times_to_first_token_are_judged_by_the_whole_step() -> None:
    """The first streams of a version that was just loaded are its slowest."""
    slow = seen(ttft=0.25)
    early = go(at(2, 299), slow)
    assert (early.weight, early.reason, early.standing) == (50, Reason.CANARY_RUNNING, at(2, 299))
    words = "time to first token 0.250 s, 1.25 of the 0.200 s of medical-7 (at most 1.2)"
    assert words in early.message
    late = go(at(2, 300), slow)
    assert (late.weight, late.reason) == (0, Reason.CANARY_FAILED)
    assert words in late.standing.failure


def test_requests_that_clients_left_are_told_and_do_not_count() -> None:
    observation = replace(GOOD, candidate=replace(GOOD.candidate, requests=60, abandoned=20))
    assert "0 of 60 requests failed (0.00%, at most 1.00%); 20 more (25.0%) were left by their clients" in go(at(1, 299), observation).message
    few = replace(GOOD, candidate=Numbers(10, abandoned=90))
    assert "10 of 50 requests that are needed (analysis.minRequests); 90 more (90.0%)" in go(at(1, 300), few).message


def test_a_step_begins_when_every_ready_pod_has_read_of_it() -> None:
    standing = Standing("medical-8", 2)
    unread = replace(EIGHT, weight_in_effect=50, unread=("p1", "p2"))
    waits = go(standing, candidate=unread)
    assert (waits.weight, waits.standing, waits.reason) == (50, standing, Reason.CANARY_WAITING)
    assert "begins when every ready pod has read of it: p1, p2 not yet" in waits.message
    assert waits.look_again_seconds
    read = go(standing, candidate=replace(unread, unread=()))
    assert (read.weight, read.standing) == (50, at(2))
    assert go(at(2, 100), candidate=unread).standing == at(2, 100)  # another change of the file begins nothing anew


def test_what_is_known_of_a_version_is_about_its_files_and_not_its_name() -> None:
    failed = go(at(2), seen(errors=9), replace(EIGHT, weight_in_effect=50, engine="medical--8")).standing
    assert (failed.candidate_engine, failed.failed_engine) == ("medical--8", "medical--8")
    assert failed.among({"medical-8": "medical--8"}) == failed
    assert failed.among({}) == failed
    again = failed.among({"medical-8": "medical--x"})
    assert (again.failed, again.failure, again.failed_engine, again.candidate) == ("", "", "", "")
    running = go(at(1, 10), candidate=replace(EIGHT, weight_in_effect=10, engine="medical--8")).standing
    assert (running.step, running.among({"medical-8": "medical--x"}).step) == (1, 0)


@pytest.mark.parametrize(
    ("observation", "changes", "verdict"),
    [
        (seen(errors=1), {}, Verdict.PASSES),
        (seen(errors=1.4), {}, Verdict.PASSES),  # increase() extrapolates: there is no 1.4th request
        (seen(requests=49.6), {}, Verdict.PASSES),
        (seen(errors=0), {"max_error_rate": 0.0}, Verdict.PASSES),
        (seen(errors=1), {"max_error_rate": 0.0}, Verdict.FAILS),
        (seen(errors=100), {"max_error_rate": 1.0}, Verdict.PASSES),
        (seen(ttft=0.24), {}, Verdict.PASSES),
        (seen(ttft=9.0), {"max_ttft_ratio": 0.0}, Verdict.PASSES),
        (seen(streams=0), {"max_ttft_ratio": 0.0}, Verdict.PASSES),
        (seen(streams=3, requests=3), {"min_requests": 3}, Verdict.PASSES),
        (seen(stable=numbers(ttft=0.0)), {}, Verdict.WAITS),
    ],
)
def test_limits_are_inclusive_and_can_be_turned_off(observation: Observation, changes: dict[str, Any], verdict: Verdict) -> None:
    assert judge(replace(SETTINGS, **changes), EIGHT, observation)[0] is verdict


def test_a_newer_candidate_begins_again_and_the_failed_one_is_remembered() -> None:
    failed = Standing("medical-8", failed="medical-8", failure="because")
    nine = replace(EIGHT, name="medical-9")
    outcome = advance(SETTINGS, failed, nine, GOOD, NOW)
    assert (outcome.weight, outcome.standing.candidate, outcome.standing.step, outcome.standing.failed) == (10, "medical-9", 1, "medical-8")
    running = advance(SETTINGS, at(2, 1000), nine, GOOD, NOW)
    assert (running.weight, running.standing.step) == (10, 1)


def test_without_prometheus_the_candidate_waits_and_the_remedy_is_named() -> None:
    for standing in (Standing(), at(2, 1000)):
        outcome = advance(SETTINGS, standing, EIGHT, None, NOW, configured=False)
        assert (outcome.weight, outcome.reason, outcome.look_again_seconds) == (0, Reason.PROMETHEUS_NOT_CONFIGURED, None)
        assert "prometheus.url" in outcome.message


def test_a_step_counts_from_when_the_pods_were_told_of_it() -> None:
    told_less = go(at(2, 1000), candidate=replace(EIGHT, weight_in_effect=10))
    assert (told_less.weight, told_less.standing) == (50, Standing("medical-8", 2))
    assert go(at(2, -60)).standing == at(2)  # the clock went back


def test_the_last_step_waits_for_pods_that_do_not_have_it() -> None:
    outcome = go(at(2, 300), candidate=replace(EIGHT, loaded=False, weight_in_effect=50))
    assert not outcome.promoted
    assert (outcome.weight, outcome.reason) == (50, Reason.CANARY_WAITING)
    assert go(at(2, 1), seen(errors=9), replace(EIGHT, loaded=False, weight_in_effect=50)).weight == 0


def test_only_an_answer_about_the_whole_step_passes_it() -> None:
    early = replace(GOOD, lasted_seconds=299.0)
    told = replace(EIGHT, weight_in_effect=10)
    outcome = advance(SETTINGS, at(1, 310), told, early, NOW)
    assert (outcome.weight, outcome.standing, outcome.look_again_seconds) == (10, at(1, 310), 1.0)
    assert advance(SETTINGS, at(1, 295), told, early, NOW).look_again_seconds == 5.0
    assert advance(SETTINGS, at(1, 310), told, replace(GOOD, lasted_seconds=300.0), NOW).weight == 50


def test_fewer_steps_than_were_made_are_no_accident() -> None:
    shorter = replace(SETTINGS, steps=(10,))
    outcome = advance(shorter, at(2, 1000), replace(EIGHT, weight_in_effect=50), GOOD, NOW)
    assert (outcome.weight, outcome.standing, outcome.promoted) == (10, Standing("medical-8", 1), False)


def test_holding_and_waiting_for_a_person_change_no_share() -> None:
    assert hold(SETTINGS, at(2, 10), "medical-8").weight == 50
    assert hold(SETTINGS, at(2, 10), "medical-8").standing == at(2, 10)
    waiting = manual("medical-9", "medical", at(2, 10, failed="medical-8"))
    assert (waiting.weight, waiting.reason, waiting.standing) == (0, Reason.AWAITING_PROMOTION, Standing("medical-9"))
    assert "set adapter to medical-9" in waiting.message


def test_a_spoiled_row_is_a_canary_that_has_not_begun() -> None:
    for row in ({}, {"candidate": "a-1", "step": "x"}, {"candidate": "a-1", "step": 1, "stepStartedAt": "yesterday"}, {"step": 3}):
        assert from_row(row).step == 0


# --- whatever happens, in whichever order

counts = st.sampled_from([0.0, 1.0, 9.0, 10.0, 49.0, 50.0, 100.0])
sides = st.builds(
    Numbers,
    st.one_of(st.none(), counts),
    st.sampled_from([0.0, 0.4, 1.0, 60.0]),
    st.sampled_from([0.0, 1.0, 3.0, 20.0]),
    st.sampled_from([0.0, 9.0, 10.0]),
)
observations = st.one_of(st.none(), st.just(GOOD), st.just(Observation(problem="away")), st.builds(Observation, sides, sides))


@dataclass(frozen=True)
class Event:
    """One pass: what was seen, and how long after the last one."""

    observation: Observation | None
    seconds: float
    loaded: bool
    newer: bool
    told: bool
    read: bool
    restarted: bool


events = st.lists(
    st.builds(
        Event,
        observations,
        st.sampled_from([0.0, 1.0, 150.0, 400.0]),
        st.booleans(),
        st.sampled_from([False] * 9 + [True]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)
asked = st.builds(
    Settings, st.sampled_from([(10, 50), (5,), (1, 2, 99)]), st.just(300.0), st.sampled_from([0.0, 0.01]), st.sampled_from([0.0, 1.2]), st.just(50)
)


def written(standing: Standing, candidate: str) -> Standing:
    """Return the standing after a way through the status, as another operator reads it."""
    row = ServedAlias(alias="medical", candidate=candidate, **standing.to_row()).to_object()
    return from_row(row)


@settings(max_examples=300, deadline=None)
@given(asked, events)
def test_no_order_of_events_promotes_without_data_or_forgives_a_failure(wanted: Settings, passes: list[Event]) -> None:
    standing, now, version, share, failed = Standing(), NOW, 8, 0, False
    for event in passes:
        now += timedelta(seconds=event.seconds)
        version += event.newer
        name = f"medical-{version}"
        told = share if event.told and not event.newer else None
        candidate = Candidate(name, "medical-7", event.loaded, told, f"engine-{version}", () if event.read else ("p1",))
        before = standing
        outcome = advance(wanted, standing, candidate, lasted(event.observation, standing, now), now)
        if event.newer:
            share, failed = 0, False
        if failed:
            assert (outcome.weight, outcome.promoted, outcome.reason) == (0, False, Reason.CANARY_FAILED)
        if outcome.promoted:
            assert event.observation is not None
            assert judge(wanted, candidate, event.observation)[0] is Verdict.PASSES
            assert (before.candidate, before.step, told) == (name, len(wanted.steps), wanted.steps[-1])
            assert before.since is not None
            assert (now - before.since).total_seconds() >= wanted.step_seconds
            assert event.loaded
            return
        if outcome.reason is Reason.CANARY_FAILED:
            assert outcome.weight == 0
            failed = True
        else:
            assert outcome.weight >= share
            assert outcome.weight in (0, *wanted.steps)
            assert wanted.steps.index(outcome.weight) <= (wanted.steps.index(share) + 1 if share else 0) if outcome.weight else True
        share, standing = outcome.weight, outcome.standing
        if event.restarted:
            assert written(standing, name) == standing
            standing = written(standing, name)
