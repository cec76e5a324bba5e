"""The pod template of an LLMDeployment (contracts.md, section 2)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.facts.inspected import Resolved
from graftwork.plan import cache, credentials, engine, pods, podsecurity, sized
from graftwork.plan.cache import Cached
from graftwork.plan.mode import ADAPTERS_ON, Mode
from graftwork.plan.pods import Manifest
from graftwork.plan.sized import Sizes
from graftwork.plan.sources import Source

ADAPTERS, CONFIG, PODINFO, KEYS = "/graftwork/adapters", "/graftwork/config", "/graftwork/podinfo", "/graftwork/keys"
COMPILED = "/graftwork/compiled"
TEARDOWN_SECONDS = 15
HUNG_SECONDS = 30
"""What an engine gets to end that answers nobody any more: the pod's own grace is for answers, and it has none to give."""


@dataclass(frozen=True)
class Inputs:
    """Of what pods are made beside the spec: `source` as a download is told it, pinned where it was looked up, what it is frozen to, and its mode.

    `cached`: where the model lies in a shared cache; None: the pods download it, or mount the claim of its source.
    """

    source: Source
    resolved: Resolved | None = None
    mode: Mode = ADAPTERS_ON
    cached: Cached | None = None

    @property
    def downloaded(self) -> bool:
        """Whether each pod fetches the model for itself."""
        return self.source.downloaded and self.cached is None


def selector(deployment: str) -> dict[str, str]:
    """Return the labels by which a deployment's pods are found; they never change."""
    return {names.LABEL_DEPLOYMENT: deployment}


def pod_template(deployment: LLMDeployment, inputs: Inputs, config: Config, template_hash: str) -> Manifest:
    """Return the template; its result is frozen in a ControllerRevision, so a newer Graftwork may well return another one."""
    spec, name = deployment.spec, deployment.metadata.name
    sizes = sized.sizes(deployment, inputs.resolved, downloaded=inputs.downloaded, adapters=not inputs.mode.without_lora)
    return {
        "metadata": {
            "labels": pods.pod_labels(spec.pod, "vllm", name, names.LABEL_DEPLOYMENT),
            "annotations": {**spec.pod.annotations, names.ANNOTATION_TEMPLATE_HASH: template_hash},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": podsecurity.merged(pods.pod_security(), spec.pod.security_context),
            "terminationGracePeriodSeconds": spec.rollout.drain_seconds + spec.rollout.answer_seconds + TEARDOWN_SECONDS,
            "initContainers": [
                _install(config),
                *([_download(deployment, inputs, config)] if inputs.downloaded else []),
                _agent(deployment, inputs, config),
            ],
            "containers": [_engine(deployment, inputs, config, sizes)],
            "volumes": _volumes(deployment, inputs, config, sizes),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(name)},
                }
            ],
            **pods.placement(spec.pod),
        },
    }


def _install(config: Config) -> Manifest:
    return pods.container(
        names.CONTAINER_INSTALL,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["install", "--to", engine.BIN, "--run-dir", engine.RUN],
        resources=pods.small("64Mi"),
        volumeMounts=[pods.mount("bin", engine.BIN), pods.mount("run", engine.RUN)],
    )


def _download(deployment: LLMDeployment, inputs: Inputs, config: Config) -> Manifest:
    source, secret = inputs.source, deployment.spec.model.credentials_secret
    return pods.container(
        names.CONTAINER_DOWNLOAD,
        config.images.agent,
        config,
        command=["graftwork-agent"],
        args=["download", "--source", source.text, "--to", engine.MODEL, *_digest(inputs)],
        env=credentials.model_env(source, secret, config),
        resources=pods.small("256Mi"),
        volumeMounts=[pods.mount("model", engine.MODEL), *credentials.model_mounts(source, secret)],
    )


def _digest(inputs: Inputs) -> list[str]:
    """Return what a bucket's listing has to be: of one that has changed since, another model would come under this one's revision."""
    resolved = inputs.resolved
    return ["--digest", f"sha256:{resolved.revision}"] if resolved and not inputs.source.versioned else []


