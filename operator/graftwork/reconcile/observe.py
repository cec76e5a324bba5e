"""Gathering what the decisions of serving need: pods, what their agents say, the LoRAAdapters, and which of them a deployment serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftwork import names
from graftwork.api import InvalidObjectError, LLMDeployment, LoRAAdapter
from graftwork.api.llmdeployment import RANKS, AliasSettings, CanarySettings
from graftwork.clock import parse_rfc3339, rfc3339
from graftwork.errors import Forbidden, Invalid, NameTaken
from graftwork.facts import adapters as adapter_facts
from graftwork.facts import agents as agent_facts
from graftwork.facts import canary as canary_facts
from graftwork.facts import pods as pod_facts
from graftwork.facts import rollout as rollout_facts
from graftwork.facts.adapters import Adapter, Selection
from graftwork.facts.agents import Agent
from graftwork.facts.canary import Settings
from graftwork.facts.limits import Limits, limits
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.plan import adapters_file, bases, capacity
from graftwork.plan.adapters import Rules, Seen, select
from graftwork.plan.promotion import Promotion
from graftwork.plan.readiness import Proof
from graftwork.reasons import Reason
from graftwork.reconcile import modes
from graftwork.reconcile.context import Context, Key, Object, PodRef
from graftwork.status import conditions, rollout

SETTLE_SECONDS = 10.0
"""How long an agent may be silent before that is news: an operator that has just started has heard nobody yet."""


SILENT_SECONDS = 60.0
"""How long a canary's step waits for a ready pod whose agent is silent; such a pod goes on with the share that it was told before."""

UNREAD_SECONDS = 120.0
"""How long a canary's step waits, from the ConfigMap's last change, for a ready pod that does not read it: a kubelet brings a change within 90 s."""

LEFTOVER_SECONDS = 1.0
"""How soon to look again for the children of a resource of this name that was deleted a moment ago."""

REFUSED_SECONDS = 30.0
"""How soon to try again what the API server refused: a quota, an admission policy or a right can change, and nobody tells of that."""


def name_taken(key: Key, error: NameTaken) -> Problem:
    """Return the problem of a taken name; one held by a deleted resource of the same name is free in a moment."""
    if error.held_by == f"{key.kind} {key.name}":
        text = f"{error.kind} {error.name} of the {key.kind} of this name that was deleted is still being removed"
        return Problem(Reason.PROGRESSING, text, needs_user=False)
    return Problem(Reason.NAME_TAKEN, str(error))


def refused(error: Forbidden | Invalid) -> Problem:
    """Return the problem of a write that the API server refuses for reasons outside the spec, in its own words."""
    return Problem(Reason.RECONCILE_FAILED, f"the API server refuses it, tried again every {REFUSED_SECONDS:.0f} s: {error}", needs_user=False)


def not_made(key: Key, error: Forbidden | Invalid | NameTaken) -> Problem:
    """Return the problem of a child that cannot be made."""
    if isinstance(error, NameTaken):
        return name_taken(key, error)
    if isinstance(error, Invalid):
        return Problem(Reason.INVALID_SPEC, f"the API server refuses what the spec asks for: {error}")
    return refused(error)


def now(ctx: Context) -> str:
    """Return the time as it is written into objects."""
    return rfc3339(ctx.clock.now())


def pods(ctx: Context, namespace: str, labels: Mapping[str, str]) -> list[Pod]:
    """Return the pods with these labels, by name."""
    return [pod_facts.pod(obj) for obj in ctx.mirror.list("Pod", namespace, labels)]


def refs(namespace: str, found: Sequence[Pod]) -> list[PodRef]:
    """Return whom to watch: every pod that counts and has an address."""
    return [PodRef(namespace, pod.name, pod.uid, pod.ip) for pod in found if pod.active and pod.ip]


