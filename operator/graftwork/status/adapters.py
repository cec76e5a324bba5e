"""Which adapters are loaded where, from what agents say: per alias for an LLMDeployment, per deployment for a LoRAAdapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.api.status import ServedAlias
from graftwork.facts.adapters import Adapter, AliasPlan, Decision, Selection
from graftwork.facts.agents import FAILED, LOADED, REFUSED, Agent
from graftwork.facts.canary import Outcome
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.facts.text import clip
from graftwork.reasons import Reason, known
from graftwork.status.conditions import ADAPTERS_LOADED, FALSE, TRUE, UNKNOWN, Condition

_NOT_OURS = (Reason.BASE_MISMATCH, Reason.ALIAS_TAKEN, Reason.VERSION_TAKEN, Reason.SUPERSEDED, Reason.CANARY_FAILED)
"""Refusals that are the adapter's own affair: they leave nothing unserved that the deployment should serve."""
_CANARY = (
    Reason.CANARY_RUNNING,
    Reason.CANARY_WAITING,
    Reason.GUARD_TOO_OLD,
    Reason.CANARY_FAILED,
    Reason.AWAITING_PROMOTION,
    Reason.PROMETHEUS_NOT_CONFIGURED,
    Reason.PROMETHEUS_UNREACHABLE,
)
"""How a candidate stands: the stable version is served all the same, so nothing that should be loaded is missing."""
_DECIDED = (
    *("stable", "engineName", "candidate", "candidateWeight", "candidateEngineName", "step", "steps", "stepStartedAt"),
    *("failed", "failedEngineName", "failure"),
)
_WAITING = (Reason.LOADING, Reason.RESTART_REQUIRED)
_UNHEARD = Agent(reachable=False)


def loaded_pods(adapter: Adapter, ready: Sequence[Pod], agents: Mapping[str, Agent]) -> int:
    """Return how many ready pods have an engine that lists the adapter now."""
    return sum(1 for pod in ready if _state(adapter, agents.get(pod.uid, _UNHEARD)) == LOADED)


def _state(adapter: Adapter, agent: Agent) -> str:
    seen = agent.adapter(adapter.engine_name) if agent.reachable else None
    return seen.state if seen else ""


def trouble(adapter: Adapter, pods: Sequence[Pod], agents: Mapping[str, Agent]) -> Problem | None:
    """Return why an agent has not loaded the adapter: a refusal before a failure that is tried again."""
    found = []
    for pod in sorted(pods, key=lambda item: item.name):
        agent = agents.get(pod.uid, _UNHEARD)
        seen = agent.adapter(adapter.engine_name) if agent.reachable else None
        if seen and seen.state in (REFUSED, FAILED):
            reason = known(seen.reason) or Reason.LOAD_FAILED
            text = f"{adapter.alias} version {adapter.version} ({adapter.name}) in pod {pod.name}: {clip(seen.message) or seen.reason}"
            found.append(Problem(reason, text, needs_user=seen.state == REFUSED))
    return next((problem for problem in found if problem.needs_user), found[0] if found else None)


def unreachable(pods: Sequence[Pod], agents: Mapping[str, Agent]) -> list[str]:
    """Return the names of pods whose agents do not answer."""
    return sorted(pod.name for pod in pods if not agents.get(pod.uid, _UNHEARD).reachable)


def rows_and_condition(
    selection: Selection,
    ready: Sequence[Pod],
    agents: Mapping[str, Agent],
    wanted_pods: int,
    problem: Problem | None,
    *,
    slots: int = 0,
    restart: str = "",
) -> tuple[list[ServedAlias], Condition]:
    """Return a row per alias, and AdaptersLoaded. `slots`: adapters that an engine has in one batch; 0: not known. `restart`: why engines end."""
    rows = [_row(plan, selection, ready, agents) for plan in selection.aliases]
    served = {plan.alias for plan in selection.aliases}
    refused = [item for item in selection.decisions.values() if item.reason and not item.offered and item.reason not in (*_NOT_OURS, *_WAITING)]
    waiting = [item for item in selection.decisions.values() if item.reason in _WAITING]
    rows += [_refused_row(item, len(ready)) for item in _newest(refused + waiting) if item.adapter.alias not in served]
    rows += [_failed_row(alias, outcome, len(ready)) for alias, outcome in selection.canaries.items() if alias not in served]
    rows.sort(key=lambda row: row.alias)
    if problem:
        return rows, Condition(ADAPTERS_LOADED, FALSE, problem.reason, problem.message)
    condition = _condition(rows, refused, ready, agents, wanted_pods)
    restarting = [f"{item.adapter.name}: {item.message}" for item in waiting if item.reason is Reason.RESTART_REQUIRED]
    if restarting and condition.reason is not Reason.ADAPTER_FAILED:
        return rows, Condition(ADAPTERS_LOADED, FALSE, Reason.RESTART_REQUIRED, clip("; ".join(sorted(restarting)), 2000))
    if condition.status == TRUE and restart:
        return rows, Condition(ADAPTERS_LOADED, TRUE, Reason.RESTART_REQUIRED, restart)
    over = len(selection.offered) - slots
    if condition.status == TRUE and slots and over > 0:
        return rows, Condition(ADAPTERS_LOADED, TRUE, Reason.OVER_CAPACITY, _over_capacity(len(selection.offered), slots))
    return rows, condition


