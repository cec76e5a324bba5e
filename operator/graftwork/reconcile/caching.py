"""The shared cache of an LLMDeployment: its claim is made when its size is known, its Job is followed, and pods come when the revision is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.clock import parse_rfc3339
from graftwork.errors import Forbidden, Invalid, NameTaken
from graftwork.facts import cached as facts
from graftwork.facts import pods as pod_facts
from graftwork.facts.cached import CACHED, FAILED, FILLING, Caching, Held
from graftwork.facts.inspected import Resolved
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.facts.rollout import record
from graftwork.plan import cache, revisions
from graftwork.plan.cache import Cached, Decision
from graftwork.plan.mode import Mode
from graftwork.plan.sources import Source
from graftwork.reasons import Reason
from graftwork.reconcile import observe
from graftwork.reconcile.cache_claim import Scene, class_problem, end, ensure, gather
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Object
from graftwork.reconcile.importing import PAUSE_SECONDS, without_pod
from graftwork.status.caching import Asked, Stand, stand, unbound_since
from graftwork.status.training import job_facts

STUCK_SECONDS = 30.0
"""How long a fill's pod may outlive its time to end (30 s) before that is news: most likely its node is gone."""
UNBOUND_SECONDS = 300.0
"""How long a fill waits for the volume of its claim before that is news: some file shares take minutes to be made."""


async def follow(ctx: Context, obj: Object, deployment: LLMDeployment, source: Source, resolved: Resolved | None, *, mode: Mode) -> Caching:
    """Bring the cache one step further, and say how the weights of the present spec come to pods.

    What a stored template has stays: `auto` decides when a template is made, so that no cluster's new class and no new Graftwork rolls a pod.
    """
    scene = gather(ctx, obj, deployment, source, resolved)
    template = revisions.stored_template(scene.stored, deployment, resolved, mode, scene.applied)
    if template is not None:
        frozen = cache.frozen(template, source, scene.claim_name)
        before = deployment.status.get("cache") or {}
        why = str(before.get("why") or "") if before.get("mode") == frozen else ""
        decision = Decision(frozen, why or "as the stored template of this spec was made")
        scene = replace(scene, wanted=cache.mounted(template.get("spec") or {}, scene.claim_name) or scene.wanted, frozen=True)
    else:
        decision = await _decide(scene)
    if decision.mode == "Shared" and decision.problem is None:
        try:
            return await _shared(scene, decision)
        except (Forbidden, Invalid, NameTaken) as error:
            return _refused(scene, decision, error)
    ctx.fills.watch(scene.key, [])
    held = _held(scene)
    await _clear(scene, scene.jobs, held)
    known = Caching(decision.mode, decision.why, claim_uid=scene.claim_uid, held=held)
    if decision.problem is None:
        return known
    stopped = replace(known, waiting=True, problem=decision.problem, again_seconds=observe.REFUSED_SECONDS)
    return replace(stopped, claim=scene.claim_name, key=scene.wanted, phase=FAILED)


def lying(ctx: Context, obj: Object, deployment: LLMDeployment, source: Source) -> tuple[Held, ...]:
    """Return the revisions that lie in the claim, where nothing is to be brought."""
    return _held(gather(ctx, obj, deployment, source, None))


def where(caching: Caching) -> Cached | None:
    """Return where pods find the model, if it is in a shared cache."""
    return Cached(caching.claim, caching.key) if caching.mode == "Shared" else None


async def _decide(scene: Scene) -> Decision:
    """Return what holds for a template that is made now; classes are asked for only where they matter."""
    ctx, spec = scene.ctx, scene.deployment.spec.cache
    undecided = scene.resolved is not None and spec.mode in ("auto", "Shared") and not scene.bound
    try:
        found = scene.classes(await ctx.cluster.list("StorageClass", None)) if undecided else None
    except Forbidden as error:
        if spec.mode == "auto":
            return Decision("PerPod", f"it is not known what the StorageClasses can do, since they cannot be read: {error}")
        if not spec.storage_class:
            return Decision("Shared", "as spec.cache.mode says", observe.refused(error))
        found = None
    decision = cache.decide(scene.deployment, scene.source, scene.resolved, found, bound=scene.bound)
    if decision.mode != "Shared" or decision.problem or scene.resolved is None:
        return decision
    return replace(decision, problem=cache.room_problem(scene.deployment, scene.resolved.files.bytes))


