"""A namespace with our three kinds, pods that a test makes by hand, and agents and trainers that say what it wants."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from graftwork import names
from graftwork.cluster.kinds import SWEEP, Key
from graftwork.cluster.protocol import PeerView
from graftwork.config import Config
from graftwork.reconcile.context import Context, Result
from graftwork.reconcile.finetunejob import FineTuneJobReconciler
from graftwork.reconcile.llmdeployment import LLMDeploymentReconciler
from graftwork.reconcile.loraadapter import LoRAAdapterReconciler
from graftwork.reconcile.sweep import SweepReconciler

from tests.unit.runtime.fakes import CONFIG, FakeClock, FakeCluster, FakeEvents, FakePeers, new_context
from tests.unit.status.seen import BASE, container, pod_object

STORE = Config.model_validate({**CONFIG.model_dump(), "store": {"url": "s3://graftwork/store"}})


class World:
    """Everything of one test; `run` does one pass."""

    def __init__(self, config: Config = STORE) -> None:
        self.woken: list[Key] = []
        self.ctx: Context = replace(new_context(config), wake=lambda key, after=0: self.woken.append(key))
        self.reconcilers: dict[str, Any] = {}
        self.restart()
        assert isinstance(self.ctx.cluster, FakeCluster)
        assert isinstance(self.ctx.clock, FakeClock)
        assert isinstance(self.ctx.agents, FakePeers)
        assert isinstance(self.ctx.trainers, FakePeers)
        assert isinstance(self.ctx.fills, FakePeers)
        assert isinstance(self.ctx.events, FakeEvents)
        self.cluster, self.clock = self.ctx.cluster, self.ctx.clock
        self.agents, self.trainers, self.events = self.ctx.agents, self.ctx.trainers, self.ctx.events
        self.fills = self.ctx.fills
        home = {"namespace": "", "name": config.lease.namespace, "uid": "uid-home"}
        self.cluster.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": home})

    def restart(self) -> None:
        """Forget what a process remembers."""
        self.reconcilers = {
            "LLMDeployment": LLMDeploymentReconciler(),
            "FineTuneJob": FineTuneJobReconciler(),
            "LoRAAdapter": LoRAAdapterReconciler(),
            SWEEP: SweepReconciler(),
        }

    async def run(self, kind: str, name: str) -> Result:
        result: Result = await self.reconcilers[kind].reconcile(Key(kind, "ml", name), self.ctx)
        return result

    def add(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        created = {"creationTimestamp": "2026-11-21T10:00:00Z", "generation": 1, **metadata}
        return self.cluster.seed(
            {
                "apiVersion": names.API_VERSION,
                "kind": kind,
                "metadata": {"namespace": "ml", "name": name, "uid": f"uid-{name}", **created},
                "spec": spec,
            }
        )

    def edit(self, kind: str, name: str, **changes: Any) -> None:
        """Change the spec as a user does: the generation goes up."""
        obj = self.get(kind, name)
        metadata = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1}
        self.cluster.seed({**obj, "metadata": metadata, "spec": {**obj["spec"], **changes}})

    def delete(self, kind: str, name: str) -> None:
        """Delete as a user does: an object with finalizers stays."""
        obj = self.get(kind, name)
        self.cluster.seed({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-11-21T13:00:00Z"}})

    def get(self, kind: str, name: str) -> dict[str, Any]:
        obj = self.find(kind, name)
        assert obj, f"no {kind} {name}"
        return obj

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.cluster.objects.get(Key(kind, "ml", name))

    def status(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(kind, name).get("status", {})
        return found

    def deployment(self, name: str = "support", **spec: Any) -> None:
        """Add a deployment of a claim: nothing has to be looked up before its pods are made."""
        self.add("LLMDeployment", name, {"model": {"source": "pvc://models/tiny"}, "accelerator": {"types": ["cpu"]}, **spec})

    def adapter(self, alias: str = "medical", version: int = 1, letter: str = "a", **spec: Any) -> str:
        digest = f"sha256:{letter * 64}"
        fields = {"alias": alias, "version": version, "owner": "tickets", "digest": digest, "source": f"store://ml/{alias}/{letter * 12}"}
        self.add("LoRAAdapter", f"{alias}-{version}", {**fields, "baseModel": {"fingerprint": BASE}, "rank": 8, **spec})
        return names.engine_adapter(alias, digest)

    def pod(self, name: str = "p1", deployment: str = "support", **fields: Any) -> None:
        """Put a pod as the Deployment's template of now makes it, and an agent that reads the ConfigMap of now."""
        made = self.get("Deployment", deployment)["spec"]["template"]
        template = made["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH]
        labels = {names.LABEL_DEPLOYMENT: deployment}
        pod = pod_object(name, labels=labels, **{"template": template, "main": (container("vllm", running=True),), **fields})
        self.cluster.seed({**pod, "spec": {**made["spec"], **pod["spec"]}})
        self.agent(name)

    def brought(self, name: str = "legal-1", source: str = "hf://acme/legal-lora", **spec: Any) -> None:
        """Add a LoRAAdapter that is to be imported."""
        self.add("LoRAAdapter", name, {"alias": "legal", "version": 1, "source": source, **spec})

    def import_pod(self, name: str = "legal-1", pod: str = "i1", **fields: Any) -> None:
        """Put a pod of an adapter's import Job."""
        labels = {names.LABEL_ADAPTER: name}
        owner = self.get("Job", f"{name}-import")["metadata"]["uid"]
        self.cluster.seed(pod_object(pod, labels=labels, owner=owner, ready=False, **fields))

    def agent(self, pod: str, *loaded: str, reachable: bool = True, observed: str | None = None, **fields: Any) -> None:
        adapters = [{"engineName": name, "name": name, "state": "Loaded"} for name in loaded]
        base = {"fingerprint": BASE, "architecture": "Qwen3ForCausalLM", "parameters": 3, "weightsBytes": 6, "maxModelLen": 512}
        status = {
            "observedHash": self.hash() if observed is None else observed,
            "base": base,
            "adapters": adapters,
            "routes": {},
            "features": ["candidates"],
            **fields,
        }
        self.agents.views[f"uid-{pod}"] = PeerView(status, reachable, self.clock.now())

    def content(self, deployment: str = "support") -> str:
        return str(self.get("ConfigMap", f"{deployment}-adapters")["data"]["adapters.json"])

    def hash(self, deployment: str = "support") -> str:
        return hashlib.sha256(self.content(deployment).encode()).hexdigest()

    def annotation(self, pod: str) -> str | None:
        value: str | None = self.get("Pod", pod)["metadata"]["annotations"].get(names.ANNOTATION_ADAPTERS_HASH)
        return value

    def writes(self) -> list[tuple[str, str, str]]:
        """Return and forget what was written since the last call."""
        found, self.cluster.writes = self.cluster.writes, []
        return found
