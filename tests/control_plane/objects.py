"""Objects of the three kinds for tests: the smallest valid ones, and requests about them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

DIGEST = "sha256:" + "3f2a9c41d0e7" + "0" * 52
PLURALS = {"LLMDeployment": "llmdeployments", "FineTuneJob": "finetunejobs", "LoRAAdapter": "loraadapters"}
SPECS: dict[str, dict[str, Any]] = {
    "LLMDeployment": {"model": {"source": "pvc://models/tiny"}},
    "FineTuneJob": {"deploymentRef": "support", "dataset": {"source": "configMap://tickets/tickets.jsonl"}, "publish": {"alias": "medical"}},
    "LoRAAdapter": {
        "alias": "medical",
        "version": 8,
        "source": "store://ml/medical/3f2a9c41d0e7",
        "digest": DIGEST,
        "baseModel": {"source": "s3://models/tiny", "fingerprint": DIGEST},
        "rank": 16,
    },
}


def spec_of(kind: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the smallest valid spec with `changes` by dotted path; None removes a field."""
    spec = copy.deepcopy(SPECS[kind])
    for path, value in (changes or {}).items():
        target = spec
        *parents, last = path.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return spec


@dataclass(frozen=True)
class Objects:
    """Requests about objects of the three kinds in one namespace. Methods return the raw answer, so that a test can look at a refusal."""

    client: httpx.Client
    namespace: str

    def url(self, kind: str, name: str = "", part: str = "") -> str:
        """Return the path of a collection, an object or a subresource."""
        return "/".join(filter(None, ("/apis/graftwork.dev/v1alpha1/namespaces", self.namespace, PLURALS[kind], name, part)))

    def create(self, kind: str, spec: Mapping[str, Any] | None, name: str = "one") -> httpx.Response:
        """Create an object; `spec` None: without one."""
        body: dict[str, Any] = {"apiVersion": "graftwork.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
        if spec is not None:
            body["spec"] = spec
        return self.client.post(self.url(kind), json=body)

    def made(self, kind: str, changes: Mapping[str, Any] | None = None, name: str = "one") -> dict[str, Any]:
        """Create a valid object and return it as the API server stores it."""
        answer = self.create(kind, spec_of(kind, changes), name)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return dict(answer.json())

    def replace(self, obj: Mapping[str, Any]) -> httpx.Response:
        """Write the whole object back."""
        return self.client.put(self.url(obj["kind"], obj["metadata"]["name"]), json=dict(obj))

    def patch(self, kind: str, patch: Any, name: str = "one", part: str = "") -> httpx.Response:
        """Send a merge patch, or a JSON patch if it is a list."""
        media = "application/json-patch+json" if isinstance(patch, list) else "application/merge-patch+json"
        return self.client.patch(self.url(kind, name, part), json=patch, headers={"Content-Type": media})