async def _shared(scene: Scene, decision: Decision) -> Caching:
    held = _held(scene)
    cached = next((item for item in held if item.key == scene.wanted), None)
    known = Caching("Shared", decision.why, scene.claim_name, scene.claim_uid, scene.wanted, held=held)
    if scene.resolved is None and not cached:
        text = (
            f"models/{scene.wanted} is not in claim {scene.claim_name} any more; let the source be looked up: annotation {names.ANNOTATION_REFRESH}"
        )
        return replace(known, phase=FAILED, waiting=True, problem=Problem(Reason.CACHE_FAILED, text))
    another_class = class_problem(scene)
    if another_class:
        return replace(known, phase=FAILED, waiting=True, problem=another_class)
    kept, sizes = _kept(scene, held)
    made = await ensure(scene, sizes)
    total = scene.resolved.files.bytes if scene.resolved else None
    known = replace(known, claim_uid=made.uid, total_bytes=total, size_bytes=made.size_bytes)
    if cached:
        scene.ctx.fills.watch(scene.key, [])
        await _clear(scene, scene.jobs, held)
        return replace(known, phase=CACHED)
    return await _fill(scene, known, kept, made.remedy)


def _refused(scene: Scene, decision: Decision, error: Forbidden | Invalid | NameTaken) -> Caching:
    """Say that claim or Job cannot be as they should; what lies in the claim is served all the same."""
    held = _held(scene)
    cached = any(item.key == scene.wanted for item in held)
    known = Caching("Shared", decision.why, scene.claim_name, scene.claim_uid, scene.wanted, CACHED if cached else FAILED, held)
    return replace(known, waiting=not cached, problem=observe.not_made(scene.key, error), again_seconds=observe.REFUSED_SECONDS)


def _held(scene: Scene) -> tuple[Held, ...]:
    """Return the revisions that lie in the claim for sure: those that were there, without what a Job that was begun may have removed.

    Of a claim of that name that is gone, neither the status nor a Job says anything of this one; a claim that has lost its volume has nothing.
    """
    if scene.claim is None or scene.claim_phase == "Lost":
        return ()
    status = scene.deployment.status
    found = {item.key: item for item in facts.held(status)} if facts.claim_uid(status) in ("", scene.claim_uid) else {}
    for job in scene.jobs:
        if (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_CLAIM_UID) != scene.claim_uid:
            continue
        name, kept = cache.asked(job)
        found = {other: item for other, item in found.items() if other in kept}
        if name and _look(scene, job).done and name not in found:
            mine = scene.resolved if name == scene.wanted else None
            found[name] = Held(key=name, revision=mine.revision if mine else "", bytes=mine.files.bytes if mine else 0)
    return tuple(found.values())


async def _clear(scene: Scene, jobs: Sequence[Object], held: Sequence[Held]) -> None:
    """Delete Jobs once the status says what came of them: nobody else knows what they brought, and what they may have removed."""
    if facts.held(scene.deployment.status) == tuple(held):
        await end(scene, jobs)


def _kept(scene: Scene, held: Sequence[Held]) -> tuple[list[str], list[int]]:
    """Return the keys that must stay in the claim, and the sizes of those revisions."""
    wanted_bytes = scene.resolved.files.bytes if scene.resolved else 0
    known = cache.stored_models(scene.stored, scene.claim_name)
    there = {item.key for item in held}
    kept = cache.keep(scene.wanted, [name for name in known if name in there], _used(scene), scene.deployment.spec.cache.keep)
    return kept, [wanted_bytes if name == scene.wanted else known.get(name, 0) for name in kept]


