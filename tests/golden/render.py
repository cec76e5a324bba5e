"""From a case (YAML objects as a user and agents make them) to the manifests that the operator would apply, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from graftwork.api import FineTuneJob, LLMDeployment, LoRAAdapter
from graftwork.config import Config
from graftwork.facts.adapters import adapter
from graftwork.facts.inspected import Resolved
from graftwork.plan import access, adapters_file, cache, children, importing, inspecting, mode, revisions, serving, sources, training
from graftwork.plan.adapters import Seen, select
from graftwork.plan.sources import Source
from graftwork.plan.training import Inputs
from graftwork.reconcile.observe import rules

CASES = Path(__file__).with_name("cases")
S3: dict[str, Any] = {"url": "s3://graftwork/store"}
CONFIG = {"images": {"engine": "engine:1", "agent": "agent:1", "trainer": "trainer:1"}, "lease": {"namespace": "graftwork"}}


def names() -> list[str]:
    return sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


def read(name: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all((CASES / f"{name}.in.yaml").read_text()) if item]


def render(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the manifests of the case's FineTuneJob if it has one, else of its LLMDeployment, else of its LoRAAdapter.

    A `Config` document has settings of the operator.
    """
    settings = next((item for item in documents if item["kind"] == "Config"), {})
    config = Config.model_validate({**CONFIG, "store": S3, **{key: value for key, value in settings.items() if key != "kind"}})
    by_kind = {item["kind"]: item for item in documents}
    deployment = LLMDeployment.from_object(by_kind["LLMDeployment"]) if "LLMDeployment" in by_kind else None
    if "FineTuneJob" in by_kind:
        return [_job(FineTuneJob.from_object(by_kind["FineTuneJob"]), deployment, config)]
    if deployment is None:
        return [importing.import_job(LoRAAdapter.from_object(by_kind["LoRAAdapter"]), config)]
    adapters = [adapter(LoRAAdapter.from_object(item)) for item in documents if item["kind"] == "LoRAAdapter"]
    return _serving(deployment, adapters, config)


def _serving(deployment: LLMDeployment, adapters: list[Any], config: Config) -> list[dict[str, Any]]:
    source = sources.parse("spec.model.source", deployment.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source)
    fingerprint = (deployment.status.get("model") or {}).get("fingerprint")
    seen = Seen(fingerprints=frozenset([fingerprint] if fingerprint else []))
    selection = select(adapters, rules(deployment), seen)
    resolved = Resolved.from_object((deployment.status.get("model") or {}).get("resolved"))
    of = _at(source, resolved)
    served = mode.of_facts(deployment, resolved.facts) if resolved else mode.ADAPTERS_ON
    filled = _cache(deployment, of, resolved, config) if resolved and deployment.spec.cache.mode == "Shared" else []
    cached = cache.Cached(filled[0]["metadata"]["name"], cache.asked(filled[1])[0]) if filled else None
    revision = revisions.revision(
        deployment,
        [],
        lambda wanted: serving.pod_template(deployment, serving.Inputs(of, resolved, served, cached), config, wanted),
        {"engine": "engine:1"},
        resolved=resolved,
        mode=served,
    )
    return [
        *([inspecting.inspect_job(deployment, source, config)] if resolved else []),
        *filled,
        children.adapters_config_map(deployment.metadata.name, adapters_file.content(selection, rules(deployment))),
        children.service(deployment),
        children.disruption_budget(deployment),
        children.deployment(deployment, revision.template),
        *[item for item in (access.ingress(deployment), access.http_route(deployment), access.network_policy(deployment, config)) if item],
    ]


def _cache(deployment: LLMDeployment, source: Source, resolved: Resolved, config: Config) -> list[dict[str, Any]]:
    """Return claim and fill Job of a first revision."""
    size = cache.size_bytes(deployment, resolved.files.bytes, [resolved.files.bytes])
    claim = cache.claim(deployment, cache.shown(size), deployment.spec.cache.storage_class)
    return [claim, cache.fill_job(deployment, source, resolved, [cache.key(resolved.source, resolved.revision)], config, claim_uid="uid-claim")]


def _job(job: FineTuneJob, deployment: LLMDeployment | None, config: Config) -> dict[str, Any]:
    model = deployment.spec.model if deployment else job.spec.base_model
    assert model
    base = sources.parse("base", model.source, sources.MODEL_KINDS)
    dataset = sources.parse("dataset", job.spec.dataset.source, sources.DATASET_KINDS)
    assert isinstance(base, Source)
    assert isinstance(dataset, Source)
    resolved = Resolved.from_object((deployment.status.get("model") or {}).get("resolved")) if deployment else None
    return training.run_job(job, Inputs(_at(base, resolved), model.credentials_secret, dataset), 1, config)


def _at(source: Source, resolved: Resolved | None) -> Source:
    return sources.pinned(source, resolved.revision) if resolved and source.kind == "hf" else source
