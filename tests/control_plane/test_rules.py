"""Every rule of the CRDs, on a real API server: what is accepted, what is refused, and that the message says what to do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from graftwork.api.crds import KINDS, crd

from tests.control_plane.objects import DIGEST, Objects, spec_of

LLM, FTJ, LORA = "LLMDeployment", "FineTuneJob", "LoRAAdapter"

ELSEWHERE: dict[str, Any] = {"digest": None, "rank": None, "baseModel": None}
"""What an adapter from elsewhere needs not say."""


def canary(**settings: Any) -> dict[str, Any]:
    return {"name": "a", "promotion": "Canary", "canary": settings}


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    (LLM, {"model.source": "hf://Qwen/Qwen3-0.6B"}),
    (LLM, {"model.source": "hf://01-ai/Yi_1.5", "model.revision": "refs/pr/1", "model.credentialsSecret": "hub"}),
    (LLM, {"model.revision": ""}),
    (LLM, {"model.source": "pvc://m/models/tiny-1"}),
    (LLM, {"model.source": "s3://models/Qwen/Qwen3_8B.v1/"}),
    (LLM, {"model.source": "s3://m/tiny", "cache": {"mode": "Shared", "storageClass": "files.example", "size": "100Gi", "keep": 3}}),
    (LLM, {"model.source": "s3://m/tiny", "cache": {"mode": "PerPod", "size": 5000000000}}),
    (LLM, {"model.source": "pvc://m/tiny", "cache": {"mode": "None"}}),
    (LLM, {"model.source": "pvc://m/tiny", "cache": {"mode": "auto", "size": "auto"}}),
    (LLM, {"engine.maxModelLen": 8192, "engine.maxNumSeqs": 4}),
    (LLM, {"engine.args": {"enable-prefix-caching": True, "seed": 1, "swap-space": 0.5, "tokenizer-mode": "slow", "disable-log-stats": None}}),
    (LLM, {"engine.env": [{"name": "A", "value": "1"}, {"name": "B"}]}),
    (LLM, {"engine.quantization": "fp8", "engine.kvCacheDtype": "fp8_e5m2", "engine.prefixCaching": False, "engine.trustRemoteCode": True}),
    (LLM, {"engine.speculative": {"method": "ngram", "tokens": 5}, "engine.parallelism": {"tensor": 2, "pipeline": 2}, "accelerator": {"count": 4}}),
    (LLM, {"engine.reasoning": {"parser": "qwen3"}, "engine.toolCalling": {"parser": "hermes"}, "engine.parallelism": {"tensor": "auto"}}),
    (LLM, {"pod": {"securityContext": {"runAsUser": 2000, "runAsGroup": 0, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}}}),
    (LLM, {"pod": {"containerSecurityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}}),
    (LLM, {"accelerator": {"types": ["cpu"]}}),
    (LLM, {"accelerator": {"types": ["cpu"], "count": 0}}),
    (LLM, {"accelerator": {"count": 2}}),
    (LLM, {"replicas": 0}),
    (LLM, {"rollout": {"surge": 0, "progressDeadline": "1h30m", "autoRollback": False}}),
    (LLM, {"rollout": {"surge": "auto", "progressDeadline": "auto"}}),
    (LLM, {"adapters.aliases": [{"name": "medical", "adapter": "medical-7", "keep": 0}], "adapters.maxRank": 320}),
    (LLM, {"adapters.aliases": [{"name": "medical", "promotion": "Canary"}, {"name": "legal", "promotion": "Manual", "adapter": "legal-1"}]}),
    (LLM, {"adapters.aliases": [{"name": "a", "promotion": "Canary", "canary": {"steps": [1, 2, 99], "stepDuration": "10s"}}]}),
    (LLM, {"adapters.aliases": [{"name": "a", "promotion": "Canary", "canary": {"analysis": {"maxErrorRate": 0, "maxTTFTRatio": 0}}}]}),
    (LLM, {"pod": {"labels": {"team": "ml"}, "resources": {"requests": {"cpu": 2, "memory": "1.5Gi"}}, "tolerations": [{"operator": "Exists"}]}}),
    (LLM, {"access": {"ingress": {"host": "*.example.com", "path": "/", "annotations": {"a.example/b": "c"}}, "networkPolicy": {}}}),
    (LLM, {"access": {"networkPolicy": {"from": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/32"]}}]}}}),
    (LLM, {"access": {"route": {"parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}], "hostnames": ["a.example"]}}}),
    (FTJ, {"deploymentRef": None, "baseModel": {"source": "pvc://models/tiny"}}),
    (FTJ, {"dataset.source": "s3://data/a/b.jsonl", "dataset.validation": 0.5}),
    (FTJ, {"lora.targetModules": ["q_proj", "v_proj"], "training.batchSize": 8, "training.maxSteps": 60}),
    (FTJ, {"timeLimit": "1h30m"}),
    (LLM, {"adapters.maxRank": "auto", "model.compatibleBases": ["hf://Qwen/Qwen3-8B", "s3://models/qwen"]}),
    (LORA, {**ELSEWHERE, "source": "hf://acme/legal-lora"}),
    (LORA, {**ELSEWHERE, "source": "hf://acme/Legal_LoRA.v1/adapters/legal@refs/pr/1", "credentialsSecret": "hub"}),
    (LORA, {**ELSEWHERE, "source": "s3://foreign/adapters/Legal_1/", "serviceAccountName": "bucket-reader"}),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com:8443/adapters/legal/"}),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com/adapters/legal-1.tar.gz"}),
    (LORA, {"source": "hf://acme/legal-lora"}),
    (LORA, {"owner": "tickets", "lineage": {"job": "tickets", "run": 12, "metrics": {"baseLoss": 7.1, "adapterLoss": 1}}}),
]

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # --- sources
    (LLM, {"model.source": "ftp://Qwen/Qwen3-8B"}, '"ftp://Qwen/Qwen3-8B" is refused: a source is hf://<owner>/<repository>, s3://<bucket>/<key> or'),
    (LLM, {"model.source": "https://Qwen/Qwen3-8B"}, "is copied into a bucket or a claim first"),
    (LLM, {"model.source": "hf://Qwen"}, "is refused: a source is hf://<owner>/<repository>"),
    (LLM, {"model.source": "hf://Qwen/Qwen3-8B/folder"}, "is refused: a source is hf://<owner>/<repository>"),
    (LLM, {"model.source": "hf://Qwen/Qwen3-8B@main"}, "a branch, tag or commit of a hub goes into model.revision"),
    (LLM, {"model.source": "hf://Qwen/$(HF_TOKEN)"}, "is refused: a source is hf://<owner>/<repository>"),
    (LLM, {"model.source": "hf://Qwen/Qwen3-8B", "model.revision": "$(HF_TOKEN)"}, "spec.model.revision"),
    (LLM, {"model.source": "hf://Qwen/Qwen3-8B", "model.revision": "a..b"}, "write its name without .. and //"),
    (LLM, {"model.revision": "main"}, "model.revision has a meaning for hf:// sources only"),
    (FTJ, {"deploymentRef": None, "baseModel": {"source": "hf://Qwen/Qwen3-8B"}}, '"hf://Qwen/Qwen3-8B" is refused'),
    (LLM, {"model.source": "s3://models"}, "is refused: a source is"),
    (LLM, {"model.source": "s3://m/tiny", "cache": {"mode": "None"}}, "cache.mode None is for pvc:// sources"),
    (LLM, {"model.source": "pvc://m/tiny", "cache": {"mode": "Shared"}}, "cache.mode None is for pvc:// sources"),
    (LLM, {"model.source": "pvc://m/tiny", "cache": {"mode": "PerPod"}}, "cache.mode None is for pvc:// sources"),
    (LLM, {"cache": {"mode": "Never"}}, "spec.cache.mode"),
    (LLM, {"cache": {"size": "plenty"}}, "spec.cache.size"),
    (LLM, {"cache": {"size": 0}}, "is refused: cache.size is a quantity such as 100Gi, or auto"),
    (LLM, {"cache": {"keep": 0}}, "spec.cache.keep"),
    (LLM, {"model.source": "pvc://models/../secrets"}, "without empty, . or .. parts"),
    (LLM, {"model.source": "pvc://models/a//b"}, "without empty, . or .. parts"),
    (LLM, {"model.source": "s3://models/a b"}, "is refused: a source is"),
    (LLM, {"model": {}}, "spec.model.source: Required value"),
    # --- rollouts
    (LLM, {"rollout": {"surge": "some"}}, '"some" is refused: rollout.surge is a whole number from 0 to 100, or auto'),
    (LLM, {"rollout": {"surge": -1}}, "rollout.surge is a whole number from 0 to 100, or auto"),
    (LLM, {"rollout": {"progressDeadline": "10s"}}, "rollout.progressDeadline is a duration of at least 30s"),
    (LLM, {"rollout": {"progressDeadline": "soon"}}, "spec.rollout.progressDeadline"),
    (FTJ, {"deploymentRef": None, "baseModel": {"source": "configMap://a/b"}}, '"configMap://a/b" is refused'),
    (FTJ, {"dataset.source": "https://example.com/a.jsonl"}, "or configMap://<name>/<key> or pvc://<claim>/<path>"),
    (LORA, {**ELSEWHERE, "source": "ftp://adapters/medical"}, '"ftp://adapters/medical" is refused: a source is store://<namespace>/<alias>/'),
    (LORA, {**ELSEWHERE, "source": "s3://adapters"}, "is refused: a source is store://"),
    (LORA, {**ELSEWHERE, "source": "s3://adapters/a b"}, "is refused: a source is store://"),
    (LORA, {**ELSEWHERE, "source": "hf://legal-lora"}, "hf://<owner>/<repository>[/<folder>][@<revision>]"),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com/legal"}, "https://<host>/<folder>/ (with the slash at its end)"),
    (LORA, {**ELSEWHERE, "source": "https://me:secret@files.example.com/legal/"}, "without credentials or a query in it"),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com/legal.zip?token=1"}, "without credentials or a query in it"),
    (LORA, {**ELSEWHERE, "source": "s3://bucket/$$$(AWS_SECRET_ACCESS_KEY)"}, "and without $"),
    (LORA, {**ELSEWHERE, "source": "hf://acme/legal/$(HF_TOKEN)"}, "and without $"),
    (LORA, {**ELSEWHERE, "source": "hf://acme/legal@$(HF_TOKEN)"}, "and without $"),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com/$(AUTHORIZATION)/"}, "and without $"),
    (LORA, {**ELSEWHERE, "source": "https://files.example.com/$(AUTHORIZATION).zip"}, "and without $"),
    (LORA, {**ELSEWHERE, "source": "http://files.example.com/legal.zip"}, "is refused: a source is store://"),
    (LORA, {**ELSEWHERE, "source": "s3://adapters/../secrets"}, "a source has no . or .. parts"),
    (LORA, {**ELSEWHERE, "source": "hf://acme/legal/..@main"}, "a source has no . or .. parts"),
    (LORA, {"digest": None}, "a store:// source needs digest, rank and baseModel.fingerprint"),
    (LORA, {"rank": None}, "a store:// source needs digest, rank and baseModel.fingerprint"),
    (LORA, {"baseModel": None}, "a store:// source needs digest, rank and baseModel.fingerprint"),
    (LORA, {"credentialsSecret": "hub"}, "credentialsSecret and serviceAccountName are for an import"),
    (LORA, {"serviceAccountName": "reader"}, "credentialsSecret and serviceAccountName are for an import"),
    (LORA, {**ELSEWHERE, "source": "hf://acme/legal-lora", "rank": 0}, "should be greater than or equal to 1"),
    (LORA, {"source": "store://ml/medical/aaaaaaaaaaaa"}, "source must end with the first 12 hex digits of digest"),
    # --- numbers and words
    (LLM, {"engine.maxModelLen": "8k"}, '"8k" is refused: engine.maxModelLen is a whole number from 1 to 10000000, or auto'),
    (LLM, {"engine.maxModelLen": 0}, '"0" is refused: engine.maxModelLen'),
    (LLM, {"engine.maxNumSeqs": -1}, "engine.maxNumSeqs is a whole number from 1"),
    (LLM, {"engine.gpuMemoryUtilization": 0}, "spec.engine.gpuMemoryUtilization"),
    (LLM, {"engine.gpuMemoryUtilization": 1.1}, "should be less than or equal to 1"),
    (LLM, {"engine.dtype": "int4"}, "supported values"),
    (LLM, {"engine.quantization": "bitsandbytes"}, 'Unsupported value: "bitsandbytes": supported values: "auto"'),
    (LLM, {"engine.kvCacheDtype": "int4"}, "spec.engine.kvCacheDtype: Unsupported value"),
    (LLM, {"engine.speculative": {"method": "eagle3", "tokens": 3}}, 'supported values: "dspark", "mtp", "ngram", "ngram_gpu"'),
    (LLM, {"engine.speculative": {"method": "ngram"}}, "spec.engine.speculative.tokens: Required value"),
    (LLM, {"engine.speculative": {"method": "ngram", "tokens": 0}}, "should be greater than or equal to 1"),
    (LLM, {"engine.reasoning": {"parser": "thinker"}}, "spec.engine.reasoning.parser: Unsupported value"),
    (LLM, {"engine.toolCalling": {}}, "spec.engine.toolCalling.parser: Required value"),
    (LLM, {"engine.parallelism": {"tensor": "many"}}, '"many" is refused: engine.parallelism.tensor is a whole number from 1 to 16, or auto'),
    (LLM, {"engine.parallelism": {"pipeline": 17}}, "should be less than or equal to 16"),
    (LLM, {"pod": {"securityContext": {"runAsUser": -1}}}, "should be greater than or equal to 0"),
    (
        LLM,
        {"pod": {"securityContext": {"seccompProfile": {"type": "Localhost"}}}},
        "seccompProfile.localhostProfile is the profile's file on the node",
    ),
    (LLM, {"pod": {"containerSecurityContext": {"capabilities": {"add": ["net admin"]}}}}, "spec.pod.containerSecurityContext.capabilities.add[0]"),
    (LLM, {"engine.args": {"a": {"b": 1}}}, "spec.engine.args.a"),
    (LLM, {"engine.args": {"a": ["b"]}}, "spec.engine.args.a"),
    (LLM, {"engine.env": [{"name": "A"}, {"name": "A"}]}, "Duplicate value"),
    (LLM, {"engine.env": [{"name": "A B"}]}, "spec.engine.env[0].name"),
    (LLM, {"replicas": -1}, "should be greater than or equal to 0"),
    (LLM, {"adapters.maxRank": 24}, '"24" is refused: adapters.maxRank is one of 1, 8, 16, 32, 64, 128, 256, 320, 512, or auto'),
    (LLM, {"adapters.maxRank": "high"}, '"high" is refused: adapters.maxRank is one of'),
    (LLM, {"model.compatibleBases": [""]}, "spec.model.compatibleBases[0]"),
    (LLM, {"service.port": 80}, "should be greater than or equal to 1024"),
    (FTJ, {"training.batchSize": "many"}, "training.batchSize is a whole number from 1 to 4096, or auto"),
    (FTJ, {"dataset.validation": 0.6}, "should be less than or equal to 0.5"),
    (FTJ, {"evaluation.gate.minImprovement": -1}, "should be greater than or equal to 0"),
    (FTJ, {"method": "full"}, "supported values"),
    (FTJ, {"timeLimit": "1d"}, "spec.timeLimit"),
    (FTJ, {"timeLimit": "30s"}, "timeLimit is a duration of at least 1m, such as 90m or 24h"),
    (FTJ, {"lora.targetModules": ["all-linear", "q_proj"]}, "all-linear stands alone"),
    (LORA, {"digest": "3f2a"}, "spec.digest"),
    (LORA, {"version": 0}, "should be greater than or equal to 1"),
    (LORA, {"baseModel": {"source": "s3://models/tiny"}}, "a store:// source needs digest, rank and baseModel.fingerprint"),
    # --- how it is reached
    (LLM, {"access": {"ingress": {}}}, "spec.access.ingress.host: Required value"),
    (LLM, {"access": {"ingress": {"host": "https://a.example"}}}, "spec.access.ingress.host"),
    (LLM, {"access": {"ingress": {"host": "a.example", "path": "/v1/../metrics"}}}, "spec.access.ingress.path"),
    (LLM, {"access": {"ingress": {"host": "a.example", "annotations": {"x.example/server-snippet": "x"}}}}, "make an Ingress of your own"),
    (LLM, {"access": {"ingress": {"host": "a.example", "annotations": {"graftwork.dev/x": "x"}}}}, "keys graftwork.dev/*"),
    (LLM, {"access": {"route": {"parentRefs": []}}}, "should have at least 1 items"),
    (LLM, {"access": {"networkPolicy": {"from": [{}]}}}, "a peer is an ipBlock, or a namespaceSelector, a podSelector, or both of these"),
    (LLM, {"access": {"networkPolicy": {"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}}}, "a peer is an ipBlock, or a"),
    (LLM, {"access": {"networkPolicy": {"scrapers": [{"ipBlock": {"cidr": "10.0.0.0"}}]}}}, "scrapers[0].ipBlock.cidr"),
    # --- fields that exclude or need each other
    (FTJ, {"baseModel": {"source": "s3://models/tiny"}}, "exactly one of deploymentRef"),
    (FTJ, {"deploymentRef": None}, "exactly one of deploymentRef"),
    (LLM, {"accelerator": {"types": ["cpu"], "count": 1}}, "accelerator.count is a number of GPUs: leave it out (or 0) with types [cpu]"),
    (LLM, {"accelerator": {"count": 0}}, "write types [cpu] to run without one"),
    (LLM, {"accelerator": {"types": ["nvidia-l4"]}}, "supported values"),
    (FTJ, {"accelerator": {"types": ["cpu"], "count": 1}}, "accelerator.count is a number of GPUs"),
    (LLM, {"pod": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, "nvidia.com/gpu is set by accelerator.count"),
    (LLM, {"adapters.aliases": [{"name": "a", "canary": {}}]}, "canary has a meaning with promotion Canary only"),
    (LLM, {"adapters.aliases": [{"name": "a", "promotion": "Manual", "canary": {"steps": [5]}}]}, "set promotion to Canary, or remove canary"),
    # --- canaries
    (LLM, {"adapters.aliases": [{"name": "a", "promotion": "Never"}]}, "supported values"),
    (LLM, {"adapters.aliases": [canary(steps=[50, 10])]}, "canary.steps are percentages in strictly ascending order, such as [10, 50]"),
    (LLM, {"adapters.aliases": [canary(steps=[10, 10])]}, "canary.steps are percentages in strictly ascending order"),
    (LLM, {"adapters.aliases": [canary(steps=[10, 100])]}, "should be less than or equal to 99"),
    (LLM, {"adapters.aliases": [canary(steps=[0])]}, "should be greater than or equal to 1"),
    (LLM, {"adapters.aliases": [canary(steps=[])]}, "should have at least 1 items"),
    (LLM, {"adapters.aliases": [canary(stepDuration="9s")]}, "canary.stepDuration is a duration of at least 10s, such as 90s or 5m"),
    (LLM, {"adapters.aliases": [canary(stepDuration="5 minutes")]}, "canary.stepDuration"),
    (LLM, {"adapters.aliases": [canary(analysis={"maxErrorRate": 1.5})]}, "should be less than or equal to 1"),
    (LLM, {"adapters.aliases": [canary(analysis={"minRequests": 0})]}, "should be greater than or equal to 1"),
    # --- names and keys
    (LLM, {"adapters.aliases": [{"name": "a--b"}]}, '"a--b" is refused: an alias never contains --'),
    (LLM, {"adapters.aliases": [{"name": "Medical"}]}, "spec.adapters.aliases[0].name"),
    (LLM, {"adapters.aliases": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
    (LLM, {"adapters.aliases": [{"name": "one"}]}, "alias equal to the base's served name"),
    (LLM, {"adapters.aliases": [{"name": "a"}], "model.servedName": "a"}, "alias equal to the base's served name"),
    (FTJ, {"publish.alias": "a--b"}, "an alias never contains --"),
    (FTJ, {"publish.alias": "a" * 41}, "may not be more than 40"),
    (LORA, {"alias": "a--b"}, "an alias never contains --"),
    (LLM, {"pod": {"labels": {"graftwork.dev/deployment": "x"}}}, "keys graftwork.dev/* and app.kubernetes.io/managed-by belong to Graftwork"),
    (LLM, {"pod": {"annotations": {"graftwork.dev/adapters-hash": "x"}}}, "belong to Graftwork"),
    (FTJ, {"publish.labels": {"app.kubernetes.io/managed-by": "me"}}, "belong to Graftwork"),
]


@pytest.mark.parametrize(("kind", "changes"), ACCEPTED, ids=str)
def test_valid_spec_is_accepted(objects: Objects, kind: str, changes: dict[str, Any]) -> None:
    answer = objects.create(kind, spec_of(kind, changes))
    assert answer.status_code == httpx.codes.CREATED, answer.text


@pytest.mark.parametrize(("kind", "changes", "says"), REFUSED, ids=str)
def test_wrong_spec_is_refused_with_a_message_that_helps(objects: Objects, kind: str, changes: dict[str, Any], says: str) -> None:
    answer = objects.create(kind, spec_of(kind, changes))
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("kind", "name"), [(LLM, "a" * 53), (LLM, "1-starts-with-a-digit"), (LLM, "a.b"), (FTJ, "a" * 53), (FTJ, "a.b"), (LORA, "a" * 53), (LORA, "a.b")]
)
def test_name_that_children_could_not_have_is_refused(objects: Objects, kind: str, name: str) -> None:
    answer = objects.create(kind, spec_of(kind), name)
    assert answer.status_code == 422
    assert f'"{name}" is refused: the name of' in answer.json()["message"]


def test_every_rule_has_a_case() -> None:
    """A rule that nothing here breaks would not be missed if it were gone."""
    said = [says for _, _, says in REFUSED] + ["the name of", "immutable"]
    for kind in KINDS:
        for message in messages(crd(kind)):
            assert any(says.partition("is refused: ")[2] in message if "is refused: " in says else says in message for says in said), message


def messages(node: Any) -> list[str]:
    if isinstance(node, list):
        return [message for item in node for message in messages(item)]
    if not isinstance(node, dict):
        return []
    own = [rule["message"] for rule in node.get("x-kubernetes-validations", [])]
    return own + [message for child in node.values() for message in messages(child)]


# --- immutability

CHANGES: list[tuple[str, str, Any]] = [
    (FTJ, "deploymentRef", "other"),
    (FTJ, "dataset.source", "configMap://tickets/other.jsonl"),
    (FTJ, "dataset.validation", 0.2),
    (FTJ, "method", "lora"),
    (FTJ, "lora.targetModules", ["q_proj"]),
    (FTJ, "training.maxSteps", 10),
    (FTJ, "training.batchSize", 2),
    (FTJ, "accelerator", {"types": ["cpu"]}),
    (FTJ, "evaluation.gate.minImprovement", 0.5),
    (FTJ, "publish.alias", "other"),
    (FTJ, "pod", {"labels": {"a": "b"}}),
    (LORA, "alias", "other"),
    (LORA, "version", 9),
    (LORA, "owner", "other"),
    (LORA, "rank", 8),
    (LORA, "baseModel.source", "s3://models/other"),
    (LORA, "lineage", {"job": "other"}),
]


@pytest.mark.parametrize(("kind", "path", "value"), CHANGES, ids=str)
def test_immutable_field_cannot_change(objects: Objects, kind: str, path: str, value: Any) -> None:
    stored = objects.made(kind)
    stored["spec"] = {**stored["spec"], **spec_of(kind, {**_whole(stored, path), path: value})}
    answer = objects.replace(stored)
    assert answer.status_code == 422, answer.text
    message = answer.json()["message"]
    assert f"{path.split('.', maxsplit=1)[0]} is immutable" in message
    assert ("Create another FineTuneJob" if kind == FTJ else "Publish other weights as a new LoRAAdapter") in message


def _whole(stored: dict[str, Any], path: str) -> dict[str, Any]:
    top = path.split(".", maxsplit=1)[0]
    return {top: stored["spec"][top]} if top in stored["spec"] else {}


@pytest.mark.parametrize(("kind", "field"), [(FTJ, "deploymentRef"), (FTJ, "accelerator"), (FTJ, "pod"), (LORA, "owner"), (LORA, "lineage")])
def test_removing_an_optional_immutable_field_is_refused(objects: Objects, kind: str, field: str) -> None:
    """A rule on the field itself would let it be removed, and then be added with another value."""
    values = {"accelerator": {"types": ["cpu"]}, "pod": {"labels": {"a": "b"}}, "owner": "tickets", "lineage": {"job": "tickets"}}
    objects.made(kind, {field: values[field]} if field in values else None)
    answer = objects.patch(kind, [{"op": "remove", "path": f"/spec/{field}"}])
    assert answer.status_code == 422, answer.text
    assert f"{field} is immutable" in answer.json()["message"]


@pytest.mark.parametrize("field", ["credentialsSecret", "serviceAccountName"])
def test_where_an_import_has_its_rights_from_cannot_change(objects: Objects, field: str) -> None:
    objects.made(LORA, {**ELSEWHERE, "source": "s3://foreign/legal", field: "mine"})
    for change in ("other", None):
        answer = objects.patch(LORA, {"spec": {field: change}})
        assert answer.status_code == 422, answer.text
        assert f"{field} is immutable" in answer.json()["message"]


def test_an_import_cannot_be_given_a_digest_afterwards(objects: Objects) -> None:
    objects.made(LORA, {**ELSEWHERE, "source": "hf://acme/legal-lora"})
    answer = objects.patch(LORA, {"spec": {"digest": DIGEST}})
    assert answer.status_code == 422
    assert "digest is immutable" in answer.json()["message"]


@pytest.mark.parametrize("kind", [FTJ, LORA])
def test_dropping_the_whole_spec_is_refused(objects: Objects, kind: str) -> None:
    objects.made(kind)
    answer = objects.patch(kind, [{"op": "remove", "path": "/spec"}])
    assert answer.status_code == 422
    assert "spec: Required value" in answer.json()["message"]


def test_switching_from_deployment_to_base_model_is_refused(objects: Objects) -> None:
    objects.made(FTJ)
    answer = objects.patch(FTJ, {"spec": {"deploymentRef": None, "baseModel": {"source": "s3://models/other"}}})
    assert answer.status_code == 422
    assert "deploymentRef is immutable" in answer.json()["message"]
    assert "baseModel is immutable" in answer.json()["message"]


@pytest.mark.parametrize("change", [{"suspend": True}, {"retry": {"limit": 0}}, {"timeLimit": "2h"}, {"suspend": None}], ids=str)
def test_what_a_running_job_may_change_can_be_changed(objects: Objects, change: dict[str, Any]) -> None:
    objects.made(FTJ)
    answer = objects.patch(FTJ, {"spec": change})
    assert answer.status_code == 200, answer.text


def test_an_alias_gets_a_canary_only_if_it_asks_for_one(objects: Objects) -> None:
    """A default of `canary` would break the rule that only promotion Canary has one."""
    aliases = [{"name": "a"}, {**canary(), "name": "b"}, {"name": "c", "promotion": "Canary"}]
    stored = objects.made(LLM, {"adapters.aliases": aliases})["spec"]["adapters"]["aliases"]
    assert [sorted(alias) for alias in stored] == [
        ["keep", "name", "promotion"],
        ["canary", "keep", "name", "promotion"],
        ["keep", "name", "promotion"],
    ]
    assert stored[1]["canary"] == {
        "steps": [10, 50],
        "stepDuration": "5m",
        "analysis": {"maxErrorRate": 0.01, "maxTTFTRatio": 1.2, "minRequests": 50},
    }


def test_served_deployment_can_be_changed(objects: Objects) -> None:
    objects.made(LLM)
    answer = objects.patch(LLM, {"spec": {"model": {"source": "pvc://models/other"}, "engine": None, "replicas": 4}})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", [FTJ, LORA])
def test_finalizer_and_status_can_be_written_on_an_immutable_object(objects: Objects, kind: str) -> None:
    objects.made(kind)
    steps = (
        ({"metadata": {"finalizers": ["graftwork.dev/finalizer"]}}, ""),
        ({"status": {"observedGeneration": 1}}, "status"),
        ({"metadata": {"finalizers": None}}, ""),
    )
    for body, part in steps:
        answer = objects.patch(kind, body, part=part)
        assert answer.status_code == httpx.codes.OK, answer.text


def test_digest_of_a_published_adapter_cannot_change_with_its_source(objects: Objects) -> None:
    objects.made(LORA)
    other = DIGEST.replace("3f2a9c41d0e7", "aaaaaaaaaaaa")
    answer = objects.patch(LORA, {"spec": {"digest": other, "source": "store://ml/medical/aaaaaaaaaaaa"}})
    assert answer.status_code == 422
    assert "digest is immutable" in answer.json()["message"]
