"""What a pass for a shared cache looks at, and its claim: made when its size is known, and grown where its class allows that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.cluster.kinds import key_of
from graftwork.facts.inspected import Resolved
from graftwork.facts.problem import Problem
from graftwork.facts.quantity import quantity
from graftwork.plan import cache, revisions, sources, storage_classes
from graftwork.plan.sources import Source
from graftwork.plan.storage_classes import StorageClass
from graftwork.reasons import Reason
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Key, Object
from graftwork.status.training import job_facts


@dataclass(frozen=True)
class Scene:
    """What one pass for a shared cache is about. `stored` has the deployment's ControllerRevisions, `jobs` its fill Jobs."""

    ctx: Context
    key: Key
    obj: Object
    deployment: LLMDeployment
    source: Source
    resolved: Resolved | None
    stored: Sequence[Object]
    jobs: Sequence[Object]
    claim: Object | None
    """The claim as it is; None if there is none, or it is being deleted."""
    wanted: str
    """The key of the revision that the spec asks for."""
    applied: str
    """The template hash of what the Deployment has."""
    frozen: bool = False
    """Whether a stored template of the spec says how the weights come to its pods: that is not decided any more."""

    @property
    def claim_name(self) -> str:
        """Its name."""
        return names.cache_claim(self.key.name)

    @property
    def claim_uid(self) -> str:
        """Its uid; empty if there is none."""
        return str(self.claim["metadata"]["uid"]) if self.claim is not None else ""

    @property
    def bound(self) -> bool:
        """Whether the claim has a volume that several nodes can mount."""
        return self.has_volume and "ReadWriteMany" in (((self.claim or {}).get("status") or {}).get("accessModes") or [])

    @property
    def has_volume(self) -> bool:
        """Whether the claim has a volume: before, the API server changes nothing of it."""
        return self.claim_phase == "Bound"

    @property
    def claim_phase(self) -> str:
        """Its phase, if it has one yet."""
        return str(((self.claim or {}).get("status") or {}).get("phase") or "")

    @property
    def claim_class(self) -> str:
        """The class that the claim has, which never changes; empty if it has none, or is not there."""
        return str(((self.claim or {}).get("spec") or {}).get("storageClassName") or "")

    def classes(self, found: Sequence[Object]) -> StorageClass | None:
        """Return the class of the claim, or the one that it would get."""
        return storage_classes.find(found, self.claim_class or self.deployment.spec.cache.storage_class, self.ctx.config.cache)


def gather(ctx: Context, obj: Object, deployment: LLMDeployment, source: Source, resolved: Resolved | None) -> Scene:
    """Return what the mirror knows of the cache."""
    key, own = key_of(obj), {names.LABEL_OWNER_UID: obj["metadata"]["uid"]}
    claim = ctx.mirror.get("PersistentVolumeClaim", key.namespace, names.cache_claim(key.name))
    live = ctx.mirror.get("Deployment", key.namespace, key.name) or {}
    if claim and claim["metadata"].get("deletionTimestamp"):
        claim = None
    return Scene(
        ctx,
        key,
        obj,
        deployment,
        sources.pinned(source, resolved.revision) if resolved and source.versioned else source,
        resolved,
        stored=ctx.mirror.list("ControllerRevision", key.namespace, own),
        jobs=[job for job in ctx.mirror.list("Job", key.namespace, own) if names.LABEL_FILLS in (job["metadata"].get("labels") or {})],
        claim=claim,
        wanted=cache.key(resolved.source, resolved.revision) if resolved else "",
        applied=revisions.stored_hash((live.get("spec") or {}).get("template") or {"metadata": {}}),
    )


def class_problem(scene: Scene) -> Problem | None:
    """Return what is wrong where the spec names another class than the claim has."""
    wanted, present = scene.deployment.spec.cache.storage_class, scene.claim_class
    if not wanted or not present or wanted == present:
        return None
    text = (
        f"spec.cache.storageClass is {wanted}, and claim {scene.claim_name} has class {present}, which never changes: set it back, or, with "
        "spec.replicas 0, delete the claim, which is made anew and filled again; wait for ModelCached before you set spec.replicas back"
    )
    return Problem(Reason.INVALID_SPEC, text)


@dataclass(frozen=True)
class Ensured:
    """The claim as it is asked for; `remedy` says what helps where its size is not enough."""

    uid: str
    size_bytes: int
    remedy: str


async def ensure(scene: Scene, sizes: Sequence[int]) -> Ensured:
    """Make the claim, or let it grow where its class allows that."""
    deployment = scene.deployment
    wanted = cache.size_bytes(deployment, scene.resolved.files.bytes if scene.resolved else 0, sizes)
    request = str(_requested(scene.claim) or "")
    present = int(quantity(request) or 0)
    remedy = f"Set spec.cache.size to {cache.shown(max(wanted, present) + max(sizes, default=0) + cache.GIB)} or more"
    grows = True
    if scene.claim is not None and not scene.has_volume:
        grows = False  # it is asked again as soon as it has one
    elif scene.claim is not None and wanted > present:
        found = scene.classes(await scene.ctx.cluster.list("StorageClass", None))
        grows = bool(found and found.expandable)
        if not grows:
            remedy = (
                f"The claim has {request}, {cache.shown(wanted)} are needed, and {found or 'its class'} lets no claim grow: lower spec.cache.keep, "
                f"or, with spec.replicas 0, delete claim {scene.claim_name}: it is made anew with {cache.shown(wanted)} and filled "
                "again; wait for ModelCached before you set spec.replicas back"
            )
    size = cache.shown(wanted) if deployment.spec.cache.size == "auto" else str(deployment.spec.cache.size)
    if scene.claim is not None and (wanted <= present or not grows):
        size = request
    storage_class = scene.claim_class or ("" if scene.has_volume else deployment.spec.cache.storage_class)
    manifest = cache.claim(deployment, size, storage_class)
    outcome = await apply_children(scene.ctx, scene.obj, [manifest], prune_kinds=())
    if size != request and request:  # what had no room may have it now
        await end(scene, [job for job in scene.jobs if job_facts(job).failed])
    uid = str(outcome.live["PersistentVolumeClaim", scene.claim_name]["metadata"]["uid"])
    return Ensured(uid, int(quantity(size) or 0), remedy)


def _requested(claim: Object | None) -> object:
    return ((((claim or {}).get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")


async def end(scene: Scene, jobs: Sequence[Object]) -> None:
    """Delete fill Jobs; what they fetched stays in the claim."""
    for job in jobs:
        if not job["metadata"].get("deletionTimestamp"):
            await scene.ctx.cluster.delete("Job", scene.key.namespace, job["metadata"]["name"], uid=job["metadata"]["uid"])