def _used(scene: Scene) -> set[str]:
    """Return the keys that pods mount, that the Deployment would make pods with, and that may be rolled back to."""
    namespace, name = scene.key.namespace, scene.key.name
    live = scene.ctx.mirror.get("Deployment", namespace, name) or {}
    good = revisions.stored_revision(scene.stored, record(scene.deployment.status.get("rollout")).last_good)
    specs = [((live.get("spec") or {}).get("template") or {}).get("spec") or {}, (good.template if good else {}).get("spec") or {}]
    specs += [pod.get("spec") or {} for pod in scene.ctx.mirror.list("Pod", namespace, {names.LABEL_DEPLOYMENT: name})]
    return {found for each in specs if (found := cache.mounted(each, scene.claim_name))}


async def _fill(scene: Scene, known: Caching, kept: Sequence[str], remedy: str) -> Caching:
    """Have the Job of the wanted revision, and none beside it: another one knows nothing of what is to be kept for this one."""
    ctx = scene.ctx
    assert scene.resolved is not None, "asked before"
    manifest = cache.fill_job(scene.deployment, scene.source, scene.resolved, kept, ctx.config, claim_uid=known.claim_uid)
    asked = Asked(scene.source.text, scene.claim_name, manifest["metadata"]["name"], remedy)
    filling = replace(known, phase=FILLING, waiting=True)
    job = next((item for item in scene.jobs if _is_asked(item, manifest, kept)), None)
    leftovers = [item for item in scene.jobs if item is not job]
    others = [pod for pod in _pods(scene, None) if job is None or pod.controller != job["metadata"]["uid"]]
    if leftovers or others:
        await _clear(scene, leftovers, known.held)
        return _behind(scene, filling, others)
    if job is None:
        outcome = await apply_children(ctx, scene.obj, [manifest], prune_kinds=())
        job = outcome.live["Job", asked.job]
        filling = replace(filling, held=tuple(item for item in known.held if item.key in kept))
    return await _step(scene, filling, asked, job)


def _behind(scene: Scene, filling: Caching, others: Sequence[Pod]) -> Caching:
    """Say for which pods of another fill this one waits, and what helps where they do not end."""
    text = f"another fill of claim {scene.claim_name} ends before {scene.source.text} is brought into it"
    if others:
        text += f": {', '.join(f'pod {pod.name} on node {pod.node}' if pod.node else f'pod {pod.name}' for pod in others)}"
    now = scene.ctx.clock.now()
    stuck = [pod for pod in others if pod.ends_by and (now - parse_rfc3339(pod.ends_by)).total_seconds() >= STUCK_SECONDS]
    if stuck:
        names_of = " ".join(pod.name for pod in stuck)
        text += f". It should have ended long since: where its node is gone for good, `kubectl delete pod {names_of} --force --grace-period=0`"
    again = observe.REFUSED_SECONDS if stuck else observe.LEFTOVER_SECONDS
    return replace(filling, problem=Problem(Reason.CACHE_FILLING, text, needs_user=False), again_seconds=again)


def _is_asked(job: Object, manifest: Object, kept: Sequence[str]) -> bool:
    """Return whether a Job does what is to be done now, and removes nothing that is to be kept."""
    metadata, wanted = job["metadata"], manifest["metadata"]
    made_of = (metadata.get("annotations") or {}).get(names.ANNOTATION_TEMPLATE_HASH)
    same = metadata["name"] == wanted["name"] and made_of == wanted["annotations"][names.ANNOTATION_TEMPLATE_HASH]
    return same and not metadata.get("deletionTimestamp") and set(kept) <= cache.asked(job)[1]


async def _step(scene: Scene, filling: Caching, asked: Asked, job: Object) -> Caching:
    ctx = scene.ctx
    pods = _pods(scene, job)
    running = [pod for pod in pods if (container := pod.container(names.CONTAINER_FILL)) and container.running]
    ctx.fills.watch(scene.key, observe.refs(scene.key.namespace, running))
    found = await _looked(scene, asked, job, pods)
    if found.done:
        added = Held(key=scene.wanted, revision=scene.resolved.revision if scene.resolved else "", bytes=filling.total_bytes or 0)
        held = (*(item for item in filling.held if item.key != scene.wanted), added)
        return replace(filling, phase=CACHED, waiting=False, held=held)
    waits = _unbound(scene, pods)
    if waits is not None and waits <= 0:
        return await _volumeless(scene, filling, job)
    if found.over:
        again = await _again(scene, job, found)
        return replace(filling, phase=FAILED, problem=found.problem, again_seconds=again)
    if not pods and not job_facts(job).suspended:
        problem, again_seconds = without_pod(ctx, job, found.problem)
        return replace(filling, problem=problem, again_seconds=again_seconds)
    said = next((view.status for pod in running if (view := ctx.fills.get(pod.uid)).reachable), None)
    progress = facts.progress(said, scene.wanted)
    phase = FAILED if found.problem and found.problem.needs_user else progress.phase if progress else FILLING
    return replace(filling, phase=phase, progress=progress, problem=found.problem, again_seconds=waits)


