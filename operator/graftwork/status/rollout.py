"""What the status says of revisions and places: status.rollout, and the conditions Placed and RolledBack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.facts.pods import Pod
from graftwork.facts.rollout import Record
from graftwork.facts.text import clip
from graftwork.reasons import Reason
from graftwork.status import conditions
from graftwork.status.conditions import FALSE, PLACED, ROLLED_BACK, TRUE, Condition


def rollout(
    before: Mapping[str, Any] | None, revision: int | None, template_hash: str, ready: Sequence[Pod], record: Record | None
) -> Mapping[str, Any] | None:
    """Return status.rollout; without a revision of now, what it was."""
    if revision is None:
        return before
    ranks = [pod.limits.max_rank for pod in ready if pod.limits]
    return {
        "revision": revision,
        "templateHash": template_hash,
        "maxRank": max(ranks) if ranks else (before or {}).get("maxRank"),
        **(record.to_status() if record else {}),
    }


def rolled_back(record: Record) -> Condition:
    """Return the condition RolledBack: True with the cause while the spec asks for what has failed."""
    if record.failed is None:
        return Condition(ROLLED_BACK, FALSE, Reason.NOT_ROLLED_BACK)
    return Condition(ROLLED_BACK, TRUE, record.failed.reason, told(record))


def stalled(record: Record, ready: int) -> tuple[Condition, ...]:
    """Return Ready, Reconciling and Stalled of a deployment that was rolled back; `ready` pods serve."""
    return conditions.stalled(
        Reason.ROLLED_BACK,
        f"{told(record)}. {ready} pods are ready. Change the spec: the same text is not tried again",
    )


def told(record: Record) -> str:
    """Return what was rolled back and why; empty if nothing was."""
    failed = record.failed
    if failed is None:
        return ""
    return f"revision {failed.revision} failed ({failed.reason}) and was rolled back to revision {record.last_good_revision}: {failed.message}"


def placed(active: Sequence[Pod], wanted: int, refused_pods: str) -> Condition:
    """Return the condition Placed: whether every pod that exists has a node, in the scheduler's words where one has none."""
    if wanted == 0:
        return Condition(PLACED, TRUE, Reason.STOPPED, "spec.replicas is 0")
    homeless = sorted((pod for pod in active if pod.unschedulable), key=lambda pod: pod.name)
    if homeless:
        more = f" (and {len(homeless) - 1} more)" if len(homeless) > 1 else ""
        return Condition(PLACED, FALSE, Reason.UNSCHEDULABLE, f"no node for pod {homeless[0].name}{more}: {clip(homeless[0].unschedulable)}")
    if refused_pods:
        return Condition(PLACED, FALSE, Reason.PODS_REFUSED, f"the API server refuses to make pods: {refused_pods}")
    with_node = sum(1 for pod in active if pod.node)
    if with_node < max(wanted, len(active)):
        return Condition(PLACED, FALSE, Reason.PROGRESSING, f"{with_node} of {max(wanted, len(active))} pods have a node")
    return Condition(PLACED, TRUE, Reason.PLACED, f"{with_node} pods have a node")
