"""From a bare machine to a cluster with Graftwork installed: builds, cluster, images, charts, a namespace with a model in its bucket.

Every step is skipped when what it would make is there, so the second call takes seconds. `python3 -m tests.harness.install` only builds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.cluster import packages, preflight
from tests.cluster.storage import SHARED_CLASS
from tests.harness import machine
from tests.harness.kube import Kube, environment_kubeconfig
from tests.harness.venv import ROOT

SYSTEM_NAMESPACE = "graftwork-system"
DEMO_NAMESPACE = "demo"
TEST_NAMESPACE = "e2e"
RELEASE = "graftwork"
CRD_RELEASE = "graftwork-crds"


@dataclass(frozen=True)
class Environment:
    """A prepared cluster."""

    kube: Kube
    helm: str
    images: dict[str, str]  # image name -> reference


class Steps:
    """Progress that a person can follow: one line as each step begins and ends, with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.took: list[tuple[str, float]] = []

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{time.monotonic() - self.began:5.0f}s] {text}", flush=True)

    def run(self, what: str, *command: str) -> None:
        """Run one of our own commands, passing its output on."""
        began = time.monotonic()
        self.say(what)
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{what}: failed with exit code {done.returncode}; the lines above say why")
        self.took.append((what, time.monotonic() - began))


def module(name: str, *args: str) -> tuple[str, ...]:
    """Return the command line of a module of this repository."""
    return (sys.executable, "-m", name, *args)


def build(steps: Steps) -> None:
    """Look at the machine, install what it lacks, and build binaries and images side by side."""
    preflight.require()
    packages.ensure(steps.say)
    with ThreadPoolExecutor(2) as pool:
        tools = pool.submit(steps.run, "building the cluster's programs", *module("tests.cluster", "build"))
        images = pool.submit(steps.run, "building the images", *module("tests.cluster.images", "build"))
        tools.result()
        images.result()


