"""`kubectl graft plan`: what a changed LLMDeployment would change, before it is applied. Nothing here asks a cluster."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.base import RESTARTS
from graftwork.api.llmdeployment import LLMDeploymentSpec
from graftwork.api.schema import flattened
from graftwork.cli import memory, models
from graftwork.config import Config
from graftwork.facts.inspected import Resolved
from graftwork.plan import access, cache, capacity, children, engine, engine_combinations, mode, model_combinations, revisions, serving, sources
from graftwork.plan.mode import Mode
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source

DEFAULTS = Config.model_validate(
    {
        "images": {"engine": "<engine of the operator>", "agent": "<agent of the operator>", "trainer": "<trainer of the operator>"},
        "store": {"url": "s3://<store of the operator>"},
        "lease": {"namespace": "graftwork-system"},
    }
)
"""Stands in for the operator's configuration, which a user need not be able to read: old and new are rendered by the same one."""


@dataclass(frozen=True)
class Change:
    """One field of the spec that differs, by its path; None: absent."""

    path: str
    before: Any
    after: Any
    restarts: bool


@dataclass(frozen=True)
class Plan:
    """What would happen. `diff` is of the children; `rolls`: the pods are replaced; `problems`: why the operator would change nothing at all.

    `one_at_a_time`: a pod goes before the one that replaces it has come (`rollout.surge: 0`).
    """

    name: str
    new: bool
    replicas: int
    changes: tuple[Change, ...]
    rolls: bool
    problems: tuple[str, ...]
    diff: str
    memory: str = ""
    one_at_a_time: bool = False


def plan(
    wanted: LLMDeployment, current: LLMDeployment | None, config: Config = DEFAULTS, *, known: Resolved | None = None, gpu_bytes: int | None = None
) -> Plan:
    """Compare two LLMDeployments of one name; `current` None: there is none yet.

    `known`: what the wanted one's model is; else what the status of the current one says, if both have the same. `gpu_bytes`: memory of a GPU.
    """
    wanted = _ranked(wanted, current or wanted)
    current = _ranked(current, current) if current else None
    alike = current is not None and _model(current) == _model(wanted)
    was = known if known and alike else _remembered(current)
    known = known or (was if alike else None)
    before, problems = (_children(current, config, was) if current else {}), _problems(wanted, known)
    after = before if problems else _children(wanted, config, known)
    return Plan(
        name=wanted.metadata.name,
        new=current is None,
        replicas=wanted.spec.replicas,
        changes=tuple(_changes(current, wanted)) if current else (),
        rolls=current is not None and _template_hash(before) != _template_hash(after),
        one_at_a_time=wanted.spec.rollout.surge == 0,
        problems=problems,
        diff="".join(_diff(before, after)),
        memory="" if problems else _memory(wanted, known, gpu_bytes),
    )


def _model(deployment: LLMDeployment) -> tuple[str, str]:
    return deployment.spec.model.source, deployment.spec.model.revision or "main"


def _remembered(deployment: LLMDeployment | None) -> Resolved | None:
    """Return what a status says of the model that the spec names: what it was looked up as, else what the agents have read of it."""
    if deployment is None:
        return None
    model, source = deployment.status.get("model") or {}, deployment.spec.model.source
    found = Resolved.from_object(model.get("resolved"))
    return found if found and found.source == source else models.seen(model, source)


def _memory(deployment: LLMDeployment, known: Resolved | None, gpu_bytes: int | None) -> str:
    source = sources.parse("spec.model.source", deployment.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source), "a source that is none is a problem"
    how = memory.How(source.resolved, source.downloaded and deployment.spec.cache.mode != "Shared", not _mode(deployment, known).without_lora)
    return memory.render(deployment, known, how, gpu_bytes=gpu_bytes)


def render(made: Plan) -> str:
    """Return the plan as text."""
    parts = [f"LLMDeployment {made.name}: {_headline(made)}"]
    if made.problems:
        parts.append("\n".join(["The operator would change nothing, and say Stalled:", *(f"  {problem}" for problem in made.problems)]))
    if made.changes:
        width = max(len(change.path) for change in made.changes)
        lines = [f"  {change.path:<{width}}  {_shown(change.before)} -> {_shown(change.after)}{_effect(change, made)}" for change in made.changes]
        parts.append("\n".join(["Fields:", *lines]))
    if made.memory:
        parts.append(made.memory)
    if made.diff:
        parts.append(made.diff.rstrip("\n"))
    return "\n\n".join(parts)


def _headline(made: Plan) -> str:
    if made.problems:
        return "it cannot be served as it is written"
    if made.new:
        return f"new, {made.replicas} pods"
    if not made.changes:
        return "nothing changes"
    if not made.replicas:
        return "replicas is 0: there are no pods, and nothing is served"
    return _replaced(made) if made.rolls else "no pod restarts"


def _replaced(made: Plan) -> str:
    if made.one_at_a_time and made.replicas == 1:
        return "the pod is replaced, and nothing is served until the new engine is ready (rollout.surge is 0)"
    if made.one_at_a_time:
        return f"the pods ({made.replicas}) are replaced one after another, each gone before the next comes (rollout.surge is 0); the others serve"
    return f"the pods ({made.replicas}) are replaced one after another, and what is served goes on"


def _effect(change: Change, made: Plan) -> str:
    return "   restarts pods" if change.restarts and made.rolls else ""


def _shown(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)