def agents(ctx: Context, found: Sequence[Pod]) -> dict[str, Agent]:
    """Return what is known of the agent of each pod that counts, by pod uid."""
    result = {}
    for pod in found:
        if pod.active:
            view = ctx.agents.get(pod.uid)
            silent = max(0.0, (ctx.clock.now() - view.since).total_seconds())
            result[pod.uid] = agent_facts.agent(view.status, reachable=view.reachable, silent_seconds=silent)
    return result


def settling(found: Sequence[Pod], known: Mapping[str, Agent]) -> float | None:
    """Return in how many seconds the silence of a ready pod's agent becomes news; None if nobody is newly silent."""
    left = [
        SETTLE_SECONDS - known[pod.uid].silent_seconds
        for pod in found
        if pod.active and pod.ready and pod.uid in known and not known[pod.uid].reachable and known[pod.uid].silent_seconds < SETTLE_SECONDS
    ]
    return max(left) if left else None


def adapters(ctx: Context, namespace: str) -> list[Adapter]:
    """Return the namespace's LoRAAdapters; one that cannot be read is left out and says so in its own status."""
    found = (_adapter(ctx, obj) for obj in ctx.mirror.list("LoRAAdapter", namespace))
    return [adapter for adapter in found if adapter is not None]


def _adapter(ctx: Context, obj: Object) -> Adapter | None:
    uid, version = obj["metadata"].get("uid"), obj["metadata"].get("resourceVersion")
    return ctx.memory.adapters.get((uid, version), lambda: _read_adapter(obj)) if uid and version else _read_adapter(obj)


def _read_adapter(obj: Object) -> Adapter | None:
    try:
        return adapter_facts.adapter(LoRAAdapter.from_object(obj))
    except InvalidObjectError:
        return None


def live_limits(ctx: Context, namespace: str, deployment: str) -> Limits | None:
    """Return what the engines of the template that is rolled out now are started with; None before there is one."""
    child = ctx.mirror.get("Deployment", namespace, deployment) or {}
    return limits(((child.get("spec") or {}).get("template") or {}).get("spec"))


def rules(deployment: LLMDeployment, live: Limits | None = None) -> Rules:
    """Return what the deployment's spec says of its adapters; for `auto`, what its engines are started with now."""
    settings = deployment.spec.adapters
    following = settings.max_rank == "auto"
    running = live.max_rank if live else capacity.LEAST_RANK
    return Rules(
        namespace=deployment.metadata.namespace,
        deployment=deployment.metadata.name,
        served_name=deployment.served_name,
        max_loaded=settings.max_loaded,
        max_rank=running if settings.max_rank == "auto" else settings.max_rank,
        rank_auto=following,
        places=live.kept // 2 if live else capacity.places(settings.max_loaded),
        compatible_bases=bases.normals(deployment.spec.model.compatible_bases),
        match_labels=settings.selector.match_labels,
        pins={alias.name: alias.adapter for alias in settings.aliases if alias.adapter},
        keeps={alias.name: alias.keep for alias in settings.aliases},
        promotions={alias.name: _promotion(alias) for alias in settings.aliases},
    )


def _promotion(alias: AliasSettings) -> Promotion:
    canary = alias.canary or CanarySettings()
    analysis = canary.analysis
    return Promotion(
        alias.promotion,
        Settings(canary.steps, float(canary.step_seconds), analysis.max_error_rate, analysis.max_ttft_ratio, analysis.min_requests),
    )


def stalled(deployment: Object) -> str:
    """Return why a deployment's children are left as they are, so that its pods are told of nothing new; empty: they are not."""
    found = conditions.find((deployment.get("status") or {}).get("conditions") or [], conditions.STALLED)
    return f"{found.get('reason')}: {found.get('message')}" if found.get("status") == "True" else ""


def selection(ctx: Context, deployment: LLMDeployment, found: Sequence[Pod], known: Mapping[str, Agent]) -> Selection:
    """Return which LoRAAdapters the deployment serves, by what its status says of canaries."""
    made_from = inputs(ctx, deployment, found, known)
    return ctx.memory.selections.get((deployment.metadata.namespace, deployment.metadata.name), made_from, lambda: select(*made_from))