def image_references(*names: str) -> dict[str, dict[str, str]]:
    """Return name -> {reference, archive} of these images (of all but the optional ones, if none is named), as the image builder prints it."""
    printed = subprocess.run(module("tests.cluster.images", "refs", *names), cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict[str, dict[str, str]] = json.loads(printed)
    return found


def cluster(steps: Steps) -> Environment:
    """Start the cluster if it is down, load the images into both nodes, and return clients for it."""
    provider = ("--provider", machine.provider())
    steps.run("starting the cluster", *module("tests.cluster", "up", *provider))
    references = image_references()
    archives = [each["archive"] for each in references.values()]
    steps.run("loading the images into both nodes", *module("tests.cluster", "load", *provider, *archives))
    return connect(references)


def connect(references: dict[str, dict[str, str]] | None = None) -> Environment:
    """Return clients for the cluster that runs."""
    programs = machine.binaries()
    kube = Kube(str(programs / "kubectl"), machine.kubeconfig(), DEMO_NAMESPACE)
    return Environment(kube, str(programs / "helm"), {name: each["reference"] for name, each in (references or image_references()).items()})


def helm(environment: Environment, *args: str, timeout: float = 300) -> str:
    """Run helm and return what it printed."""
    done = subprocess.run(
        (environment.helm, *args),
        env=environment_kubeconfig(environment.kube.kubeconfig),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"helm {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def chart_values(references: dict[str, str], namespaces: tuple[str, ...], store_url: str = "", store_claim: str = "", **more: Any) -> dict[str, Any]:
    """Return the chart's values for this cluster: our images, store and class of shared volumes; `more` are further top-level values."""
    repository, tag = references["operator"].rsplit(":", 1)
    store_repository, store_tag = references["versitygw"].rsplit(":", 1)
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "images": {"engine": references["engine-cpu"], "agent": references["agent"], "trainer": references["trainer"]},
        "store": {
            "url": store_url,
            "claim": store_claim,
            "embedded": {
                "enabled": True,
                "namespaces": list(namespaces),
                "buckets": ["graftwork", "models", "data"],
                "image": {"repository": store_repository, "tag": store_tag, "pullPolicy": "IfNotPresent"},
            },
        },
        "cache": {"sharedClasses": [SHARED_CLASS]},
        **more,
    }


def install(steps: Steps, environment: Environment, namespaces: tuple[str, ...] = (DEMO_NAMESPACE, TEST_NAMESPACE), **more: Any) -> None:
    """`helm upgrade --install` both charts, and wait until the operator and the store are ready."""
    steps.say("installing Graftwork with helm")
    kube = environment.kube
    for namespace in namespaces:
        # Everything that Graftwork makes in them must pass the restricted Pod Security Standard.
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    values = json.dumps(chart_values(environment.images, namespaces, **more))
    helm(environment, "upgrade", "--install", CRD_RELEASE, "charts/graftwork-crds", "--namespace", SYSTEM_NAMESPACE, "--create-namespace")
    command = [
        environment.helm,
        "upgrade",
        "--install",
        RELEASE,
        "charts/graftwork",
        "--namespace",
        SYSTEM_NAMESPACE,
        "--wait",
        "--timeout=3m",
        "--values=-",
    ]
    done = subprocess.run(command, env=environment_kubeconfig(kube.kubeconfig), cwd=ROOT, input=values, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pods = kube.within(SYSTEM_NAMESPACE).run("get", "pods", "-o", "wide")
        raise SystemExit(f"helm upgrade --install {RELEASE}: {done.stderr.strip()}\n{pods}")


def trainer_job(image: str, name: str, arguments: list[str], volumes: list[dict[str, Any]], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a Job that runs one of the trainer's subcommands with the store's credentials."""
    env = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": "graftwork-store", "key": key}}}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    ]
    container = {
        "name": "trainer",
        "image": image,
        "command": ["graftwork-trainer", *arguments],
        "env": env,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container], "volumes": volumes}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 1, "template": {"spec": spec}}}


def tiny_model_job(image: str, name: str, destination: str, seed: int) -> dict[str, Any]:
    """Return a Job that makes a tiny Qwen3 on the spot (random weights, its own tokenizer) and puts it into a bucket."""
    arguments = ["tiny-model", "--to", "/scratch/model", "--seed", str(seed), "--upload", destination]
    return trainer_job(image, name, arguments, [{"name": "scratch", "emptyDir": {}}], [{"name": "scratch", "mountPath": "/scratch"}])


def upload_job(image: str, name: str, destination: str, config_map: str) -> dict[str, Any]:
    """Return a Job that puts the key train.jsonl of a ConfigMap into a bucket."""
    volumes = [{"name": "data", "configMap": {"name": config_map}}]
    return trainer_job(image, name, ["put", "/data/train.jsonl", destination], volumes, [{"name": "data", "mountPath": "/data"}])


def make_model(environment: Environment, name: str = "tiny", seed: int = 0, timeout: float = 240) -> None:
    """Make sure that s3://models/<name> holds a tiny model."""
    job = f"make-model-{name}"
    kube = environment.kube
    store, made = kube.within(SYSTEM_NAMESPACE).get("deployment", "graftwork-store"), kube.get("job", job)
    if made and store and made["metadata"]["creationTimestamp"] < store["metadata"]["creationTimestamp"]:  # what it made went with the last store
        kube.delete("job", job)
        made = None
    if made is None:
        kube.apply(tiny_model_job(environment.images["trainer"], job, f"s3://models/{name}", seed))
    done = kube.wait("job", job, lambda item: item.get("status", {}).get("succeeded") or item.get("status", {}).get("failed"), timeout, "finished")
    if not done["status"].get("succeeded"):
        raise SystemExit(f"making the tiny model failed: {kube.run('logs', f'job/{job}', '--tail=20')}")


def prepare(steps: Steps | None = None, **values: Any) -> Environment:
    """Do everything up to a model in its bucket; `values` are further values of the chart."""
    steps = steps or Steps()
    build(steps)
    environment = cluster(steps)
    install(steps, environment, **values)
    steps.say("making a tiny model on the spot")
    make_model(environment)
    steps.say("ready")
    return environment


if __name__ == "__main__":
    build(Steps())
