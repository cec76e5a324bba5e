"""The operator's configuration: one YAML file that the chart writes, and environment variables over it for tests.

The file's path is `$GRAFTWORK_CONFIG`. `GRAFTWORK_CONFIG_<FIELD>` overrides one field, `__` going down a level:
`GRAFTWORK_CONFIG_LEASE__NAMESPACE=test`, `GRAFTWORK_CONFIG_RESYNC_SECONDS=5`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from graftwork.errors import ConfigError

PATH_VARIABLE = "GRAFTWORK_CONFIG"
OVERRIDE_PREFIX = "GRAFTWORK_CONFIG_"


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Images(_Section):
    """Images of the containers that the operator puts into pods."""

    engine: str = Field(min_length=1)
    agent: str = Field(min_length=1)
    trainer: str = Field(min_length=1)


class Store(_Section):
    """Where adapters lie; `url` empty means that there is no store (StoreNotConfigured)."""

    url: str = Field(default="", pattern=r"^($|s3://[^/]+|file:///)")
    credentials_secret: str = "graftwork-store"  # noqa: S105 - the name of a Secret, not a secret
    endpoint: str = ""
    claim: str = ""
    retain_seconds: int = Field(default=7 * 86_400, ge=0)
    """How long files that no LoRAAdapter refers to any more stay, counted from the sweep that found them so."""


class Hub(_Section):
    """The hub that hf:// sources name; `endpoint` empty means huggingface.co."""

    endpoint: str = Field(default="", pattern=r"^($|https?://)")


class CacheConfig(_Section):
    """What the StorageClasses of this cluster can do, where their provisioners do not say it; these win over what is known of a provisioner."""

    shared_classes: tuple[str, ...] = ()
    """Classes whose volumes several nodes can mount (ReadWriteMany)."""
    single_node_classes: tuple[str, ...] = ()
    """Classes whose volumes one node at a time can mount."""


class PrometheusConfig(_Section):
    """The Prometheus that judges canaries; `url` empty means that there is none (PrometheusNotConfigured)."""

    url: str = Field(default="", pattern=r"^($|https?://[^/\s]+)")


class LeaseConfig(_Section):
    """The Lease that lets only one operator act."""

    name: str = Field(default="graftwork-operator", min_length=1)
    namespace: str = Field(min_length=1)
    duration_seconds: float = Field(default=15, ge=3)
    renew_seconds: float = Field(default=5, gt=0)

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_seconds > self.duration_seconds / 2:
            raise ValueError(
                f"renewSeconds is {self.renew_seconds:g} and durationSeconds {self.duration_seconds:g}, so the Lease would run out too easily; "
                "renewSeconds must be at most half of durationSeconds"
            )
        return self


class Config(_Section):
    """Everything that an administrator decides for all resources."""

    images: Images
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    store: Store = Store()
    prometheus: PrometheusConfig = PrometheusConfig()
    hub: Hub = Hub()
    cache: CacheConfig = CacheConfig()
    allowed_service_accounts: tuple[str, ...] = ()
    """Which ServiceAccounts a LoRAAdapter may name for its import, and an LLMDeployment for its Jobs, besides the namespace's default."""
    watch_namespaces: tuple[str, ...] = ()
    lease: LeaseConfig
    resync_seconds: float = Field(default=600, ge=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    port: int = Field(default=8080, ge=0, le=65535)


def load(environment: Mapping[str, str] | None = None) -> Config:
    """Read the file that `$GRAFTWORK_CONFIG` names and lay the environment's overrides over it; ConfigError says field, value and rule."""
    environment = os.environ if environment is None else environment
    path = environment.get(PATH_VARIABLE, "")
    data = _read(path) if path else {}
    for variable, text in environment.items():
        if variable.startswith(OVERRIDE_PREFIX):
            _override(data, variable.removeprefix(OVERRIDE_PREFIX), text)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, path or f"the environment ({PATH_VARIABLE} is not set)")) from error


def _read(path: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{PATH_VARIABLE}={path}: the file cannot be read ({error.strerror}); mount the chart's ConfigMap there") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{PATH_VARIABLE}={path}: not YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{PATH_VARIABLE}={path}: the top level is {type(data).__name__}; it must be a mapping with images, store, lease …")
    return data


def _override(data: dict[str, Any], field: str, text: str) -> None:
    *parents, last = [to_camel(part.lower()) for part in field.split("__")]
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{OVERRIDE_PREFIX}{field}: {parent} is {child!r} in the file, not a mapping that could have {last}")
        data = child
    data[last] = yaml.safe_load(text)


def _explain(error: ValidationError, where: str) -> str:
    lines = [f"the operator's configuration in {where} is refused:"]
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        given = "" if problem["type"] in ("missing", "extra_forbidden") else f" (given: {problem['input']!r})"
        rule = "there is no such field" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"  {field}: {rule}{given}")
    return "\n".join(lines)
