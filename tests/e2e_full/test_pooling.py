"""Models that answer with vectors and scores: the same numbers as transformers', through our guard, with and without adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import engine_tables
from tests.e2e.engine_models import LLAVA, Case
from tests.e2e.service import Service
from tests.e2e_full.conftest import Answers, serve
from tests.e2e_full.models import QUERY, TEXTS
from tests.harness import ask
from tests.harness.kube import Kube, Object, condition

CLOSE = 2e-3
"""Both compute in float32, in another order."""


def adapter(fingerprint: str) -> Object:
    """Return an adapter of the reranker's own weights; nobody comes so far as to look for its files."""
    files = {"digest": f"sha256:{'a' * 64}", "source": f"store://e2e/words/{'a' * 12}"}
    return {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": "words-1", "labels": {"serves": "reranker"}},
        "spec": {"alias": "words", "version": 1, "rank": 8, "baseModel": {"fingerprint": fingerprint}, **files},
    }


@pytest.fixture(scope="module")
def embedding(kube: Kube, answers: Answers) -> Iterator[Service]:
    """The embedding model, ready."""
    yield serve(kube, "embedding", adapters={"maxLoaded": 1, "maxRank": 8, "selector": {"matchLabels": {"none": "of-these"}}})
    kube.delete("llmdeployment", "embedding")


@pytest.fixture(scope="module")
def reranker(kube: Kube, answers: Answers) -> Iterator[Service]:
    """The reranker, ready."""
    yield serve(kube, "reranker", adapters={"selector": {"matchLabels": {"serves": "reranker"}}})
    kube.delete("llmdeployment", "reranker")


def arguments(kube: Kube, name: str) -> list[str]:
    found = kube.get("deployment", name)
    assert found
    return list(found["spec"]["template"]["spec"]["containers"][0]["args"])


def test_vectors_are_those_of_transformers(embedding: Service, answers: Answers) -> None:
    said = ask.post(embedding.host, embedding.port, "/v1/embeddings", {"model": "embedding", "input": TEXTS})
    assert (said.status, said.model) == (200, "embedding"), said.body
    found = [row["embedding"] for row in said.body["data"]]
    assert found == [pytest.approx(vector, abs=CLOSE) for vector in answers.vectors]
    assert answers.vectors[0] != pytest.approx(answers.vectors[1], abs=0.05), "vectors that are all alike would prove nothing"


def test_vllm_finds_by_itself_that_it_embeds_and_takes_adapters(kube: Kube, embedding: Service) -> None:
    found = arguments(kube, "embedding")
    assert "--enable-lora" in found
    assert not [item for item in found if item.startswith(("--runner", "--convert"))]
    assert embedding.ask("embedding").status == 404, "there is no chat with an embedding model"


def test_scores_are_those_of_transformers(reranker: Service, answers: Answers) -> None:
    said = ask.post(reranker.host, reranker.port, "/v1/score", {"model": "reranker", "text_1": QUERY, "text_2": TEXTS})
    assert (said.status, said.model) == (200, "reranker"), said.body
    assert [row["score"] for row in said.body["data"]] == pytest.approx(answers.scores, abs=CLOSE)
    assert max(answers.scores) - min(answers.scores) > 10 * CLOSE, "scores that are all alike would prove nothing"


def test_a_rerank_puts_them_in_order(reranker: Service, answers: Answers) -> None:
    said = ask.post(reranker.host, reranker.port, "/v1/rerank", {"model": "reranker", "query": QUERY, "documents": TEXTS})
    assert said.status == 200, said.body
    order = sorted(range(len(TEXTS)), key=lambda index: -answers.scores[index])
    assert [row["index"] for row in said.body["results"]] == order


def test_a_model_that_sees_is_taken_for_text_with_the_limits_of_the_arguments(kube: Kube, embedding: Service) -> None:
    """As far as the engine's configuration: none is loaded."""
    case = Case(LLAVA, engine={"args": {"limit-mm-per-prompt": '{"image": 2}'}})
    asked = json.dumps([{"files": case.files, "arguments": case.arguments}])
    script = Path(engine_tables.__file__).read_text(encoding="utf-8")
    pod = embedding.pod()["metadata"]["name"]
    (said,) = json.loads(kube.run("exec", pod, "-c", "vllm", "--", "python3", "-c", script, asked, "models", timeout=240).splitlines()[-1])
    if "failed to be inspected" in said["error"]:
        pytest.skip("vLLM's classes of models that see import torchvision, which the image for CPUs does not have")
    assert (said["error"], said.get("runner"), said.get("multimodal")) == ("", "generate", True)
    assert "image" in said["limits"]


def test_an_architecture_without_lora_is_served_without_and_its_adapters_say_why(kube: Kube, reranker: Service) -> None:
    assert not [item for item in arguments(kube, "reranker") if "lora" in item]
    served = kube.get("llmdeployment", "reranker")
    assert served
    kube.apply(adapter(served["status"]["model"]["fingerprint"]))
    found = kube.wait_condition("loraadapter", "words-1", "Stalled", timeout=60)
    assert condition(found, "Stalled")["reason"] == "LoRANotSupported"
    assert "BertForSequenceClassification" in condition(found, "Stalled")["message"]
    config_map = kube.get("configmap", "reranker-adapters")
    assert config_map
    assert '"adapters":[]' in config_map["data"]["adapters.json"]
    kube.delete("loraadapter", "words-1")
