"""Which revision a deployment's pods are made from: what the spec asks for, or the last good one after that has failed.

A revision has failed when its engine ended as it always will (a flag that vLLM does not take), ended three times, or was not ready in time although
it had node, image and weights. Want of a node, an image, the weights or the store never counts: waiting helps there, and a rollback would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from graftwork.api import LLMDeployment
from graftwork.clock import parse_rfc3339
from graftwork.facts.problem import Problem
from graftwork.facts.rollout import COMPLETED, HISTORY_LENGTH, ROLLED_BACK, Coming, Failed, Outcome, Progress, Record
from graftwork.facts.text import clip
from graftwork.reasons import Reason
from graftwork.sizing.startup import PROBE_MARGIN_SECONDS, engine_seconds

CAUSE_LENGTH = 1500
"""What is kept of a failure: Graftwork's sentence, what the engine said last, and how it ended before."""
CRASHES = 3
"""Ends of an engine, without its pod being ready, that are no accident any more."""
SPARE_SECONDS = 300.0
"""How long a pod beside the old ones may be without a node before they are replaced one at a time: an autoscaler brings a node within minutes."""
WATCHED_SECONDS = 30.0
"""How long a process watches a deployment before it calls a start too slow: what it sees first may be older than it looks."""
LOST_SECONDS = 420.0
"""How long the silence of a pod's agent may mean that its node is lost: the cluster knows that after 50 s, and takes its pods away 300 s later."""
ADAPTERS_SECONDS = 150.0
"""More time for an engine that answers: a pod is ready without its required adapters two minutes later (contracts.md, section 3)."""


@dataclass(frozen=True)
class Policy:
    """What the spec says of rollouts. `deadline_seconds` None is `auto`; `surge` None is `auto`."""

    replicas: int
    auto_rollback: bool = True
    deadline_seconds: float | None = None
    surge: int | None = None
    cpu: bool = False
    eager: bool = False


@dataclass(frozen=True)
class Seen:
    """What a decision is made from. `revisions` has the numbers of the stored revisions by template hash, the wanted one among them."""

    wanted: str
    revisions: Mapping[str, int]
    progress: Progress
    """Of the wanted revision."""
    record: Record
    watched_seconds: float
    """For how long this process has looked at the deployment."""
    now: str
    one_at_a_time: bool = False
    """Whether the Deployment is told now to replace pods without a pod more."""


@dataclass(frozen=True)
class Decision:
    """`applied`: the template hash that the Deployment gets. `problem`: what hinders the rollout, though nothing was rolled back."""

    applied: str
    record: Record
    surge: int
    unavailable: int
    problem: Problem | None = None
    newly_failed: bool = False
    completed: bool = False
    look_again_seconds: float | None = None


def policy(deployment: LLMDeployment) -> Policy:
    """Return what the spec says of rollouts."""
    spec = deployment.spec
    return Policy(
        replicas=spec.replicas,
        auto_rollback=spec.rollout.auto_rollback,
        deadline_seconds=spec.rollout.deadline_seconds,
        surge=None if spec.rollout.surge == "auto" else spec.rollout.surge,
        cpu=spec.accelerator.cpu,
        eager=spec.engine.enforce_eager,
    )


def decide(rules: Policy, seen: Seen) -> Decision:
    """Return which revision is applied, how its pods come, and what is remembered."""
    record = _known(rules, seen)
    failure = None if record.failed or not rules.replicas else _failure(rules, seen)
    newly_failed = bool(failure and rules.auto_rollback and record.last_good not in ("", seen.wanted))
    completed = False
    if failure and newly_failed:
        record = _rolled_back(seen, record, failure)
        failure = None
    elif not record.failed and _complete(rules, seen.progress) and record.last_good != seen.wanted:
        record, completed = _completed(seen, record), True
    surge, unavailable = _strategy(rules, seen, rolling_back=record.failed is not None)
    return Decision(
        applied=record.last_good if record.failed else seen.wanted,
        record=record,
        surge=surge,
        unavailable=unavailable,
        problem=failure or (None if record.failed else _needs_downtime(rules, seen)),
        newly_failed=newly_failed,
        completed=completed,
        look_again_seconds=None if record.failed else _look_again(rules, seen),
    )


def _known(rules: Policy, seen: Seen) -> Record:
    """Return the record as far as it still counts: a failure until the spec asks for something else, a good revision while its template is there."""
    record = seen.record
    if record.last_good not in seen.revisions:  # the status was lost, or is of an operator that remembered nothing: those that serve are good
        good = max((name for name in seen.progress.others_ready if name in seen.revisions), key=lambda name: seen.revisions[name], default="")
        record = replace(record, last_good=good, last_good_revision=seen.revisions.get(good))
    counts = record.failed and record.failed.template_hash == seen.wanted and rules.auto_rollback and record.last_good not in ("", seen.wanted)
    return record if counts else replace(record, failed=None)


def _rolled_back(seen: Seen, record: Record, failure: Problem) -> Record:
    number = seen.revisions[seen.wanted]
    failed = Failed(number, seen.wanted, failure.reason, clip(failure.message, CAUSE_LENGTH), seen.now)
    return _remember(replace(record, failed=failed), Outcome(number, seen.wanted, ROLLED_BACK, seen.now, str(failure.reason)))


