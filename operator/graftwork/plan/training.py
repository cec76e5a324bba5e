"""The Kubernetes Job of one training run (contracts.md, section 6). It is created once and never re-rendered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from graftwork import names
from graftwork.api import FineTuneJob
from graftwork.config import Config
from graftwork.plan import credentials, jobs, pods
from graftwork.plan.pods import Manifest
from graftwork.plan.sources import Source

RUN_API_VERSION = "graftwork.dev/run/v1"
BASE, DATASET, SCRATCH, HOME = "/models/base", "/data/dataset", "/scratch", "/home/graftwork"
STOP_SECONDS = 30


@dataclass(frozen=True)
class Inputs:
    """Where the run reads from. `base_secret` empty: the store's credentials."""

    base: Source
    base_secret: str
    dataset: Source


def run_document(job: FineTuneJob, inputs: Inputs, run: int) -> dict[str, Any]:
    """Return what the trainer gets as GRAFTWORK_RUN."""
    spec, training = job.spec, job.spec.training
    return {
        "apiVersion": RUN_API_VERSION,
        "job": {"namespace": job.metadata.namespace, "name": job.metadata.name, "uid": job.metadata.uid, "run": run},
        "base": {"path": BASE, "source": inputs.base.text},
        "dataset": {"path": DATASET, "source": inputs.dataset.text, "format": spec.dataset.format, "validation": spec.dataset.validation},
        "method": spec.method,
        "lora": {"rank": spec.lora.rank, "alpha": spec.lora.alpha, "dropout": spec.lora.dropout, "targetModules": spec.lora.target},
        "training": {
            "epochs": training.epochs,
            "learningRate": training.learning_rate,
            "batchSize": training.batch_size,
            "maxSeqLength": training.max_seq_length,
            "packing": training.packing,
            "warmupRatio": training.warmup_ratio,
            "scheduler": training.scheduler,
            "seed": training.seed,
            "maxSteps": training.max_steps,
        },
        "evaluation": {"gate": {"minImprovement": spec.evaluation.gate.min_improvement}},
        "publish": {"alias": spec.publish.alias},
        "scratch": SCRATCH,
        "progressPort": names.PORT_TRAINER,
    }


def run_job(job: FineTuneJob, inputs: Inputs, run: int, config: Config) -> Manifest:
    """Return the Job of one run. Wrong data and wrong configuration fail it at once; what the cluster did to a pod does not count."""
    spec, name = job.spec, job.metadata.name
    labels = pods.pod_labels(spec.pod, "trainer", name, names.LABEL_JOB)
    template = {"labels": labels, **({"annotations": dict(spec.pod.annotations)} if spec.pod.annotations else {})}
    return jobs.job(
        {"name": names.run_job(name, run), "labels": {names.LABEL_JOB: name}},
        template=template,
        init=_init_containers(inputs, job, config),
        containers=[_trainer(job, inputs, run, config)],
        pod={"terminationGracePeriodSeconds": STOP_SECONDS, "volumes": _volumes(inputs, config), **pods.placement(spec.pod)},
        **mutable_fields(job),
    )


def mutable_fields(job: FineTuneJob) -> Manifest:
    """Return the fields of the Job's spec that follow the FineTuneJob while it runs."""
    return {
        "suspend": job.spec.suspend,
        "backoffLimit": job.spec.retry.limit,
        "activeDeadlineSeconds": job.spec.time_limit_seconds,
    }


def _init_containers(inputs: Inputs, job: FineTuneJob, config: Config) -> list[Manifest]:
    containers = []
    if inputs.base.downloaded:
        containers.append(_download(names.CONTAINER_DOWNLOAD_BASE, inputs.base, volume="model", path=BASE, secret=inputs.base_secret, config=config))
    if inputs.dataset.downloaded:
        secret = job.spec.dataset.credentials_secret
        containers.append(_download(names.CONTAINER_DOWNLOAD_DATASET, inputs.dataset, volume="dataset", path=DATASET, secret=secret, config=config))
    return containers


def _download(name: str, source: Source, *, volume: str, path: str, secret: str, config: Config) -> Manifest:
    return pods.container(
        name,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["download", "--source", source.text, "--to", path],
        env=credentials.model_env(source, secret, config),
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount(volume, path), *credentials.model_mounts(source, secret)],
    )


def _trainer(job: FineTuneJob, inputs: Inputs, run: int, config: Config) -> Manifest:
    document = json.dumps(run_document(job, inputs, run), sort_keys=True, separators=(",", ":"))
    return pods.container(
        names.CONTAINER_TRAINER,
        config.images.trainer,
        config,
        command=["graftwork-trainer"],
        ports=[{"name": "progress", "containerPort": names.PORT_TRAINER, "protocol": "TCP"}],
        env=[
            pods.env("GRAFTWORK_RUN", document),
            pods.env("HF_HUB_OFFLINE", "1"),
            pods.env("DO_NOT_TRACK", "1"),
            pods.env("HOME", HOME),
            pods.env("USER", "graftwork"),
            *pods.store_env(config),
        ],
        resources=pods.resources(job.spec.pod, job.spec.accelerator),
        volumeMounts=[
            pods.mount("model", BASE, read_only=True, sub_path="" if inputs.base.downloaded else inputs.base.path),
            _dataset_mount(inputs.dataset),
            pods.mount("scratch", SCRATCH),
            pods.mount("home", HOME),
            pods.mount("shm", "/dev/shm"),
            *pods.store_mount(config, read_only=False),
        ],
    )


def _dataset_mount(dataset: Source) -> Manifest:
    """Return the mount of the data: a folder that holds exactly one file, whatever else lies in a claim."""
    if dataset.kind == "pvc":
        return pods.mount("dataset", f"{DATASET}/{dataset.path.rpartition('/')[2]}", read_only=True, sub_path=dataset.path)
    return pods.mount("dataset", DATASET, read_only=True)


def _volumes(inputs: Inputs, config: Config) -> list[Manifest]:
    if inputs.dataset.kind == "configMap":
        item = {"key": inputs.dataset.path, "path": inputs.dataset.path}
        dataset: Manifest = {"name": "dataset", "configMap": {"name": inputs.dataset.name, "items": [item]}}
    elif inputs.dataset.kind == "pvc":
        dataset = pods.claim("dataset", inputs.dataset.name)
    else:
        dataset = pods.empty("dataset")
    return [
        pods.empty("model") if inputs.base.downloaded else pods.claim("model", inputs.base.name),
        *credentials.model_volumes(inputs.base, inputs.base_secret),
        dataset,
        pods.empty("scratch"),
        pods.empty("home"),
        pods.empty("shm", memory=True),
        *pods.store_volume(config),
    ]