def _ranked(deployment: LLMDeployment, seen: LLMDeployment) -> LLMDeployment:
    """Return the deployment with a number for `maxRank: auto`: what the pods of now have. Adapters could make it higher, which is not looked at."""
    if deployment.spec.adapters.max_rank != "auto":
        return deployment
    running = (seen.status.get("rollout") or {}).get("maxRank")
    return capacity.resolved(deployment, capacity.fitting_rank([], running))


def _problems(wanted: LLMDeployment, resolved: Resolved | None) -> tuple[str, ...]:
    source = sources.parse("spec.model.source", wanted.spec.model.source, sources.MODEL_KINDS)
    found = [] if isinstance(source, Source) else [source]
    found += [*engine.problems(wanted.spec.engine), *engine_combinations.problems(wanted)]
    looked_up = isinstance(source, Source) and source.resolved
    of_the_model = model_combinations.problem(wanted, resolved if looked_up else None)
    return tuple(f"{problem.reason}: {problem.message}" for problem in [*found, *([of_the_model] if of_the_model else [])])


def _mode(deployment: LLMDeployment, resolved: Resolved | None) -> Mode:
    """Return how the model is served, as far as the operator has looked into it; a model that nobody knows is taken for one with adapters."""
    if resolved is None:
        return mode.ADAPTERS_ON
    source = sources.parse("spec.model.source", deployment.spec.model.source, sources.MODEL_KINDS)
    return (
        mode.of_facts(deployment, resolved.facts)
        if isinstance(source, Source) and source.resolved
        else mode.of_architecture(deployment, resolved.facts.architecture)
    )


def _children(deployment: LLMDeployment, config: Config, known: Resolved | None) -> dict[str, Manifest]:
    """Return the children by kind and name, but for the ConfigMap of adapters, which depends on the LoRAAdapters there are."""
    source = sources.parse("spec.model.source", deployment.spec.model.source, sources.MODEL_KINDS)
    if not isinstance(source, Source):
        return {}
    # What a branch is now only the operator looks up; another name of a revision is taken for another revision.
    pin = deployment.spec.model.revision or "main" if source.versioned else ""
    pinned = sources.pinned(source, pin) if pin else source
    served, cached = _mode(deployment, known), _cached(deployment, source, pin)
    inputs = serving.Inputs(pinned, known if source.resolved else None, served, cached)
    template = serving.pod_template(deployment, inputs, config, revisions.template_hash(deployment, pin, served))
    made = [
        children.deployment(deployment, template, **_surge(deployment)),
        children.service(deployment),
        children.disruption_budget(deployment),
        access.ingress(deployment),
        access.http_route(deployment),
        access.network_policy(deployment, config),
    ]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in made if item}


def _surge(deployment: LLMDeployment) -> dict[str, int]:
    surge = deployment.spec.rollout.surge
    return {} if surge == "auto" else {"surge": surge, "unavailable": 0 if surge else 1}


def _template_hash(made: Mapping[str, Manifest]) -> str:
    deployment = next((item for name, item in made.items() if name.startswith("Deployment/")), None)
    return revisions.stored_hash(deployment["spec"]["template"]) if deployment else ""


def _cached(deployment: LLMDeployment, source: Source, pin: str) -> cache.Cached | None:
    """Return where pods find the model with cache.mode Shared; what `auto` comes to depends on the cluster, and is taken for PerPod."""
    if deployment.spec.cache.mode != "Shared":
        return None
    return cache.Cached(names.cache_claim(deployment.metadata.name), cache.key(source.text, pin))


def _diff(before: Mapping[str, Manifest], after: Mapping[str, Manifest]) -> Iterator[str]:
    for child in dict.fromkeys((*before, *after)):
        old, new = _text(before.get(child)), _text(after.get(child))
        yield from difflib.unified_diff(old, new, f"{child} (now)", f"{child} (planned)", n=2)


def _text(manifest: Manifest | None) -> list[str]:
    return yaml.dump(manifest, Dumper=_Plain, sort_keys=False, width=200).splitlines(keepends=True) if manifest else []


class _Plain(yaml.SafeDumper):
    """Without anchors: the same dict twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's own signature
        """Write everything out."""
        return True


def _changes(current: LLMDeployment, wanted: LLMDeployment) -> Iterator[Change]:
    schema = flattened(LLMDeploymentSpec)
    before, after = (dict(_leaves(each.spec.model_dump(mode="json", by_alias=True), "spec")) for each in (current, wanted))
    paths = sorted({*before, *after})
    for path in paths:
        old, new = before.get(path), after.get(path)
        declared, restarts = _declared(schema, path)
        if {} in (old, new) and ("properties" not in declared or any(other.startswith(f"{path}.") for other in paths)):
            continue  # an empty map, or a group that fills or empties: what is in it is told
        if old != new:
            yield Change(path, old, new, restarts)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every field that says something and is no group, with its path, and a group that says nothing as {}. A list is one value."""
    if isinstance(value, Mapping):
        found = [leaf for key, child in value.items() for leaf in _leaves(child, f"{path}.{key}")]
        yield from found or [(path, {})]
    elif value not in (None, [], ""):
        yield path, value


def _declared(schema: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], bool]:
    """Return how a field is declared (nothing for a key of a map), and whether it restarts pods, as it says or what it is in."""
    says = False
    for step in path.split(".")[1:]:
        schema = (schema.get("properties") or {}).get(step) or {}
        if not schema:
            break
        says = bool(schema.get(RESTARTS, says))
    return schema, says
