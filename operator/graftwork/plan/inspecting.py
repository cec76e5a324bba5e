"""The Kubernetes Job that says what a model is before any pod is made for it (contracts.md, section 7c). It is created once."""

from __future__ import annotations

import hashlib
import json

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.common import PodSettings
from graftwork.config import Config
from graftwork.facts.inspected import DEADLINE_SECONDS, KEPT_SECONDS, RETRIES, answered
from graftwork.plan import credentials, identity, jobs, pods, revisions
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source, pinned


def refresh(deployment: LLMDeployment) -> str:
    """Return the text of `graftwork.dev/refresh` that holds: the one that was answered last where there is none.

    An annotation that goes (`kubectl replace`, a GitOps tool that keeps to its manifests) asks for nothing.
    """
    return deployment.metadata.annotations.get(names.ANNOTATION_REFRESH) or answered(deployment.status)


def key(deployment: LLMDeployment) -> str:
    """Return the hash of everything whose change makes the source looked up again; a branch that moves is none of it."""
    model = deployment.spec.model
    account = [deployment.spec.service_account_name] if deployment.spec.service_account_name else []  # without one, the key is that of before
    text = json.dumps([model.source, model.revision, refresh(deployment), model.credentials_secret, *account], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def inspect_job(deployment: LLMDeployment, source: Source, config: Config) -> Manifest:
    """Return the Job. What another attempt cannot help fails it at once; a source that does not answer is tried again."""
    name, secret = deployment.metadata.name, deployment.spec.model.credentials_secret
    made = jobs.job(
        {"name": names.inspect_job(name, key(deployment)), "labels": {names.LABEL_INSPECTS: name}},
        template={"labels": pods.pod_labels(PodSettings(), "inspect", name, names.LABEL_INSPECTS)},
        containers=[_inspect(deployment, source, config)],
        pod={
            **identity.of_job(deployment),
            "volumes": [pods.empty("scratch"), *credentials.model_volumes(source, secret)],
            **_placement(deployment),
        },
        backoffLimit=RETRIES,
        activeDeadlineSeconds=DEADLINE_SECONDS,
        ttlSecondsAfterFinished=KEPT_SECONDS,
    )
    made["metadata"]["annotations"] = {names.ANNOTATION_TEMPLATE_HASH: _ways(made)}
    return made


def _placement(deployment: LLMDeployment) -> Manifest:
    """Return where it may run: wherever the pods are tolerated, not only where they have to be, or a GPU's node would be started to read a file."""
    placement = pods.placement(deployment.spec.pod)
    placement.pop("nodeSelector", None)
    return placement


def overtaken(live: Manifest, wanted: Manifest) -> bool:
    """Return whether a Job that exists would be made with another image, or with other ways to a node, by the present spec and configuration.

    What was asked for is compared, not what is there: admission may change every Job.
    """
    asked = revisions.stored_hash(live)
    return bool(asked) and asked != revisions.stored_hash(wanted)


def _ways(job: Manifest) -> str:
    spec = job["spec"]["template"]["spec"]
    ways = [spec.get(name) or None for name in ("tolerations", "priorityClassName", "imagePullSecrets")]
    text = json.dumps([*ways, [container["image"] for container in spec["containers"]]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _inspect(deployment: LLMDeployment, source: Source, config: Config) -> Manifest:
    model = deployment.spec.model
    return pods.container(
        names.CONTAINER_INSPECT,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["inspect", "--source", pinned(source, model.revision).text if model.revision else source.text],
        env=identity.job_env(deployment, source, config),
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount("scratch", "/tmp"), *credentials.model_mounts(source, model.credentials_secret)],
    )