def _unbound(scene: Scene, pods: Sequence[Pod]) -> float | None:
    """Return in how many seconds a claim without a volume is news; None if the fill does not wait for one."""
    since = unbound_since(scene.claim or {}, pods) if scene.claim is not None else ""
    if not since:
        return None
    return UNBOUND_SECONDS - (scene.ctx.clock.now() - parse_rfc3339(since)).total_seconds()


async def _volumeless(scene: Scene, filling: Caching, job: Object) -> Caching:
    """Say that no volume is found for the claim, or, where it is our choice to make still, do without a shared cache."""
    found = scene.classes(await scene.ctx.cluster.list("StorageClass", None))
    text = f"claim {scene.claim_name} (ReadWriteMany) has had no volume for {UNBOUND_SECONDS / 60:.0f} minutes{f', of {found}' if found else ''}"
    if scene.deployment.spec.cache.mode == "auto" and not scene.frozen:
        await end(scene, [job])
        scene.ctx.fills.watch(scene.key, [])
        scene.ctx.events.record(scene.obj, str(Reason.CACHE_FALLBACK), f"{text}: each pod downloads the model for itself", warning=True)
        return Caching("PerPod", text, claim_uid=filling.claim_uid, held=filling.held)
    remedy = (
        f"`kubectl describe pvc {scene.claim_name}` says why; use a class with ReadWriteMany in spec.cache.storageClass, or set spec.cache.mode to "
        "PerPod"
    )
    return replace(filling, problem=Problem(Reason.CACHE_NOT_SHARED, f"{text}: {remedy}"), again_seconds=observe.REFUSED_SECONDS)


async def _again(scene: Scene, job: Object, found: Stand) -> float | None:
    """Make room for another Job after a pause, where that can help; return when to look again."""
    if found.problem is None or (found.problem.needs_user and found.problem.reason is not Reason.DISK_FULL):
        return None
    failed_at = job_facts(job).failed_at
    if failed_at:
        left = (parse_rfc3339(failed_at) + timedelta(seconds=PAUSE_SECONDS) - scene.ctx.clock.now()).total_seconds()
        if left > 0:
            return left
    await end(scene, [job])
    return observe.LEFTOVER_SECONDS


def _look(scene: Scene, job: Object) -> Stand:
    return stand(Asked("", scene.claim_name, job["metadata"]["name"], ""), job_facts(job), _pods(scene, job))


async def _looked(scene: Scene, asked: Asked, job: Object, pods: Sequence[Pod]) -> Stand:
    """Return how it stands; what looks like an end without a result is looked at again in the pods as they are, not as they were told."""
    found = stand(asked, job_facts(job), pods)
    if found.over and not found.done:
        listed = await scene.ctx.cluster.list("Pod", scene.key.namespace, {names.LABEL_FILLS: scene.key.name})
        found = stand(asked, job_facts(job), [pod for item in listed if (pod := pod_facts.pod(item)).controller == job["metadata"]["uid"]])
    return found


def _pods(scene: Scene, job: Object | None) -> list[Pod]:
    """Return the pods of a fill Job; None: those of any that are not over."""
    found = observe.pods(scene.ctx, scene.key.namespace, {names.LABEL_FILLS: scene.key.name})
    if job is None:
        return [pod for pod in found if pod.phase not in ("Failed", "Succeeded")]
    return [pod for pod in found if pod.controller == job["metadata"]["uid"]]