def inputs(
    ctx: Context, deployment: LLMDeployment, found: Sequence[Pod], known: Mapping[str, Agent], *, nothing_new: bool = False
) -> tuple[list[Adapter], Rules, Seen]:
    """Return what the selection is made from; the same for whoever asks in the same moment.

    `nothing_new` leaves it at those that pods were told of before, as when there is no store any more to get others from.
    """
    namespace, name = deployment.metadata.namespace, deployment.metadata.name
    config_map = ctx.mirror.get("ConfigMap", namespace, names.adapters_config_map(name))
    remembered = str((deployment.status.get("model") or {}).get("fingerprint") or "")
    listed = adapters_file.listed(config_map)
    candidates = [adapter for adapter in adapters(ctx, namespace) if not nothing_new or adapter.engine_name in listed]
    rows = deployment.status.get("adapters") or []
    engines = {adapter.name: adapter.engine_name for adapter in candidates}
    seen = Seen(
        fingerprints=_fingerprints(found, known, remembered),
        listed=listed,
        loaded=_loaded_everywhere(found, known),
        served={row["alias"]: row["stable"] for row in rows if row.get("stable")},
        routes=adapters_file.routes(config_map),
        standings={row["alias"]: canary_facts.from_row(row).among(engines) for row in rows},
        max_rank=min((pod.limits.max_rank for pod in found if pod.active and pod.limits), default=None),
        unread=_unread(ctx, found, known, config_map),
        outdated=_outdated(found, known),
        rolled_back=rollout.told(rollout_facts.record(deployment.status.get("rollout"))),
        proof=_proof(deployment, found, known, config_map),
    )
    live = live_limits(ctx, namespace, name)
    ruled = replace(rules(deployment, live), without_lora=modes.mode(ctx, deployment, found, known).without_lora)
    if ruled.rank_auto:
        proven = _proven_rank(deployment, found)
        wanted = _wanted_ranks(candidates, ruled, seen, proven, live)
        ruled = replace(ruled, max_rank=capacity.fitting_rank(wanted, proven))
    return candidates, ruled, seen


def _proven_rank(deployment: LLMDeployment, found: Sequence[Pod]) -> int | None:
    """Return what the engines of ready pods take, or took when there were some; None if there never were.

    Not what the template says: one whose pods never become ready, because nothing has room for that rank, must not be kept for its own sake.
    """
    ready = [pod.limits.max_rank for pod in found if pod.active and pod.ready and pod.limits]
    return max(ready) if ready else (deployment.status.get("rollout") or {}).get("maxRank")


def _wanted_ranks(candidates: Sequence[Adapter], ruled: Rules, seen: Seen, proven: int | None, live: Limits | None) -> list[int]:
    """Return the ranks of what would be served if ranks did not matter, so that what is refused anyway restarts no pod.

    Before a pod was ready there may be no word about its base: then what may turn out to be servable counts too, and what the template was made
    for, as long as it is there, or the pods would be replaced as soon as they have spoken.
    """
    if all(adapter.rank <= max(proven or 0, capacity.LEAST_RANK) for adapter in candidates):
        return []
    free = select(candidates, replace(ruled, max_rank=RANKS[-1]), replace(seen, max_rank=None))
    ranks = [adapter.rank for adapter in free.offered]
    if proven is None:
        ranks += [item.adapter.rank for item in free.decisions.values() if item.reason is Reason.LOADING]
        ranks += [item.adapter.rank for item in free.decisions.values() if live and item.adapter.rank <= live.max_rank]
    return ranks


def _fingerprints(found: Sequence[Pod], known: Mapping[str, Agent], remembered: str) -> frozenset[str]:
    """Return the base models in the pods; what the status remembers counts while a pod that serves has not spoken."""
    heard = {base.fingerprint for agent in known.values() if (base := agent.base)}
    silent = any(pod.ready and known[pod.uid].base is None for pod in found if pod.uid in known)
    if remembered and (silent or not heard):
        heard.add(remembered)
    return frozenset(heard)


