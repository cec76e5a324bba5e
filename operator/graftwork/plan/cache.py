"""The shared cache of an LLMDeployment: whether there is one, its claim, the Job that fills it, what must stay (contracts.md, section 7d)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.api.common import PodSettings
from graftwork.config import Config
from graftwork.facts.cached import DEADLINE_SECONDS, RETRIES, Mode
from graftwork.facts.inspected import Resolved
from graftwork.facts.problem import Problem
from graftwork.facts.quantity import quantity
from graftwork.plan import credentials, identity, jobs, pods
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source
from graftwork.plan.storage_classes import StorageClass
from graftwork.reasons import Reason

API_VERSION = "graftwork.dev/fill/v1"
DOCUMENT = "GRAFTWORK_FILL"
CACHE = "/cache"
VOLUME = "model"
"""The volume of serving pods that their model is in, wherever it lies."""
MODELS, COMPILED = "models", "compile"
GIB = 2**30
MARGIN = 1.1
COMPILED_BYTES = 2 * GIB
"""Room for what vLLM compiles; there is none on CPUs."""
_TO_GPUS: Manifest = {"key": "nvidia.com/gpu", "operator": "Exists"}
_SUB_PATH = re.compile(rf"{MODELS}/([0-9a-f]{{12}})")


@dataclass(frozen=True)
class Cached:
    """Where pods find a revision of the model."""

    claim: str
    key: str

    @property
    def sub_path(self) -> str:
        """The revision's folder in the claim."""
        return f"{MODELS}/{self.key}"


@dataclass(frozen=True)
class Decision:
    """How the weights come to pods. With a problem they do not: it says what somebody must change."""

    mode: Mode
    why: str
    problem: Problem | None = None


def key(source: str, revision: str) -> str:
    """Return under which name a revision of a source lies in a claim."""
    return hashlib.sha256(json.dumps([source, revision], separators=(",", ":")).encode()).hexdigest()[:12]


def decide(deployment: LLMDeployment, source: Source, resolved: Resolved | None, found: StorageClass | None, *, bound: bool = False) -> Decision:
    """Return how the weights come to pods of a template that is made now. `bound`: the claim exists and has a volume that nodes share."""
    cache = deployment.spec.cache
    if source.kind == "pvc":
        return Decision("None", f"claim {source.name} of the source is mounted as it is")
    if cache.mode == "PerPod":
        return Decision("PerPod", "as spec.cache.mode says")
    if cache.mode == "Shared":
        return Decision("Shared", "as spec.cache.mode says", _refusal(deployment, resolved, found, bound=bound))
    if resolved is None:
        return Decision("PerPod", f"it is not known how large {source.text} is, and so neither how large a claim would have to be")
    if bound:
        return Decision("Shared", f"claim {names.cache_claim(deployment.metadata.name)} is there, with a volume that several nodes can mount")
    return _by_class(cache.storage_class, found)


def _by_class(wanted: str, found: StorageClass | None) -> Decision:
    if found is None:
        return Decision("PerPod", f"there is no StorageClass {wanted}" if wanted else "the cluster has no default StorageClass")
    if found.shared is None:
        return Decision(
            "PerPod",
            f"it is not known whether several nodes can mount a volume of {found}: if so, set spec.cache.mode to Shared, or name the class in "
            "cache.sharedClasses of the chart",
        )
    return (
        Decision("Shared", f"several nodes can mount a volume of {found}")
        if found.shared
        else Decision("PerPod", f"one node only can mount a volume of {found}")
    )


def _refusal(deployment: LLMDeployment, resolved: Resolved | None, found: StorageClass | None, *, bound: bool) -> Problem | None:
    cache = deployment.spec.cache
    if resolved is None:
        text = (
            f"spec.cache.mode is Shared, and it is not known how large {deployment.spec.model.source} is; let it be looked up: "
            f"`kubectl annotate llmd {deployment.metadata.name} {names.ANNOTATION_REFRESH}=$(date +%s) --overwrite`"
        )
        return Problem(Reason.CACHE_FAILED, text)
    if found and found.shared is False and not bound:
        return Problem(
            Reason.CACHE_NOT_SHARED,
            f"spec.cache.mode is Shared, and one node only can mount a volume of {found}: set spec.cache.storageClass to a class with ReadWriteMany "
            "(a file share such as NFS, EFS, Filestore, Azure Files or CephFS), or spec.cache.mode to PerPod. If the class can do it all the same, "
            "name it in cache.sharedClasses of the chart",
        )
    if found is None and not cache.storage_class and not bound:
        text = "spec.cache.mode is Shared, and the cluster has no default StorageClass: name one with ReadWriteMany in spec.cache.storageClass"
        return Problem(Reason.CACHE_NOT_SHARED, text)
    return None