def _completed(seen: Seen, record: Record) -> Record:
    number = seen.revisions[seen.wanted]
    done = replace(record, last_good=seen.wanted, last_good_revision=number)
    return _remember(done, Outcome(number, seen.wanted, COMPLETED, seen.now))


def _remember(record: Record, outcome: Outcome) -> Record:
    return replace(record, history=(outcome, *record.history)[:HISTORY_LENGTH])


def _complete(rules: Policy, progress: Progress) -> bool:
    return rules.replicas > 0 and progress.ready >= rules.replicas and not progress.others


def _failure(rules: Policy, seen: Seen) -> Problem | None:
    """Return why the wanted revision has failed, if it has.

    One that was good before has not: what ails it now came from elsewhere. And while as many of its pods are ready as fail, it is not the revision.
    """
    progress = seen.progress
    if seen.record.last_good == seen.wanted:
        return None
    for pod in progress.coming:
        if pod.definitive:
            return Problem(pod.reason, pod.message)
    crashing = [pod for pod in progress.coming if pod.ends >= CRASHES]
    late = (
        [pod for pod in progress.coming if pod not in crashing and _left(rules, pod, seen.now) <= 0]
        if seen.watched_seconds >= WATCHED_SECONDS
        else []
    )
    if len(crashing) + len(late) <= progress.ready:
        return None
    if crashing:
        return Problem(crashing[0].reason, crashing[0].message)
    return Problem(Reason.START_TOO_SLOW, _too_slow(rules, late[0]))


def deadline_seconds(rules: Policy, pod: Coming) -> float:
    """Return how long an engine may start: as the spec says, else by the size of its weights, and always less than its startup probe allows."""
    wanted = engine_seconds(pod.weights_bytes, cpu=rules.cpu, eager=rules.eager) if rules.deadline_seconds is None else rules.deadline_seconds
    return wanted if pod.startup_seconds is None else min(wanted, max(PROBE_MARGIN_SECONDS, pod.startup_seconds - PROBE_MARGIN_SECONDS))


def _left(rules: Policy, pod: Coming, now: str) -> float:
    """Return the seconds that are left of the pod's time; without end while its clock does not run."""
    if not pod.clock_from:
        return float("inf")
    ran = (_moment(now) - _moment(pod.clock_from)).total_seconds()
    left = deadline_seconds(rules, pod) + (ADAPTERS_SECONDS if pod.answers else 0.0) - ran
    return max(left, LOST_SECONDS - pod.silent_seconds) if pod.silent_seconds else left


def _too_slow(rules: Policy, pod: Coming) -> str:
    seconds = deadline_seconds(rules, pod)
    how = "auto" if rules.deadline_seconds is None else "as set"
    before = f"; before that, {pod.message}" if pod.message else ""
    state = "answers, and is not made ready by its agent" if pod.answers else "does not answer"
    said = f"; it last said: {pod.said}" if pod.said else ""
    return (
        f"vLLM of pod {pod.name} has had its node, image and weights for longer than {seconds:.0f} s (spec.rollout.progressDeadline, {how}) "
        f"and {state}{said}{before}"
    )


def _strategy(rules: Policy, seen: Seen, *, rolling_back: bool) -> tuple[int, int]:
    """Return maxSurge and maxUnavailable. `auto` is one more pod, unless no node is found for it and another one can go meanwhile.

    What was begun one at a time goes back so too: with a pod more the good one would wait for the place of the failed one, and that for the good one.
    """
    if rules.surge == 0:
        return 0, 1
    if rules.surge is not None:
        return rules.surge, 0
    if rules.replicas < 2 or not seen.progress.others:
        return 1, 0
    homeless = not rolling_back and _homeless_seconds(seen) >= SPARE_SECONDS
    return (0, 1) if seen.one_at_a_time or homeless else (1, 0)


def _homeless_seconds(seen: Seen) -> float:
    since = seen.progress.unschedulable_since
    return (_moment(seen.now) - _moment(since)).total_seconds() if since else 0.0


def _needs_downtime(rules: Policy, seen: Seen) -> Problem | None:
    progress = seen.progress
    if rules.replicas != 1 or rules.surge == 0 or not progress.others_ready or not progress.unschedulable:
        return None
    return Problem(
        Reason.ROLLOUT_NEEDS_DOWNTIME,
        f"no node for a new pod beside the one that serves: {clip(progress.unschedulable)}. The old pod goes on serving, and the new one follows as "
        "soon as there is room. To replace it without, and be down while the new engine starts, set spec.rollout.surge to 0",
        needs_user=False,
    )


def _look_again(rules: Policy, seen: Seen) -> float | None:
    """Return when time alone changes the decision."""
    progress = seen.progress
    waits = []
    if seen.record.last_good != seen.wanted:
        left = [max(_left(rules, pod, seen.now), WATCHED_SECONDS - seen.watched_seconds) for pod in progress.coming if pod.clock_from]
        waits += [wait for wait in left if wait > 0]
    if rules.surge is None and rules.replicas > 1 and progress.others and progress.unschedulable_since and not seen.one_at_a_time:
        waits.append(SPARE_SECONDS - _homeless_seconds(seen))
    return min((wait for wait in waits if wait > 0), default=None)


def _moment(text: str) -> datetime:
    return parse_rfc3339(text)