def _agent(deployment: LLMDeployment, inputs: Inputs, config: Config) -> Manifest:
    """Return the sidecar. Its startup probe asks only whether its process listens: waiting for vLLM here would wait for ever."""
    alive = {"path": "/alive", "port": "agent"}
    return pods.container(
        names.CONTAINER_AGENT,
        config.images.agent,
        config,
        restartPolicy="Always",
        command=["graftwork-agent"],
        args=["serve"],
        ports=[{"name": "agent", "containerPort": names.PORT_AGENT, "protocol": "TCP"}],
        env=[
            pods.env("GRAFTWORK_ENGINE_URL", f"http://127.0.0.1:{engine.container_port(deployment)}"),
            pods.field_env("POD_NAME", "metadata.name"),
            pods.field_env("POD_NAMESPACE", "metadata.namespace"),
            *pods.store_env(config),
        ],
        startupProbe={"httpGet": alive, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 120},
        livenessProbe={"httpGet": alive, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
        resources=pods.small("128Mi", "1Gi"),
        volumeMounts=[
            pods.mount("bin", engine.BIN, read_only=True),
            pods.mount("run", engine.RUN),
            pods.mount("adapters", ADAPTERS),
            pods.mount("config", CONFIG, read_only=True),
            pods.mount("podinfo", PODINFO, read_only=True),
            *([pods.mount("keys", KEYS, read_only=True)] if deployment.spec.service.api_keys_secret else []),
            _model_mount(inputs),
            *pods.store_mount(config, read_only=True),
        ],
    )


def _engine(deployment: LLMDeployment, inputs: Inputs, config: Config, sizes: Sizes) -> Manifest:
    spec = deployment.spec
    health = {"path": "/health", "port": "http"}
    container = pods.container(
        names.CONTAINER_ENGINE,
        spec.engine.image or config.images.engine,
        config,
        command=engine.command(),
        args=engine.arguments(deployment, inputs.mode),
        ports=[{"name": "http", "containerPort": engine.container_port(deployment), "protocol": "TCP"}],
        env=_engine_env(deployment, inputs, config),
        startupProbe={"httpGet": health, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": sizes.startup_seconds},
        readinessProbe={"httpGet": {"path": "/graftwork/ready", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3},
        livenessProbe={
            "httpGet": health,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 12,
            "terminationGracePeriodSeconds": HUNG_SECONDS,
        },
        lifecycle={"preStop": {"exec": {"command": [*engine.command(), "--drain"]}}},
        resources=pods.resources(spec.pod, spec.accelerator, sizes.resources),
        volumeMounts=[
            pods.mount("bin", engine.BIN, read_only=True),
            pods.mount("run", engine.RUN),
            pods.mount("adapters", ADAPTERS, read_only=True),
            _model_mount(inputs),
            pods.mount("home", engine.HOME),
            pods.mount("shm", "/dev/shm"),
            *([pods.mount("model", COMPILED, sub_path=cache.COMPILED)] if _keeps_compiled(deployment, inputs) else []),
        ],
    )
    return {**container, "securityContext": podsecurity.merged(container["securityContext"], spec.pod.container_security_context)}


def _model_mount(inputs: Inputs) -> Manifest:
    if inputs.cached:
        return pods.mount("model", engine.MODEL, read_only=True, sub_path=inputs.cached.sub_path)
    return pods.mount("model", engine.MODEL, read_only=True, sub_path="" if inputs.source.downloaded else inputs.source.path)


def _keeps_compiled(deployment: LLMDeployment, inputs: Inputs) -> bool:
    """Whether vLLM keeps what it compiles in the cache; on CPUs that is quicker made than read."""
    return inputs.cached is not None and not deployment.spec.accelerator.cpu


def _engine_env(deployment: LLMDeployment, inputs: Inputs, config: Config) -> list[Manifest]:
    """Return the engine's variables; one of the spec's own wins. What is compiled depends on the engine and its flags, and has a folder for them.

    The engine makes that folder itself: one that a mount names is made by the kubelet, as root.
    """
    given = engine.environment(deployment, inputs.mode)
    if _keeps_compiled(deployment, inputs) and all(item["name"] != "VLLM_CACHE_ROOT" for item in given):
        made_of = json.dumps([deployment.spec.engine.image or config.images.engine, engine.arguments(deployment, inputs.mode)])
        given.append(pods.env("VLLM_CACHE_ROOT", f"{COMPILED}/{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"))
    return given


def _model_volume(deployment: LLMDeployment, inputs: Inputs, sizes: Sizes) -> Manifest:
    if inputs.cached is None:
        return pods.empty("model", size=sizes.model) if inputs.source.downloaded else pods.claim("model", inputs.source.name)
    if deployment.spec.accelerator.cpu:
        return pods.claim("model", inputs.cached.claim)
    # What is compiled is written; the model is mounted to be read.
    return {"name": "model", "persistentVolumeClaim": {"claimName": inputs.cached.claim}}


def _keys_volume(secret: str) -> list[Manifest]:
    """Return the volume of API keys. It is optional, so that a Secret that is gone keeps no new pod from starting beside those that serve."""
    return [{"name": "keys", "secret": {"secretName": secret, "optional": True}}] if secret else []


def _volumes(deployment: LLMDeployment, inputs: Inputs, config: Config, sizes: Sizes) -> list[Manifest]:
    annotation = f"metadata.annotations['{names.ANNOTATION_ADAPTERS_HASH}']"
    return [
        pods.empty("bin"),
        pods.empty("run", memory=True),
        pods.empty("adapters"),
        {"name": "config", "configMap": {"name": names.adapters_config_map(deployment.metadata.name), "optional": False}},
        {
            "name": "podinfo",
            "downwardAPI": {"items": [{"path": "adapters-hash", "fieldRef": {"apiVersion": "v1", "fieldPath": annotation}}]},
        },
        *_keys_volume(deployment.spec.service.api_keys_secret),
        _model_volume(deployment, inputs, sizes),
        *(credentials.model_volumes(inputs.source, deployment.spec.model.credentials_secret) if inputs.downloaded else []),
        pods.empty("home"),
        pods.empty("shm", memory=True, size=sizes.shm),
        *pods.store_volume(config),
    ]
