"""What lies in the store and belongs to nobody: an adapter that was deleted, and uploads that were never finished."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from graftwork_store.manifest import parse_source

from tests.e2e.adapters import Bucket
from tests.e2e.outage import configure_operator
from tests.e2e.service import Service
from tests.e2e.spoiled import CONFIG
from tests.harness import install, processes
from tests.harness.kube import Kube

VARIABLE = "GRAFTWORK_CONFIG_STORE__RETAIN_SECONDS"
ALIAS, JOB = "forgotten", "teach-forgotten"
OLD_SECONDS = 2 * 3600  # an unfinished folder stays for an hour at least, whatever the operator was told to retain


@dataclass(frozen=True)
class Unreferenced:
    """Folders of the store: `deleted` was an adapter; `young` and `old` have no manifest, and `old` has had none for two hours."""

    deleted: str
    young: str
    old: str


def begin(service: Service, system: Kube, bucket: Bucket) -> Unreferenced:
    """Leave them in the store of an operator that retains nothing; the first sweep begins at once."""
    kube = service.kube
    configure_operator(system, f"{VARIABLE}=0")
    name = service.teach("marigold", alias=ALIAS, job=JOB)["status"]["adapter"]
    published = kube.get("loraadapter", name)
    assert published
    deleted = parse_source(published["spec"]["source"]).folder
    assert {CONFIG, "manifest.json"} <= bucket.names(deleted)
    young, old = (f"adapters/{kube.namespace}/unfinished/{digit * 12}" for digit in "01")
    for folder in (young, old):
        bucket.put(f"{bucket.url}/{folder}", {CONFIG: b"{}"})
    age(system, bucket, old, OLD_SECONDS)
    kube.delete("finetunejob", JOB)
    kube.delete("loraadapter", name, timeout=60)
    return Unreferenced(deleted, young, old)


def end(system: Kube, bucket: Bucket, found: Unreferenced) -> None:
    """Let the operator retain what it retained before, and take away what it would find only in a week."""
    if system.get("deployment", install.RELEASE):
        configure_operator(system, f"{VARIABLE}-")
        bucket.remove(found.young)


def age(system: Kube, bucket: Bucket, folder: str, seconds: float) -> None:
    """Make the objects of a folder so much older: the server tells as an object's time that of its file."""
    (pod,) = system.list("pods", "app.kubernetes.io/component=store")
    (server, *_) = processes.of_pod(pod["metadata"]["uid"], "versitygw")
    then = time.time() - seconds
    files = list((Path(f"/proc/{server}/root/data") / bucket.url.removeprefix("s3://") / folder).iterdir())
    assert files, f"the server has no file below {folder}"
    for file in files:
        os.utime(file, (then, then))
