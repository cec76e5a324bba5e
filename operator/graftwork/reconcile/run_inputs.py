"""What a run reads from, resolved before its Job is made; and what speaks against making it."""

from __future__ import annotations

from graftwork.api import FineTuneJob, InvalidObjectError, LLMDeployment
from graftwork.facts.problem import Problem
from graftwork.plan import publish, sources
from graftwork.plan.adapters import matches
from graftwork.plan.sources import Source
from graftwork.plan.training import Inputs
from graftwork.reasons import Reason
from graftwork.reconcile import observe, resolving
from graftwork.reconcile.context import Context


async def resolve(ctx: Context, job: FineTuneJob) -> Inputs | Problem:
    """Return where the run reads from; or the first problem: hours of training for a result that cannot be served help nobody."""
    namespace, spec = job.metadata.namespace, job.spec
    store = await observe.store_problem(ctx, namespace)
    if store:
        return store
    deployment = _deployment(ctx, job)
    if isinstance(deployment, Problem):
        return deployment
    if deployment:
        field, model, secret = f"spec.model.source of LLMDeployment {namespace}/{spec.deployment_ref}", deployment.spec.model.source, ""
        secret = deployment.spec.model.credentials_secret
    else:
        assert spec.base_model is not None
        field, model, secret = "spec.baseModel.source", spec.base_model.source, spec.base_model.credentials_secret
    base = _base(field, model, deployment)
    if isinstance(base, Problem):
        return base
    dataset = sources.parse("spec.dataset.source", spec.dataset.source, sources.DATASET_KINDS)
    if isinstance(dataset, Problem):
        return dataset
    problem = await _dataset_problem(ctx, namespace, dataset) or (_unservable(ctx, job, deployment) if deployment else None)
    return problem or Inputs(base=base, base_secret=secret, dataset=dataset)


def _base(field: str, text: str, deployment: LLMDeployment | None) -> Source | Problem:
    """Return where the base is: of a deployment of a hub's repository the commit that it serves, wherever the branch has moved since."""
    base = sources.parse(field, text, sources.MODEL_KINDS if deployment else sources.BASE_KINDS)
    if isinstance(base, Problem) or not (deployment and base.versioned):
        return base
    resolved = resolving.frozen(deployment)
    return resolved if isinstance(resolved, Problem) else sources.pinned(base, resolved.revision)


def _deployment(ctx: Context, job: FineTuneJob) -> LLMDeployment | Problem | None:
    """Return the LLMDeployment that deploymentRef names; None where a base model is named instead."""
    reference, namespace = job.spec.deployment_ref, job.metadata.namespace
    if reference is None:
        return None
    obj = ctx.mirror.get("LLMDeployment", namespace, reference)
    if obj is None:
        text = f"spec.deploymentRef names LLMDeployment {reference!r}, which is not in namespace {namespace}; the run starts when it is there"
        return Problem(Reason.DEPLOYMENT_NOT_FOUND, text, needs_user=False)
    try:
        return LLMDeployment.from_object(obj)
    except InvalidObjectError as error:
        return Problem(Reason.INVALID_SPEC, f"LLMDeployment {namespace}/{reference} that spec.deploymentRef names cannot be read: {error}")


async def _dataset_problem(ctx: Context, namespace: str, dataset: Source) -> Problem | None:
    """Return what is wrong with a ConfigMap: a pod that mounts what is not there would wait without a word."""
    if dataset.kind != "configMap":
        return None
    config_map = await ctx.cluster.get("ConfigMap", namespace, dataset.name)
    if config_map is None:
        text = f"spec.dataset.source is {dataset.text!r}, and there is no ConfigMap {dataset.name!r} in namespace {namespace}; create it"
        return Problem(Reason.SOURCE_NOT_FOUND, text)
    keys = sorted([*(config_map.get("data") or {}), *(config_map.get("binaryData") or {})])
    if dataset.path in keys:
        return None
    text = f"spec.dataset.source is {dataset.text!r}, and ConfigMap {dataset.name!r} has no key {dataset.path!r}; it has {', '.join(keys) or 'none'}"
    return Problem(Reason.SOURCE_NOT_FOUND, text)


def _unservable(ctx: Context, job: FineTuneJob, deployment: LLMDeployment) -> Problem | None:
    """Return why the deployment that is trained for would refuse the adapter, as far as that is known before training."""
    alias, rank, rules = job.spec.publish.alias, job.spec.lora.rank, observe.rules(deployment)
    where = f"LLMDeployment {rules.namespace}/{rules.deployment}"
    if not matches(rules.match_labels, job.spec.publish.labels):
        return None  # it is published for somebody else
    if rank > rules.max_rank and not rules.rank_auto:
        text = f"spec.lora.rank is {rank}, and adapters.maxRank of {where} is {rules.max_rank}; raise adapters.maxRank or train with a lower rank"
        return Problem(Reason.RANK_TOO_HIGH, text)
    if alias == rules.served_name:
        text = f"spec.publish.alias {alias!r} is the served name of {where}; publish under another alias"
        return Problem(Reason.ALIAS_TAKEN, text)
    served = {row.get("alias"): row.get("stable") for row in deployment.status.get("adapters") or []}
    for adapter in observe.adapters(ctx, job.metadata.namespace):
        if adapter.name == served.get(alias) and not adapter.deleting and adapter.lineage != publish.lineage_of(job):
            text = (
                f"spec.publish.alias {alias!r} belongs to lineage {adapter.lineage!r} in {where} (LoRAAdapter {adapter.name}); publish under "
                f"another alias, or set spec.publish.owner to {adapter.lineage} to publish its next version"
            )
            return Problem(Reason.ALIAS_TAKEN, text)
    return None
