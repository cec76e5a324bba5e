"""Canaries of one LLMDeployment: what Prometheus says goes in, a selection with the weights of now comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftwork.facts.adapters import Adapter, AliasPlan, Selection
from graftwork.facts.canary import Observation, Outcome, Question, Standing, from_row
from graftwork.plan import canary
from graftwork.plan.adapters import Rules, Seen, select
from graftwork.plan.promotion import AUTO, CANARY, MANUAL
from graftwork.reasons import Reason
from graftwork.reconcile.context import Context, Key, Object

OVER_SECONDS = 0.9
"""How soon Prometheus may be asked again when the time of a step is over: only an answer about all of it counts."""


def decide(key: Key, ctx: Context, adapters: Sequence[Adapter], rules: Rules, seen: Seen, *, advance: bool) -> Selection:
    """Return what is served after every canary has been judged once.

    Without `advance` they stay as they are: when the children are not applied, a step that nobody was told of must not count.
    """
    before = select(adapters, rules, seen)
    outcomes: dict[str, Outcome] = {}
    for plan in before.aliases:
        outcome = _outcome(key, ctx, plan, rules, seen, advance=advance)
        if outcome:
            outcomes[plan.alias] = outcome
    for failed in before.decisions.values():
        alias = failed.adapter.alias
        if failed.reason is Reason.CANARY_FAILED and alias not in outcomes:  # nothing else is left of the alias: it is not forgotten
            outcomes[alias] = Outcome(_only_failed(seen.standings.get(alias, Standing())))
    if ctx.prometheus:
        ctx.prometheus.forget(key, but=[alias for alias, outcome in outcomes.items() if outcome.look_again_seconds is not None])
    after = replace(
        seen,
        served={**seen.served, **_promoted(before.aliases, outcomes)},
        standings={**seen.standings, **{alias: outcome.standing for alias, outcome in outcomes.items()}},
    )
    return replace(select(adapters, rules, after), canaries=outcomes)


def look_again(selection: Selection) -> float | None:
    """Return in how many seconds a canary is to be looked at again, if one is."""
    waits = [outcome.look_again_seconds for outcome in selection.canaries.values() if outcome.look_again_seconds is not None]
    return min(waits, default=None)


def decided(obj: Object, selection: Selection) -> bool:
    """Return whether this pass moved a canary on from where the object's status says it is: to another step, to its end, or to its failure."""
    rows = {row.get("alias"): row for row in (obj.get("status") or {}).get("adapters") or []}
    return any(outcome.promoted or _moved(from_row(rows.get(alias) or {}), outcome.standing) for alias, outcome in selection.canaries.items())


def _moved(before: Standing, now: Standing) -> bool:
    return (now.failed, now.step) != (before.failed, before.step) or (now.step > 0 and now.candidate != before.candidate)


def tell(ctx: Context, obj: Object, selection: Selection) -> None:
    """Record an Event for each step that began, each promotion and each failure of this pass."""
    rows = {row.get("alias"): row for row in (obj.get("status") or {}).get("adapters") or []}
    for alias, outcome in selection.canaries.items():
        row = rows.get(alias, {})
        standing = outcome.standing
        failed = bool(standing.failed) and standing.failed != row.get("failed")
        begun = standing.step > 0 and (standing.candidate, standing.step) != (row.get("candidate"), row.get("step"))
        if outcome.promoted or failed or begun:
            ctx.events.record(obj, str(outcome.reason), outcome.message, warning=outcome.reason is Reason.CANARY_FAILED)


def _outcome(key: Key, ctx: Context, plan: AliasPlan, rules: Rules, seen: Seen, *, advance: bool) -> Outcome | None:
    promotion, standing = rules.promotion(plan.alias), seen.standings.get(plan.alias, Standing())
    if promotion.mode == AUTO or (promotion.mode == CANARY and rules.pins.get(plan.alias)):
        return None
    if plan.candidate is None:  # a failed version that has no place is still failed
        return Outcome(_only_failed(standing)) if promotion.mode == CANARY and standing.failed else None
    if promotion.mode == MANUAL:
        return canary.manual(plan.candidate.name, plan.alias, standing)
    if not advance:
        return canary.hold(promotion.canary, standing, plan.candidate.name)
    route = seen.routes.get(plan.alias)
    candidate = canary.Candidate(
        name=plan.candidate.name,
        stable=plan.wanted.name,
        loaded=plan.candidate.engine_name in seen.loaded,
        weight_in_effect=route.weight if route and route.candidate == plan.candidate.engine_name else None,
        engine=plan.candidate.engine_name,
        unread=seen.unread,
        outdated=seen.outdated,
    )
    observation = _ask(key, ctx, plan, rules, standing)
    return canary.advance(promotion.canary, standing, candidate, observation, ctx.clock.now(), configured=ctx.prometheus is not None)


def _ask(key: Key, ctx: Context, plan: AliasPlan, rules: Rules, standing: Standing) -> Observation | None:
    """Return what Prometheus said last of the present step; before the first one only that it answers counts."""
    candidate = plan.candidate
    if ctx.prometheus is None or candidate is None or candidate.name == standing.failed:
        return None
    since = standing.since if standing.candidate == candidate.name and standing.step else None
    question = Question(rules.namespace, rules.deployment, plan.alias, plan.wanted.version, candidate.version, since)
    settings = rules.promotion(plan.alias).canary
    over = since is not None and (ctx.clock.now() - since).total_seconds() >= settings.step_seconds
    return ctx.prometheus.ask(key, question, OVER_SECONDS if over else canary.look_seconds(settings) * 0.9)


def _only_failed(standing: Standing) -> Standing:
    return Standing(failed=standing.failed, failure=standing.failure, failed_engine=standing.failed_engine)


def _promoted(plans: Sequence[AliasPlan], outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Return by alias the LoRAAdapter that is stable from now on."""
    return {plan.alias: plan.candidate.name for plan in plans if plan.candidate and outcomes.get(plan.alias, Outcome(Standing())).promoted}
