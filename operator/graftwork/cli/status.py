"""`kubectl graft status`: an LLMDeployment as a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from graftwork.cli.phase import cold_start_seconds, phase
from graftwork.cli.snapshot import Snapshot
from graftwork.clock import parse_rfc3339
from graftwork.facts.pods import Pod
from graftwork.plan.revisions import stored_hash

GIB = 2**30
TEXT_WIDTH = 160


@dataclass
class Node:
    """One line and what hangs on it."""

    text: str
    children: list[Node] = field(default_factory=list)

    def lines(self, lead: str = "", below: str = "") -> list[str]:
        """Return the tree as it is printed."""
        found = [lead + self.text]
        for child in self.children:
            last = child is self.children[-1]
            found += child.lines(below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
        return found


def render(snapshot: Snapshot, now: datetime) -> str:
    """Return the whole tree, without a line break at its end."""
    resource, status = snapshot.resource, snapshot.resource.get("status") or {}
    namespace = resource["metadata"].get("namespace", "")
    summary = status.get("summary") or "the operator has not seen it yet: does it run, and does it watch this namespace?"
    root = Node(f"LLMDeployment {namespace}/{snapshot.name}: {summary}")
    root.children = [
        *_facts(resource, status),
        Node("conditions", [Node(line) for line in _conditions(resource, now)]),
        *_section("revisions", _revisions(snapshot, now), snapshot.unread.get("controllerrevisions")),
        *_section("pods", [_pod(each, snapshot, now) for each in snapshot.pods], snapshot.unread.get("pods")),
        *_section("adapters", [_adapter(row) for row in status.get("adapters") or []]),
    ]
    return "\n".join(root.lines())


def _section(title: str, children: Sequence[Node], unread: str | None = None) -> list[Node]:
    if unread is not None:
        return [Node(f"{title}: not shown: {one_line(unread)}")]
    return [Node(title, list(children))] if children else [Node(f"{title}: none")]


def _facts(resource: Mapping[str, Any], status: Mapping[str, Any]) -> list[Node]:
    model, facts = (resource.get("spec") or {}).get("model") or {}, status.get("model") or {}
    known = [str(facts["architecture"])] if facts.get("architecture") else []
    if facts.get("parameters"):
        known.append(f"{facts['parameters'] / 1e9:.3g} billion parameters")
    if facts.get("weightsBytes"):
        known.append(f"{facts['weightsBytes'] / GIB:.3g} GiB")
    found = [Node(f"model {model.get('source', '')}{': ' + ', '.join(known) if known else ''}")]
    if status.get("endpoint"):
        found.append(Node(f"endpoint {status['endpoint']}"))
    return found


def _conditions(resource: Mapping[str, Any], now: datetime) -> list[str]:
    written = (resource.get("status") or {}).get("conditions") or []
    generation = resource["metadata"].get("generation", 0)
    width = max((len(item["type"]) for item in written), default=0)
    lines = []
    for item in written:
        old = " (of an older spec)" if item.get("observedGeneration", generation) != generation else ""
        said = f"{item.get('reason', '')}{': ' + one_line(item['message']) if item.get('message') else ''}"
        lines.append(f"{item['type']:<{width}}  {item['status']:<7}  {age(item.get('lastTransitionTime'), now):>4}  {said}{old}")
    return lines or ["none"]


def _revisions(snapshot: Snapshot, now: datetime) -> list[Node]:
    pods = Counter(pod.template_hash for pod in snapshot.pods if pod.active)
    found = []
    for item in snapshot.revisions:
        made_from = stored_hash(item)
        marks = ", ".join(_marks(made_from, snapshot))
        image = ((item.get("data") or {}).get("images") or {}).get("engine", "")
        count = f"{pods[made_from]} pod{'' if pods[made_from] == 1 else 's'}"
        text = f"{item.get('revision', '?')}  {age(item['metadata'].get('creationTimestamp'), now):>4}  {count}  {made_from}"
        found.append(Node(f"{text}{f'  {image}' if image else ''}{f'  ({marks})' if marks else ''}"))
    return found


def _marks(made_from: str, snapshot: Snapshot) -> list[str]:
    return ["current"] if made_from == snapshot.template_hash else []


def _pod(pod: Pod, snapshot: Snapshot, now: datetime) -> Node:
    numbers = {stored_hash(item): item.get("revision") for item in snapshot.revisions}
    number = numbers.get(pod.template_hash)
    revision = f"revision {number}" if number is not None else f"revision of {pod.template_hash or 'nobody'}"
    cold = cold_start_seconds(pod)
    took = f" {cold:.0f} s after it was made" if cold is not None else ""
    restarts = sum(container.restarts for container in pod.containers)
    again = f", {restarts} restart{'' if restarts == 1 else 's'}" if restarts else ""
    where = f" on {pod.node}" if pod.node else ""
    return Node(f"{pod.name}  {revision}  {age(pod.created, now):>4}{where}  {one_line(phase(pod))}{took}{again}")


def _adapter(row: Mapping[str, Any]) -> Node:
    loaded = f"loaded {row.get('loaded', 0)}/{row.get('of', 0)}"
    weight = f" ({row['candidateWeight']} %)" if row.get("candidateWeight") is not None else ""
    candidate = f", candidate {row['candidate']}{weight}" if row.get("candidate") else ""
    reason = f", {row['reason']}{': ' + one_line(row['message']) if row.get('message') else ''}" if row.get("reason") else ""
    return Node(f"{row['alias']} -> {row.get('stable') or 'nothing yet'}  {loaded}{candidate}{reason}")


def one_line(text: str) -> str:
    """Return a text in one line that is not endless."""
    flat = " ".join(text.split())
    return flat if len(flat) <= TEXT_WIDTH else flat[: TEXT_WIDTH - 1] + "…"


def age(since: str | None, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit: 12s, 5m, 3h, 9d."""
    if not since:
        return "?"
    seconds = max(0, int((now - parse_rfc3339(since)).total_seconds()))
    for unit, letter in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