def frozen(template: Mapping[str, Any], source: Source, claim: str) -> Mode:
    """Return how the weights come to pods of a template that was made before."""
    if source.kind == "pvc":
        return "None"
    return "Shared" if mounted(template.get("spec") or {}, claim) else "PerPod"


def mounted(pod_spec: Mapping[str, Any], claim: str) -> str:
    """Return the key of the revision that a pod's spec mounts from the claim; empty if none."""
    volumes = {
        item["name"] for item in pod_spec.get("volumes") or [] if (item.get("persistentVolumeClaim") or {}).get("claimName") == claim and claim
    }
    paths = [
        str(mount.get("subPath") or "")
        for container in pod_spec.get("containers") or []
        for mount in container.get("volumeMounts") or []
        if mount.get("name") in volumes
    ]
    return next((found[1] for path in paths if (found := _SUB_PATH.fullmatch(path))), "")


def stored_models(stored: Iterable[Manifest], claim: str) -> dict[str, int]:
    """Return the bytes of the revisions of the model that stored templates mount from the claim, by key, the newest first."""
    found: dict[str, int] = {}
    for item in sorted(stored, key=lambda item: int(item.get("revision") or 0), reverse=True):
        data = item.get("data") or {}
        name = mounted((data.get("template") or {}).get("spec") or {}, claim)
        model = Resolved.from_object(data.get("model"))
        if name and name not in found:
            found[name] = model.files.bytes if model else 0
    return found


def keep(wanted: str, known: Iterable[str], used: Collection[str], number: int) -> list[str]:
    """Return the keys that a fill must not remove: the wanted one, the newest `number` with it, and whatever is used or may be gone back to."""
    newest = list(dict.fromkeys([wanted, *known]))[:number]
    return sorted({wanted, *newest, *(name for name in used if name)})


def size_bytes(deployment: LLMDeployment, wanted_bytes: int, kept: Sequence[int]) -> int:
    """Return how large the claim is to be: as the spec says, or room for the revisions that stay. `kept` has the sizes of all that stay."""
    cache = deployment.spec.cache
    if cache.size != "auto":
        return int(quantity(cache.size) or 0)
    missing = max(0, cache.keep - len(kept))
    room = (sum(kept) + missing * wanted_bytes) * MARGIN + (0 if deployment.spec.accelerator.cpu else COMPILED_BYTES)
    return max(1, math.ceil(room / GIB)) * GIB


def room_problem(deployment: LLMDeployment, wanted_bytes: int) -> Problem | None:
    """Return what is wrong with a size that not even the wanted revision fits into."""
    cache = deployment.spec.cache
    if cache.size == "auto" or (quantity(cache.size) or 0) >= wanted_bytes:
        return None
    least = shown(math.ceil(wanted_bytes * MARGIN))
    text = f"spec.cache.size is {cache.size}, and the model has {wanted_bytes} bytes; set it to {least} or more, or auto"
    return Problem(Reason.DISK_FULL, text)


def shown(size: int) -> str:
    """Return a size as a quantity in whole GiB."""
    return f"{math.ceil(size / GIB)}Gi"


def claim(deployment: LLMDeployment, size: str, storage_class: str) -> Manifest:
    """Return the claim of that size."""
    name = deployment.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": names.cache_claim(name), "labels": {names.LABEL_DEPLOYMENT: name}},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            **({"storageClassName": storage_class} if storage_class else {}),
            "resources": {"requests": {"storage": size}},
        },
    }


