"""The canary of one alias, as a pure machine: the standing of before, what was seen and the time give the standing of now.

A step passes when it has lasted long enough, the candidate is loaded in every ready pod, and Prometheus has enough data that say it is good.
Without data nothing moves. A failed analysis takes the candidate's share away at once and for good; only another candidate begins again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from graftwork.facts.canary import Numbers, Observation, Outcome, Settings, Standing
from graftwork.reasons import Reason

TTFT_SAMPLES = 10
"""Streams of each version before their times are compared (or minRequests, if that is less): a mean of three says nothing."""
LOOK_SECONDS = 15.0


@dataclass(frozen=True)
class Candidate:
    """The version that may follow the stable one."""

    name: str
    stable: str
    loaded: bool
    """Whether every ready pod lists it."""
    weight_in_effect: int | None
    """What the ConfigMap gives it; None if it is not the ConfigMap's candidate."""
    engine: str = ""
    """Its engine name."""
    unread: tuple[str, ...] = ()
    """Ready pods whose agents have not read the ConfigMap of now."""
    outdated: tuple[str, ...] = ()
    """Ready pods whose guards are too old to give a candidate a share."""


class Verdict(Enum):
    """What an analysis says."""

    PASSES = "passes"
    WAITS = "waits"
    FAILS = "fails"


def look_seconds(settings: Settings) -> float:
    """Return how often Prometheus is asked."""
    return max(1.0, min(LOOK_SECONDS, settings.step_seconds / 5))


def weight(settings: Settings, standing: Standing, candidate: str) -> int:
    """Return the share of the requests in percent that a candidate gets by a standing; only the candidate that it is about gets any."""
    if not candidate or standing.candidate != candidate or candidate == standing.failed or standing.step < 1:
        return 0
    return settings.steps[min(standing.step, len(settings.steps)) - 1]


def advance(
    settings: Settings, standing: Standing, candidate: Candidate, observation: Observation | None, now: datetime, *, configured: bool = True
) -> Outcome:
    """Return what becomes of the canary. `observation` is of the present step; None: Prometheus has not answered yet."""
    if candidate.name == standing.failed:
        engine = candidate.engine
        failed = replace(
            standing, candidate=candidate.name, step=0, since=None, candidate_engine=engine, failed_engine=standing.failed_engine or engine
        )
        return _outcome(settings, failed, Reason.CANARY_FAILED, standing.failure)
    if standing.candidate != candidate.name:
        standing = replace(standing, candidate=candidate.name, step=0, since=None)
    standing = replace(standing, candidate_engine=candidate.engine)
    if not configured:
        text = (
            f"{candidate.name} waits without requests: the operator has no Prometheus to judge it by; "
            f"set prometheus.url of the chart, or adapter to {candidate.name}, or promotion to Auto"
        )
        return _outcome(settings, replace(standing, step=0, since=None), Reason.PROMETHEUS_NOT_CONFIGURED, text)
    if standing.step < 1:
        return _begin(settings, standing, candidate, observation)
    return _go_on(settings, standing, candidate, observation, now)


def hold(settings: Settings, standing: Standing, candidate: str) -> Outcome:
    """Return the outcome of a pass that may decide nothing: everything stays."""
    failed = bool(candidate) and candidate == standing.failed
    outcome = _outcome(settings, standing, Reason.CANARY_FAILED if failed else None, standing.failure if failed else "")
    return replace(outcome, weight=weight(settings, standing, candidate))


def manual(candidate: str, alias: str, standing: Standing) -> Outcome:
    """Return the outcome of a candidate that waits for a person."""
    text = f"{candidate} is newer and waits without requests: promotion of alias {alias!r} is Manual; set adapter to {candidate} to serve it"
    waiting = replace(standing, candidate=candidate, step=0, since=None, failed="", failure="", candidate_engine="", failed_engine="")
    return Outcome(waiting, reason=Reason.AWAITING_PROMOTION, message=text)


