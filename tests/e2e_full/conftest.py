"""The cluster as `make e2e-full` prepared it, and two models that no other test needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service, deployment
from tests.e2e_full import models
from tests.harness import install
from tests.harness.install import Environment
from tests.harness.kube import Kube

BUCKET = "s3://models"
JOB = "make-pooling-models"


@dataclass(frozen=True)
class Answers:
    """What transformers itself answers with the two models."""

    vectors: list[list[float]]
    scores: list[float]


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The cluster that `make e2e-full` prepared (python3 -m tests.harness.e2e)."""
    return install.connect()


@pytest.fixture(scope="session")
def kube(environment: Environment) -> Kube:
    """A client in the tests' namespace."""
    return environment.kube.within(install.TEST_NAMESPACE)


@pytest.fixture(scope="session")
def answers(kube: Kube, environment: Environment) -> Answers:
    """The models in the bucket, and what transformers answers with them."""
    volumes, mounts = [{"name": "scratch", "emptyDir": {}}], [{"name": "scratch", "mountPath": "/scratch"}]
    made: dict[str, Any] = install.trainer_job(environment.images["trainer"], JOB, [], volumes, mounts)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python3", "-c", Path(models.__file__).read_text(encoding="utf-8"), "/scratch", BUCKET]
    container["env"] += [{"name": name, "value": "/scratch"} for name in ("HOME", "TMPDIR")]
    kube.delete("job", JOB)
    kube.wait_gone("jobs", f"job-name={JOB}", 60)
    kube.apply(made)
    done = kube.wait("job", JOB, lambda item: item.get("status", {}).get("succeeded") or item.get("status", {}).get("failed"), 240, "finished")
    said = kube.run("logs", f"job/{JOB}")
    assert done["status"].get("succeeded"), said[-2000:]
    found = json.loads(said.strip().splitlines()[-1])
    return Answers(found["embedding"], found["reranker"])


def serve(kube: Kube, name: str, **spec: Any) -> Service:
    """Serve the model of the bucket that is called tiny-<name>, and return its service when it is ready."""
    model = {"source": f"{BUCKET}/tiny-{name}", "credentialsSecret": "graftwork-store"}
    kube.apply(deployment(name, model=model, **spec))
    return Service.ready(kube, name)