def _loaded_everywhere(found: Sequence[Pod], known: Mapping[str, Agent]) -> frozenset[str]:
    """Return the engine names that every ready pod lists; nothing while one of them has not spoken."""
    ready = [known[pod.uid] for pod in found if pod.ready and pod.uid in known]
    if not ready or not all(agent.reachable for agent in ready):
        return frozenset()
    sets = [{item.engine_name for item in agent.adapters if item.state == agent_facts.LOADED} for agent in ready]
    return frozenset(set.intersection(*sets))


def _unread(ctx: Context, found: Sequence[Pod], known: Mapping[str, Agent], config_map: Object | None) -> tuple[str, ...]:
    """Return the ready pods whose agents have not read the ConfigMap as it is; none is waited for without end, since the others serve by it."""
    text = ((config_map or {}).get("data") or {}).get(names.ADAPTERS_KEY) or ""
    wanted, late = adapters_file.content_hash(text), _age(ctx, config_map) >= UNREAD_SECONDS
    behind = []
    for pod in found:
        agent = known.get(pod.uid)
        if pod.ready and agent and (agent.observed_hash != wanted and not late if agent.reachable else agent.silent_seconds < SILENT_SECONDS):
            behind.append(pod.name)
    return tuple(sorted(behind))


def _outdated(found: Sequence[Pod], known: Mapping[str, Agent]) -> tuple[str, ...]:
    """Return the ready pods that are too old for a canary; of one whose agent does not answer that is not known."""
    ready = [(pod.name, known[pod.uid]) for pod in found if pod.active and pod.ready and pod.uid in known]
    return tuple(sorted(name for name, agent in ready if agent.reachable and agent_facts.CANDIDATES not in agent.features))


def _age(ctx: Context, obj: Object | None) -> float:
    """Return the seconds since our last change of an object, by the API server's own note of it; 0 without one."""
    fields = ((obj or {}).get("metadata") or {}).get("managedFields") or []
    try:
        return max((ctx.clock.now() - parse_rfc3339(field["time"])).total_seconds() for field in fields)
    except (ValueError, KeyError):
        return 0.0


def _proof(deployment: LLMDeployment, found: Sequence[Pod], known: Mapping[str, Agent], config_map: Object | None) -> Proof:
    """Return what is known of which adapters load. What waits for its turn, or for an engine that comes back, has not failed."""
    ready = [known[pod.uid] for pod in found if pod.ready and pod.uid in known]
    said = [item for agent in ready if agent.reachable for item in agent.adapters]
    return Proof(
        heard=bool(ready) and all(agent.reachable for agent in ready),
        loaded=frozenset(item.engine_name for item in said if item.state == agent_facts.LOADED),
        doubtful=frozenset(item.engine_name for item in said if item.state == agent_facts.FAILED),
        served=bool(ready or deployment.status.get("coldStart")),
        told=adapters_file.required(config_map),
    )


async def store_problem(ctx: Context, namespace: str) -> Problem | None:
    """Return what is wrong with the store, as far as the operator's configuration and the claim tell."""
    store = ctx.config.store
    if not store.url:
        return Problem(
            Reason.STORE_NOT_CONFIGURED,
            "the operator has no store for adapters (store.url of its configuration is empty); "
            "set store.url of the chart to s3://<bucket>/<prefix>, or store.embedded.enabled to try it out",
        )
    if not store.claim:
        return None
    claim = await ctx.cluster.get("PersistentVolumeClaim", namespace, store.claim)
    modes = list(((claim or {}).get("spec") or {}).get("accessModes") or [])
    if claim is None or "ReadWriteMany" in modes:
        return None
    return Problem(
        Reason.STORE_NOT_SHARED,
        f"the store's claim {namespace}/{store.claim} has accessModes {', '.join(modes)}, so that pods of one node only could reach it; "
        "use a claim of a class with ReadWriteMany, or S3: set store.url of the chart to s3://<bucket>/<prefix> and leave store.claim empty",
    )