def _begin(settings: Settings, standing: Standing, candidate: Candidate, observation: Observation | None) -> Outcome:
    """Begin the first step once the candidate is loaded everywhere and Prometheus answers: nobody is sent where nobody looks."""
    if candidate.outdated:
        return _outcome(settings, standing, Reason.GUARD_TOO_OLD, f"{candidate.name} waits without requests: {_too_old(candidate)}")
    if not candidate.loaded:
        return _outcome(settings, standing, Reason.CANARY_WAITING, f"{candidate.name} is not loaded in every ready pod yet")
    if observation is None or observation.problem:
        text = observation.problem if observation else "Prometheus has not answered yet"
        reason = Reason.PROMETHEUS_UNREACHABLE if observation else Reason.CANARY_WAITING
        return _outcome(settings, standing, reason, f"{candidate.name} waits without requests: {text}", look_seconds(settings))
    return _step(settings, standing, 1)


def _go_on(settings: Settings, standing: Standing, candidate: Candidate, observation: Observation | None, now: datetime) -> Outcome:
    standing = replace(standing, step=min(standing.step, len(settings.steps)))
    look = look_seconds(settings)
    if candidate.weight_in_effect != weight(settings, standing, candidate.name):  # what Prometheus counted so far is not about this share
        return _outcome(settings, replace(standing, since=None), Reason.CANARY_RUNNING, _place(settings, standing), look)
    if standing.since is None and candidate.unread:
        text = f"{_place(settings, standing)} and begins when every ready pod has read of it: {', '.join(candidate.unread)} not yet"
        return _outcome(settings, standing, Reason.CANARY_WAITING, text, look)
    if standing.since is None or standing.since > now:  # or the clock went back
        return _outcome(settings, replace(standing, since=now), Reason.CANARY_RUNNING, _place(settings, standing), look)
    if observation is None:
        return _outcome(settings, standing, Reason.CANARY_RUNNING, _place(settings, standing), look)
    return _judged(settings, standing, candidate, observation, now)


def _judged(settings: Settings, standing: Standing, candidate: Candidate, observation: Observation, now: datetime) -> Outcome:
    """Do what an answer about the present step says."""
    look = look_seconds(settings)
    if observation.problem:
        return _outcome(settings, standing, Reason.PROMETHEUS_UNREACHABLE, f"{_place(settings, standing)} and waits: {observation.problem}", look)
    verdict, numbers = judge(settings, candidate, observation)
    if verdict is Verdict.FAILS:
        return _fail(settings, standing, numbers)
    if verdict is Verdict.WAITS and candidate.outdated:
        return _outcome(settings, standing, Reason.GUARD_TOO_OLD, f"{_place(settings, standing)} and waits: {_too_old(candidate)}", look)
    if verdict is Verdict.WAITS:
        return _outcome(settings, standing, Reason.CANARY_WAITING, f"{_place(settings, standing)} and waits: {numbers}", look)
    if observation.lasted_seconds < settings.step_seconds:
        left = settings.step_seconds - (now - (standing.since or now)).total_seconds()
        again = min(max(left, 1.0), look)  # at the end of the step, and then until an answer is about all of it
        return _outcome(settings, standing, Reason.CANARY_RUNNING, f"{_place(settings, standing)}: {numbers}", again)
    return _pass(settings, standing, candidate, numbers)


def _too_old(candidate: Candidate) -> str:
    return (
        f"pods {', '.join(candidate.outdated)} were made by an older Graftwork, whose guard gives a candidate no share; set rollout.upgradePolicy to "
        f"Rolling (replaces the pods one after another, and what is served goes on), or adapter to {candidate.name}, or promotion to Auto"
    )


def _pass(settings: Settings, standing: Standing, candidate: Candidate, numbers: str) -> Outcome:
    """Go to the next step, or end."""
    if not candidate.loaded:
        text = f"{_place(settings, standing)} and waits: it is not loaded in every ready pod"
        return _outcome(settings, standing, Reason.CANARY_WAITING, text, look_seconds(settings))
    if standing.step < len(settings.steps):
        return _step(settings, standing, standing.step + 1)
    text = f"{candidate.name} passed its canary and is served instead of {candidate.stable}: {numbers}"
    return Outcome(Standing(), steps=len(settings.steps), reason=Reason.PROMOTED, message=text, promoted=True)


