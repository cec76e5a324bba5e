"""FineTuneJob: make its Job once, follow the run, publish what it made, write the status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork import names
from graftwork.api import FineTuneJob, InvalidObjectError
from graftwork.errors import AlreadyExists, Forbidden, Invalid, NameTaken
from graftwork.facts import pods as pod_facts
from graftwork.facts.pods import Pod
from graftwork.facts.problem import Problem
from graftwork.facts.result import Result as RunResult
from graftwork.plan import publish, training
from graftwork.plan.pods import meant
from graftwork.reasons import Reason
from graftwork.reconcile import observe
from graftwork.reconcile.announce import announce
from graftwork.reconcile.children import apply_children
from graftwork.reconcile.context import Context, Key, Object, Result
from graftwork.reconcile.objects import is_deleting, write_status
from graftwork.reconcile.run_inputs import resolve
from graftwork.status import conditions
from graftwork.status import training as training_status

BLOCKED_SECONDS = 15.0
_RETRY_SECONDS = {Reason.PROGRESSING: observe.LEFTOVER_SECONDS, Reason.RECONCILE_FAILED: observe.REFUSED_SECONDS}
_PUBLISH_ATTEMPTS = 5


class FineTuneJobReconciler:
    """One pass for one FineTuneJob."""

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Bring the run one step further. A run that has ended is never looked at again: its status is the truth about it."""
        obj = ctx.mirror.get(key.kind, key.namespace, key.name)
        if obj is None or is_deleting(obj):  # the Job goes by its owner reference; what was published stays
            ctx.trainers.watch(key, [])
            return Result(gone=obj is None)
        if (obj.get("status") or {}).get("phase") in training_status.TERMINAL:
            ctx.trainers.watch(key, [])
            await write_status(ctx, obj, _again(obj))
            return Result()
        try:
            job = FineTuneJob.from_object(obj)
        except InvalidObjectError as error:
            return await _write(key, ctx, obj, None, Problem(Reason.INVALID_SPEC, str(error)))
        return await _follow(key, ctx, obj, job)


def _again(obj: Object) -> dict[str, Any]:
    """Return the status of an ended run for the present generation."""
    status, generation = obj["status"], obj["metadata"].get("generation", 0)
    told = [{**condition, "observedGeneration": generation} for condition in status.get("conditions") or []]
    return {**status, "observedGeneration": generation, "conditions": told}


async def _follow(key: Key, ctx: Context, obj: Object, job: FineTuneJob) -> Result:
    number, live = _run(ctx, obj)
    problem: Problem | None = None
    if live is None and not _published(ctx, obj):
        try:
            live, problem = await _start(ctx, obj, job, number)
        except NameTaken as error:
            problem = observe.name_taken(key, error)
        except Invalid as error:
            problem = Problem(Reason.INVALID_SPEC, f"the API server refuses the Job that the spec asks for: {error}")
        except Forbidden as error:
            problem = observe.refused(error)
    return await _write(key, ctx, obj, job, problem, number=number, live=live)