def fill_document(deployment: LLMDeployment, source: Source, resolved: Resolved, kept: Sequence[str]) -> dict[str, Any]:
    """Return what the fill container gets as GRAFTWORK_FILL; `source` is pinned to the revision."""
    files = resolved.files
    return {
        "apiVersion": API_VERSION,
        "deployment": {"namespace": deployment.metadata.namespace, "name": deployment.metadata.name},
        "source": source.text,
        "revision": resolved.revision,
        "key": key(resolved.source, resolved.revision),
        "files": {"count": files.count, "bytes": files.bytes, "digest": files.digest},
        "keep": list(kept),
        "to": CACHE,
        "progressPort": names.PORT_FILL,
    }


def fill_job(deployment: LLMDeployment, source: Source, resolved: Resolved, kept: Sequence[str], config: Config, *, claim_uid: str) -> Manifest:
    """Return the Job. It runs where the pods will, so that a volume is made where they can reach it; nothing else has the source's credentials.

    Its hash is of everything by which one such Job differs from another, but what is to be kept: that changes while it runs. `claim_uid` tells the
    claim that it fills from one of the same name that is made when that is gone, and by the source's key one that is asked for anew
    (graftwork.dev/refresh) is tried again, though another attempt did not help.
    """
    made = _job(deployment, fill_document(deployment, source, resolved, kept), source, config)
    plain = _job(deployment, fill_document(deployment, source, resolved, ()), source, config)
    made_of = hashlib.sha256(json.dumps([plain["spec"], claim_uid, resolved.key], sort_keys=True).encode()).hexdigest()[:16]
    made["metadata"]["annotations"] = {names.ANNOTATION_TEMPLATE_HASH: made_of, names.ANNOTATION_CLAIM_UID: claim_uid}
    return made


def _job(deployment: LLMDeployment, document: Mapping[str, Any], source: Source, config: Config) -> Manifest:
    name = deployment.metadata.name
    return jobs.job(
        {"name": names.fill_job(name, document["key"]), "labels": {names.LABEL_FILLS: name}},
        template={"labels": pods.pod_labels(PodSettings(), "fill", name, names.LABEL_FILLS)},
        containers=[_fill(deployment, source, document, config)],
        pod={
            "volumes": [
                {"name": "cache", "persistentVolumeClaim": {"claimName": names.cache_claim(name)}},
                pods.empty("scratch"),
                *credentials.model_volumes(source, deployment.spec.model.credentials_secret),
            ],
            **identity.of_job(deployment),
            **_placement(deployment),
        },
        backoffLimit=RETRIES,
        activeDeadlineSeconds=DEADLINE_SECONDS,
    )


def _placement(deployment: LLMDeployment) -> Manifest:
    """Return where the fill may run: where the pods may. Clusters let those onto nodes with GPUs because they ask for some; a fill asks for none."""
    fields = pods.placement(deployment.spec.pod)
    given = fields.get("tolerations", [])
    if not deployment.spec.accelerator.gpus or _TO_GPUS in given:
        return fields
    return {**fields, "tolerations": [*given, _TO_GPUS]}


def _fill(deployment: LLMDeployment, source: Source, document: Mapping[str, Any], config: Config) -> Manifest:
    secret = deployment.spec.model.credentials_secret
    return pods.container(
        names.CONTAINER_FILL,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["fill"],
        ports=[{"name": "progress", "containerPort": names.PORT_FILL, "protocol": "TCP"}],
        env=[pods.env(DOCUMENT, json.dumps(document, separators=(",", ":"))), *identity.job_env(deployment, source, config)],
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount("cache", CACHE), pods.mount("scratch", "/tmp"), *credentials.model_mounts(source, secret)],
    )


def asked(job: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """Return the key that a fill Job brings, and those that it does not remove, its own among them; nothing where it cannot be read."""
    containers = (((job.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or []
    texts = [item.get("value") or "" for each in containers for item in each.get("env") or [] if item.get("name") == DOCUMENT]
    try:
        document = json.loads(pods.meant(texts[0]))
        return str(document["key"]), frozenset([*document["keep"], document["key"]])
    except (IndexError, KeyError, TypeError, ValueError):
        return "", frozenset()