def _fail(settings: Settings, standing: Standing, numbers: str) -> Outcome:
    share, name = weight(settings, standing, standing.candidate), standing.candidate
    failure = (
        f"{name} failed its canary at {share} % (step {standing.step} of {len(settings.steps)}) and gets no requests: {numbers}; "
        f"publish a better version, or set adapter to {name} to serve it nevertheless"
    )
    engine = standing.candidate_engine
    failed = Standing(name, failed=name, failure=failure, candidate_engine=engine, failed_engine=engine)
    return _outcome(settings, failed, Reason.CANARY_FAILED, failure)


def _place(settings: Settings, standing: Standing) -> str:
    share = weight(settings, standing, standing.candidate)
    return f"{standing.candidate} gets {share} % of the requests (step {standing.step} of {len(settings.steps)})"


def judge(settings: Settings, candidate: Candidate, seen: Observation) -> tuple[Verdict, str]:
    """Return what the numbers of a step say, and the numbers with their limits."""
    if seen.candidate.requests is None:
        scraped = "" if seen.stable.requests is not None else f" nor of {candidate.stable}: does it scrape /graftwork/metrics of the pods?"
        return Verdict.WAITS, f"Prometheus has no requests of {candidate.name}{scraped}"
    requests, errors, left = round(seen.candidate.requests), round(seen.candidate.errors), _left(seen.candidate)
    if errors / max(requests, settings.min_requests, 1) > settings.max_error_rate:  # and nothing that may still come up to minRequests mends that
        return Verdict.FAILS, _errors(settings, requests, errors) + left
    if requests < settings.min_requests:
        return Verdict.WAITS, f"{requests} of {settings.min_requests} requests that are needed (analysis.minRequests){left}"
    text = _errors(settings, requests, errors) + left
    if not settings.max_ttft_ratio:
        return Verdict.PASSES, text
    verdict, times = _judge_ttft(settings, candidate, seen.candidate, seen.stable)
    if verdict is Verdict.FAILS and seen.lasted_seconds < settings.step_seconds:  # a few slow streams at the beginning are no mean of a step
        verdict = Verdict.PASSES
    return verdict, f"{text}; {times}"


def _errors(settings: Settings, requests: int, errors: int) -> str:
    text = f"{errors} of {requests} requests failed ({errors / max(requests, 1):.2%}, at most {settings.max_error_rate:.2%})"
    return text if requests >= settings.min_requests else f"{text}, too many whatever becomes of the rest of {settings.min_requests}"


def _left(numbers: Numbers) -> str:
    """Return the share of requests whose clients left before the answer had ended; they count neither way."""
    left = round(numbers.abandoned)
    return f"; {left} more ({left / (left + round(numbers.requests or 0)):.1%}) were left by their clients and do not count" if left else ""


def _judge_ttft(settings: Settings, candidate: Candidate, new: Numbers, old: Numbers) -> tuple[Verdict, str]:
    needed = min(TTFT_SAMPLES, settings.min_requests)
    short = [
        f"{round(numbers.ttft_count)} of {name}" for name, numbers in ((candidate.name, new), (candidate.stable, old)) if numbers.ttft_count < needed
    ]
    if short or new.ttft is None or not old.ttft:
        counted = " and ".join(short) or "no time"
        return Verdict.WAITS, (
            f"to compare times to first token {needed} streams of each version are needed, and there were {counted} "
            "(with analysis.maxTTFTRatio 0 they are not compared)"
        )
    ratio = new.ttft / old.ttft
    text = f"time to first token {new.ttft:.3f} s, {ratio:.2f} of the {old.ttft:.3f} s of {candidate.stable} (at most {settings.max_ttft_ratio:g})"
    return (Verdict.FAILS if ratio > settings.max_ttft_ratio else Verdict.PASSES), text


def _step(settings: Settings, standing: Standing, step: int) -> Outcome:
    """Give the share of a step. Its time begins when the pods are seen to have read of it."""
    begun = replace(standing, step=step, since=None)
    return _outcome(settings, begun, Reason.CANARY_RUNNING, _place(settings, begun), look_seconds(settings))


def _outcome(settings: Settings, standing: Standing, reason: Reason | None, message: str, again: float | None = None) -> Outcome:
    share = weight(settings, standing, standing.candidate)
    return Outcome(standing, share, len(settings.steps), reason, message, look_again_seconds=again)
