"""Passes of the reconcilers against the real API server: everything they make is admitted, and a further pass writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from graftwork.api import LLMDeployment
from graftwork.clock import SystemClock
from graftwork.cluster.client import Cluster
from graftwork.cluster.connect import connect
from graftwork.cluster.kinds import WATCHED, Key, sweep_key
from graftwork.cluster.mirror import Mirror
from graftwork.config import Config
from graftwork.plan import inspecting, revisions, serving, sources, sweep
from graftwork.plan.sources import Source
from graftwork.reconcile.children import owned
from graftwork.reconcile.context import Context
from graftwork.reconcile.finetunejob import FineTuneJobReconciler
from graftwork.reconcile.llmdeployment import LLMDeploymentReconciler
from graftwork.reconcile.loraadapter import LoRAAdapterReconciler
from graftwork.reconcile.sweep import SweepReconciler

from tests.control_plane.api_server import ApiServer
from tests.golden import render
from tests.unit.reconcile.world import STORE
from tests.unit.runtime.fakes import new_context

RECONCILERS = {"LLMDeployment": LLMDeploymentReconciler, "FineTuneJob": FineTuneJobReconciler, "LoRAAdapter": LoRAAdapterReconciler}
CONFIG = Config.model_validate({**STORE.model_dump(), "allowed_service_accounts": ["bucket-reader"]})
NO_SERVER_VERSION = {"resourceVersion", "managedFields"}


@dataclass
class Operator:
    """An operator without watches: each pass begins with a complete listing, as after a restart."""

    cluster: Cluster
    namespace: str
    config: Config = CONFIG

    async def context(self) -> Context:
        mirror = Mirror()
        for kind in WATCHED:
            for obj in (await self.cluster.listing(kind.name, self.namespace, kind.label_selector))[0]:
                mirror.put(obj)
        self.cluster._mirror = mirror
        return replace(new_context(self.config), cluster=self.cluster, mirror=mirror, clock=SystemClock())

    async def run(self, kind: str, name: str) -> None:
        await RECONCILERS[kind]().reconcile(Key(kind, self.namespace, name), await self.context())

    async def versions(self) -> dict[str, str]:
        """Return the resourceVersion of everything there is."""
        found = {}
        for kind in WATCHED:
            for obj in await self.cluster.list(kind.name, self.namespace):
                found[f"{kind.name}/{obj['metadata']['name']}"] = obj["metadata"]["resourceVersion"]
        return found


@pytest.fixture
async def operator(api_server: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Operator]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
    cluster = Cluster(await connect())
    yield Operator(cluster, namespace)
    await cluster.close()


async def make(operator: Operator, case: str) -> list[dict[str, Any]]:
    """Create the objects of a golden case as a user would; a model that has to be looked up is known already."""
    made = []
    for obj in render.read(case):
        if obj["kind"] != "Config":
            metadata = {key: value for key, value in obj["metadata"].items() if key in ("name", "labels")}
            fields = {key: value for key, value in obj.items() if key != "status"}
            created = await operator.cluster.create({**fields, "metadata": {**metadata, "namespace": operator.namespace}})
            model = known_model(obj)
            if model:
                version = created["metadata"]["resourceVersion"]
                await operator.cluster.patch_status(obj["kind"], operator.namespace, metadata["name"], {"model": model}, version)
            made.append(created)
    return made


def known_model(obj: dict[str, Any]) -> dict[str, Any]:
    """Return `status.model` as a look at the source left it: of the case, or of a bucket that the case says nothing of; nothing for a claim."""
    model: dict[str, Any] = (obj.get("status") or {}).get("model") or {}
    source = (obj["spec"].get("model") or {}).get("source") or ""
    if obj["kind"] != "LLMDeployment" or not ("resolved" in model or source.startswith("s3://")):
        return {}
    key = inspecting.key(LLMDeployment.from_object(obj))
    if "resolved" in model:
        return {**model, "resolved": {**model["resolved"], "key": key}}
    facts = {"fingerprint": "sha256:" + "1" * 64, "architecture": "Qwen3ForCausalLM", "parameters": 3, "weightsBytes": 6}
    files = {"count": 3, "bytes": 7, "largestBytes": 6, "digest": "sha256:" + "e" * 64}
    return {"resolved": {"key": key, "source": source, "revision": "e" * 64, "files": files, "facts": facts}}


@pytest.mark.parametrize("case", render.names())
async def test_what_a_case_makes_is_admitted_and_a_further_pass_writes_nothing(operator: Operator, case: str) -> None:
    objects = await make(operator, case)
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "secret-words", "namespace": operator.namespace}}
    await operator.cluster.create({**config_map, "data": {"train.jsonl": "{}"}})
    for _ in range(2):
        for obj in objects:
            await operator.run(obj["kind"], obj["metadata"]["name"])
    before = await operator.versions()
    kinds = {name.split("/")[0] for name in before}
    for obj in objects:
        pods = set() if "shared" in case else {"Deployment", "ControllerRevision"}  # nobody fills the cache here
        expected = {"LLMDeployment": {"Service", "PodDisruptionBudget", "ConfigMap", *pods}, "FineTuneJob": {"Job"}}
        importing = obj["kind"] == "LoRAAdapter" and not obj["spec"]["source"].startswith("store://")
        assert expected.get(obj["kind"], {"Job"} if importing else set()) <= kinds
    for _ in range(2):
        for obj in objects:
            await operator.run(obj["kind"], obj["metadata"]["name"])
    assert await operator.versions() == before


@pytest.mark.parametrize("source", ["hf://acme/tiny", "s3://models/tiny"])
async def test_a_model_is_looked_up_before_pods_are_made(operator: Operator, source: str) -> None:
    spec = {"model": {"source": source}}
    fields = {"apiVersion": "graftwork.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "tiny", "namespace": operator.namespace}}
    await operator.cluster.create({**fields, "spec": spec})
    for _ in range(2):
        await operator.run("LLMDeployment", "tiny")
    before = await operator.versions()
    assert {name.split("/")[0] for name in before} >= {"Job", "Service", "ConfigMap", "PodDisruptionBudget"}
    assert not [name for name in before if name.startswith(("Deployment/", "ControllerRevision/"))]
    await operator.run("LLMDeployment", "tiny")
    assert await operator.versions() == before


async def test_a_model_of_a_bucket_that_was_served_before_is_neither_looked_up_nor_pinned(operator: Operator) -> None:
    """The stored revision as the API server gives it back is enough to know it."""
    spec = {"model": {"source": "s3://models/tiny", "credentialsSecret": "bucket"}, "adapters": {"maxRank": 16}}
    fields = {"apiVersion": "graftwork.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "tiny", "namespace": operator.namespace}}
    created = await operator.cluster.create({**fields, "spec": spec})
    resource = LLMDeployment.from_object(created)
    source = sources.parse("spec.model.source", resource.spec.model.source, sources.MODEL_KINDS)
    assert isinstance(source, Source)

    def render(template_hash: str) -> dict[str, Any]:
        return serving.pod_template(resource, serving.Inputs(source), CONFIG, template_hash)

    old = revisions.revision(resource, [], render, {"engine": "engine:1"})
    await operator.cluster.apply(owned(created, old.manifest))
    for _ in range(2):
        await operator.run("LLMDeployment", "tiny")
    before = await operator.versions()
    assert [name for name in before if name.startswith("Job/")] == []
    assert [name for name in before if name.startswith("ControllerRevision/")] == [f"ControllerRevision/{old.manifest['metadata']['name']}"]
    deployment = await operator.cluster.get("Deployment", operator.namespace, "tiny")
    assert deployment is not None
    assert revisions.stored_hash(deployment["spec"]["template"]) == old.template_hash
    await operator.run("LLMDeployment", "tiny")
    assert await operator.versions() == before


@pytest.mark.parametrize(
    "case", ["import-hub", "import-bucket-account", "sweep", "serving-hub", "serving-bucket", "serving-shared-hub", "training-hub"]
)
async def test_pods_of_jobs_satisfy_the_restricted_standard(operator: Operator, admin: httpx.Client, namespace: str, case: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    admin.patch(f"/api/v1/namespaces/{namespace}", json=label, headers={"Content-Type": "application/merge-patch+json"}).raise_for_status()
    rendered = [sweep.sweep_job(namespace, 1, CONFIG)] if case == "sweep" else render.render(render.read(case))
    job = [item for item in rendered if item["kind"] == "Job"][-1]
    spec = {key: value for key, value in job["spec"]["template"]["spec"].items() if key not in ("serviceAccountName", "priorityClassName")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", json=pod)
    assert answer.status_code == 201, answer.text
    spec["containers"][0].pop("securityContext")
    assert "restricted" in admin.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", json=pod).text, "the standard must be in force"


async def test_a_sweep_is_admitted_and_its_instructions_belong_to_its_job(operator: Operator) -> None:
    job = await operator.cluster.create(sweep.sweep_job(operator.namespace, 1, CONFIG))
    document = sweep.instructions(operator.namespace, "mine", ["sha256:" + "a" * 64], 60)
    made = await operator.cluster.apply(sweep.sweep_config_map(job, document))
    assert made["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    await SweepReconciler().reconcile(sweep_key(operator.namespace), await operator.context())
    jobs = await operator.cluster.list("Job", operator.namespace)
    assert [item["metadata"]["name"] for item in jobs] == ["graftwork-sweep-1"]


async def test_suspend_retries_and_time_limit_reach_a_job_whose_template_stays(operator: Operator) -> None:
    await make(operator, "training-gpu")
    await operator.run("FineTuneJob", "tickets")
    before = await operator.cluster.get("Job", operator.namespace, "tickets-run-1")
    job = await operator.cluster.get("FineTuneJob", operator.namespace, "tickets")
    assert before
    assert job
    spec = {**job["spec"], "suspend": True, "retry": {"limit": 7}, "timeLimit": "3h"}
    metadata = {key: value for key, value in job["metadata"].items() if key not in NO_SERVER_VERSION}
    await operator.cluster.apply({**job, "metadata": metadata, "spec": spec})
    await operator.run("FineTuneJob", "tickets")
    after = await operator.cluster.get("Job", operator.namespace, "tickets-run-1")
    assert after
    assert (after["spec"]["suspend"], after["spec"]["backoffLimit"], after["spec"]["activeDeadlineSeconds"]) == (True, 7, 10800)
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    status = (await operator.cluster.get("FineTuneJob", operator.namespace, "tickets") or {})["status"]
    assert status["phase"] == "Suspended"
    versions = await operator.versions()
    await operator.run("FineTuneJob", "tickets")
    assert await operator.versions() == versions
