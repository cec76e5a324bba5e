"""The ServiceAccount by which Jobs read a model's source (IRSA, Pod Identity, Workload Identity). A pod that serves never has it."""

from __future__ import annotations

from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.facts.problem import Problem
from graftwork.plan import credentials
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source
from graftwork.reasons import Reason

SHARED, PER_POD = "Shared", "PerPod"


def problem(deployment: LLMDeployment, source: Source, mode: str, config: Config) -> Problem | None:
    """Return what is wrong with `spec.serviceAccountName`; `mode` says who downloads the model: each pod, or one Job for all of them.

    A cloud gives an account to a pod, not to a container: where pods download, the engine, which runs the code of others, would have it too.
    """
    name, allowed = deployment.spec.service_account_name, config.allowed_service_accounts
    field = f"spec.serviceAccountName is {name!r}"
    if not name:
        return None
    if not source.downloaded:
        return Problem(Reason.INVALID_SPEC, f"{field}, and spec.model.source is {source.text}, which is mounted and read by no Job; remove it")
    if name not in ("default", *allowed):
        text = (
            f"{field}, and the operator's configuration does not allow it (allowedServiceAccounts: {', '.join(allowed) or 'empty'}); an "
            "administrator can add it there, or use model.credentialsSecret instead"
        )
        return Problem(Reason.SERVICE_ACCOUNT_NOT_ALLOWED, text)
    if mode != SHARED:
        text = (
            f"{field}, and pods may download {source.text} for themselves (cache.mode is {mode}): the engine would have the account too; set "
            "cache.mode to Shared, with which one Job downloads for all pods, or use model.credentialsSecret instead"
        )
        return Problem(Reason.INVALID_SPEC, text)
    return None


def of_job(deployment: LLMDeployment) -> Manifest:
    """Return what the pod of a Job that reads the source has of it."""
    name = deployment.spec.service_account_name
    return {"serviceAccountName": name} if name else {}


def job_env(deployment: LLMDeployment, source: Source, config: Config) -> list[Manifest]:
    """Return the variables of that pod's container: with an account and no Secret none of the store's keys, which would come before the account."""
    secret = deployment.spec.model.credentials_secret
    if source.kind == "s3" and deployment.spec.service_account_name and not secret:
        return []
    return credentials.model_env(source, secret, config)