def _run(ctx: Context, obj: Object) -> tuple[int, Object | None]:
    """Return the number of the present run and its Job; a Job that somebody deleted while it ran is followed by another run."""
    metadata = obj["metadata"]
    number = int((obj.get("status") or {}).get("run") or 0)
    while True:
        live = ctx.mirror.get("Job", metadata["namespace"], names.run_job(metadata["name"], max(1, number)))
        if live is not None and (live["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID) != metadata["uid"]:
            live = None
        if live is not None or number == 0:
            return max(1, number), live
        following = ctx.mirror.get("Job", metadata["namespace"], names.run_job(metadata["name"], number + 1))
        return number + 1, following


def _published(ctx: Context, obj: Object) -> str:
    """Return the LoRAAdapter that this run published already, if it did."""
    metadata = obj["metadata"]
    found = ctx.mirror.list("LoRAAdapter", metadata["namespace"], {names.LABEL_PUBLISHED_BY: metadata["uid"]})
    return str(found[0]["metadata"]["name"]) if found else ""


async def _start(ctx: Context, obj: Object, job: FineTuneJob, number: int) -> tuple[Object | None, Problem | None]:
    """Create the Job, unless something speaks against it or the run is suspended."""
    inputs = await resolve(ctx, job)
    if isinstance(inputs, Problem):
        return None, inputs
    if job.spec.suspend:
        return None, None
    manifest = training.run_job(job, inputs, number, ctx.config)
    outcome = await apply_children(ctx, obj, [manifest], prune_kinds=())
    return outcome.live["Job", manifest["metadata"]["name"]], None


async def _write(
    key: Key,
    ctx: Context,
    obj: Object,
    job: FineTuneJob | None,
    problem: Problem | None,
    *,
    number: int = 1,
    live: Object | None = None,
) -> Result:
    """Follow what was found to its end, and write the status."""
    pods = _of_run(observe.pods(ctx, key.namespace, {names.LABEL_JOB: key.name}), live)
    running = [pod for pod in pods if (trainer := pod.container(names.CONTAINER_TRAINER)) and trainer.running]
    ctx.trainers.watch(key, observe.refs(key.namespace, running))
    facts = training_status.job_facts(live)
    ending = training_status.ending(facts, pods)
    if ending and ending.phase == "Failed":  # for ever, and the watch of Jobs can be ahead of that of pods: look at the pods as they are
        pods = _of_run([pod_facts.pod(item) for item in await ctx.cluster.list("Pod", key.namespace, {names.LABEL_JOB: key.name})], live)
        ending = training_status.ending(facts, pods)
    adapter = _published(ctx, obj)
    if job and adapter and (not ending or ending.phase == "Failed"):  # it was published, whatever became of its Job and pod since
        ending = training_status.Ending("Succeeded", Reason.PUBLISHED, "", observe.now(ctx))
    elif job and live and not adapter:
        try:
            adapter = await _act(ctx, job, live, number, ending)
        except (Forbidden, Invalid) as error:
            problem = observe.refused(error)
        except AlreadyExists as error:
            problem = Problem(Reason.NAME_TAKEN, str(error), needs_user=False)
    status = training_status.status(
        training_status.Observed(
            generation=obj["metadata"].get("generation", 0),
            run=number,
            suspend=bool(job and job.spec.suspend),
            job=facts,
            pods=pods,
            progress=_progress(ctx, running),
            ending=ending,
            adapter=adapter,
            problem=problem,
            before=obj.get("status") or {},
            now=observe.now(ctx),
            retry_limit=job.spec.retry.limit if job else 0,
        )
    )
    await write_status(ctx, obj, status)
    announce(ctx, obj, status)
    stalled = conditions.find(status["conditions"], conditions.STALLED).get("status") == "True"
    if problem:
        return Result(requeue_after_seconds=_RETRY_SECONDS.get(problem.reason, BLOCKED_SECONDS))
    return Result(requeue_after_seconds=BLOCKED_SECONDS if stalled and not ending else None)


def _of_run(pods: Sequence[Pod], live: Object | None) -> list[Pod]:
    return [pod for pod in pods if live and pod.controller == live["metadata"]["uid"]]


def _progress(ctx: Context, running: Sequence[Pod]) -> Mapping[str, Any] | None:
    for pod in running:
        view = ctx.trainers.get(pod.uid)
        if view.reachable and view.status:
            return view.status
    return None


async def _act(ctx: Context, job: FineTuneJob, live: Object, number: int, ending: training_status.Ending | None) -> str:
    """Publish what a good run made and return the LoRAAdapter's name; while the run goes on, bring its Job what may change."""
    if ending is None:
        await _keep_mutable(ctx, job, live)
    elif ending.result and ending.phase == "Succeeded":
        return await _publish(ctx, job, ending.result, live, number)
    return ""


async def _keep_mutable(ctx: Context, job: FineTuneJob, live: Object) -> None:
    """Bring suspend, retry.limit and timeLimit to the Job, where they differ; nothing else of it ever changes."""
    wanted = training.mutable_fields(job)
    if all(live["spec"].get(field) == value for field, value in wanted.items()):
        return
    metadata = {"name": live["metadata"]["name"], "namespace": live["metadata"]["namespace"]}
    await ctx.cluster.apply({"apiVersion": live["apiVersion"], "kind": "Job", "metadata": metadata, "spec": wanted})


async def _publish(ctx: Context, job: FineTuneJob, result: RunResult, live: Object, number: int) -> str:
    """Create the LoRAAdapter under the next free version, once: the label with our uid tells that it was done.

    Names that are known to be taken are passed over. Raises AlreadyExists when others that were not known took the next few.
    """
    namespace, alias = job.metadata.namespace, job.spec.publish.alias
    taken = {item["metadata"]["name"] for item in ctx.mirror.list("LoRAAdapter", namespace)}
    first = publish.next_version(alias, observe.adapters(ctx, namespace))
    free = [version for version in range(first, first + len(taken) + _PUBLISH_ATTEMPTS) if names.adapter(alias, version) not in taken]
    tried = free[:_PUBLISH_ATTEMPTS]
    for version in tried:
        manifest = publish.lora_adapter(job, result, _base_source(live), number, version)
        try:
            await ctx.cluster.create(manifest)
            return names.adapter(alias, version)
        except AlreadyExists:
            # By list, a right that the operator has anyway: an earlier create of ours may have been done without its answer arriving.
            mine = await ctx.cluster.list("LoRAAdapter", namespace, {names.LABEL_PUBLISHED_BY: job.metadata.uid})
            if mine:
                return str(mine[0]["metadata"]["name"])
    held = ", ".join(names.adapter(alias, version) for version in tried)
    raise AlreadyExists(f"the trained adapter waits in the store for a name: LoRAAdapters {held} are taken by others; it is tried again")


def _base_source(live: Object) -> str:
    """Return the base that this run trained on, as its Job was told (the deployment may serve another one by now)."""
    for container in live["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env") or []:
            if variable["name"] == "GRAFTWORK_RUN":
                return str(json.loads(meant(variable["value"]))["base"]["source"])
    return ""