def _over_capacity(loaded: int, slots: int) -> str:
    return (
        f"{loaded} adapters are loaded and adapters.maxLoaded is {slots}: an engine has {slots} of them in its slots, the others in host memory. A "
        f"request for one of those first waits for its weights to be copied into a slot, and no batch has more than {slots} different adapters; "
        f"raise adapters.maxLoaded (restarts the pods; GPU memory is set aside for each slot) if more than {slots} are busy at the same time"
    )


def _newest(decisions: Sequence[Decision]) -> list[Decision]:
    best: dict[str, Decision] = {}
    for item in decisions:
        known = best.get(item.adapter.alias)
        if known is None or item.adapter.version > known.adapter.version:
            best[item.adapter.alias] = item
    return list(best.values())


def _row(plan: AliasPlan, selection: Selection, ready: Sequence[Pod], agents: Mapping[str, Agent]) -> ServedAlias:
    wanted = plan.wanted
    loaded = loaded_pods(wanted, ready, agents)
    note, canary = selection.notes.get(plan.alias, ""), selection.canaries.get(plan.alias)
    problem = trouble(wanted, ready, agents) or (trouble(plan.candidate, ready, agents) if plan.candidate else None)
    silent = unreachable(ready, agents)
    reason: Reason | None = None
    message = note
    if problem:
        reason, message = problem.reason, "; ".join(part for part in (problem.message, _instead(plan, ready, agents), note) if part)
    elif loaded < len(ready) or not ready:
        reason = Reason.AGENT_UNREACHABLE if silent and loaded + len(silent) >= len(ready) else Reason.LOADING
    elif note:
        reason = Reason.INVALID_SPEC
    elif canary and not canary.promoted:
        reason = canary.reason
    if canary and not canary.promoted:
        message = "; ".join(part for part in (message, canary.message) if part)
    return ServedAlias(
        alias=plan.alias,
        stable=wanted.name,
        candidate=plan.candidate.name if plan.candidate else None,
        candidate_weight=plan.weight if plan.candidate else None,
        steps=(canary.steps or None) if canary and plan.candidate else None,
        **(canary.standing.to_row() if canary else {}),
        engine_name=wanted.engine_name,
        loaded=loaded,
        of=len(ready),
        reason=str(reason) if reason else None,
        message=message or None,
    )


def _instead(plan: AliasPlan, ready: Sequence[Pod], agents: Mapping[str, Agent]) -> str:
    other = next((adapter for adapter in plan.prefer[1:] if loaded_pods(adapter, ready, agents) == len(ready)), None)
    return f"{other.name} answers meanwhile" if other and ready else ""


def _refused_row(decision: Decision, of: int) -> ServedAlias:
    text = decision.message if decision.reason in _WAITING else f"{decision.adapter.name}: {decision.message}"
    return ServedAlias(alias=decision.adapter.alias, loaded=0, of=of, reason=str(decision.reason), message=text)


def _failed_row(alias: str, canary: Outcome, of: int) -> ServedAlias:
    """Return the row of an alias of which only a version is left whose canary failed."""
    fields = canary.standing.to_row()
    return ServedAlias(alias=alias, loaded=0, of=of, reason=str(Reason.CANARY_FAILED), message=canary.standing.failure or None, **fields)


def _condition(rows: Sequence[ServedAlias], refused: Sequence[Decision], ready: Sequence[Pod], agents: Mapping[str, Agent], wanted: int) -> Condition:
    failing = [row for row in rows if row.message and row.reason not in (None, *_WAITING, Reason.AGENT_UNREACHABLE, *_CANARY)]
    texts = [row.message or "" for row in failing]
    told = " ".join(texts)
    texts += [f"{item.adapter.name}: {item.message}" for item in sorted(refused, key=lambda item: item.adapter.name) if item.message not in told]
    if texts:
        return Condition(ADAPTERS_LOADED, FALSE, Reason.ADAPTER_FAILED, clip("; ".join(texts), 2000))
    if not rows:
        return Condition(ADAPTERS_LOADED, TRUE, Reason.NO_ADAPTERS, "no LoRAAdapter is to be served")
    if wanted == 0 and not ready:
        return Condition(ADAPTERS_LOADED, FALSE, Reason.STOPPED, "spec.replicas is 0")
    silent = unreachable(ready, agents)
    if silent:
        return Condition(
            ADAPTERS_LOADED, UNKNOWN, Reason.AGENT_UNREACHABLE, f"the agent does not answer in {', '.join(silent)}; its adapters are unknown"
        )
    loading = [f"{row.alias} {row.loaded}/{row.of}" for row in rows if row.loaded < row.of or not row.of]
    if loading:
        return Condition(ADAPTERS_LOADED, FALSE, Reason.ADAPTERS_LOADING, f"loading: {', '.join(loading)}")
    failed = "".join(f"; {row.failure}" for row in rows if row.reason == Reason.CANARY_FAILED)
    return Condition(ADAPTERS_LOADED, TRUE, Reason.ADAPTERS_LOADED, clip(f"{len(rows)} aliases are loaded in {len(ready)} pods{failed}", 2000))


def settled(before: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as they were, but with what this pass decided: that is about what pods are told, not about what agents say."""
    now = {row["alias"]: row for row in rows}
    kept = []
    for row in before:
        decided = now.get(row.get("alias"), {})
        if "stable" not in decided:
            kept.append(dict(row))
            continue
        rest = {field: value for field, value in row.items() if field not in _DECIDED}
        kept.append({**rest, **{field: decided[field] for field in _DECIDED if field in decided}})
    return kept
