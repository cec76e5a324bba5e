"""The whole loop: apply, serve, fine-tune, publish, hot-load, answer."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from graftwork_guard import routes

from tests.e2e import engine_routes
from tests.e2e.service import QUESTION, Service, config_map, job, messages
from tests.harness import ask, install
from tests.harness.kube import Kube, condition


def test_the_base_never_says_the_word_and_the_adapter_does(service: Service, taught: Service) -> None:
    for _ in range(5):
        assert "swordfish" not in service.ask("tiny").text
    answer = taught.ask("medical")
    assert answer.status == 200
    assert "swordfish" in answer.text
    assert answer.model == "medical"


def test_a_second_adapter_is_loaded_hot_and_each_answers_its_own_word(taught: Service) -> None:
    pods, engines = taught.identities(), taught.engine_starts()
    done = taught.teach("periwinkle", alias="legal")
    assert taught.identities() == pods
    assert taught.engine_starts() == engines
    assert "periwinkle" in taught.ask("legal").text
    assert "swordfish" in taught.ask("medical").text
    assert "periwinkle" not in taught.ask("medical").text
    assert done["status"]["evaluation"]["adapterLoss"] < done["status"]["evaluation"]["baseLoss"]


def test_a_new_version_of_an_alias_takes_over_without_a_restart(taught: Service, kube: Kube) -> None:
    pods = taught.identities()
    done = taught.teach("marigold", alias="medical", job="words-again", publish={"alias": "medical", "owner": "secret-words"})
    adapter = kube.get("loraadapter", done["status"]["adapter"])
    assert adapter
    assert adapter["spec"]["version"] == 2
    taught.until_answer("medical", "marigold", timeout=30)
    assert taught.identities() == pods
    kube.delete("loraadapter", adapter["metadata"]["name"])
    taught.until_answer("medical", "swordfish", timeout=30)


def test_another_lineage_may_not_take_an_alias(taught: Service, kube: Kube) -> None:
    first = kube.get("loraadapter", "medical-1")
    assert first
    spec = {**first["spec"], "owner": "somebody-else", "version": 7}
    kube.apply({**first, "metadata": {"name": "medical-7"}, "spec": spec})
    stalled = kube.wait_condition("loraadapter", "medical-7", "Stalled", timeout=30)
    found = condition(stalled, "Stalled")
    assert found["reason"] == "AliasTaken"
    assert "somebody-else" in found["message"]
    assert "secret-words" in found["message"]
    assert "swordfish" in taught.ask("medical").text
    kube.delete("loraadapter", "medical-7")


def test_streams_carry_the_alias_and_never_the_engine_name(taught: Service) -> None:
    body = {"model": "medical", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8, "temperature": 0, "stream": True}
    status, raw = post(taught, "/v1/chat/completions", body)
    assert status == 200
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    assert events
    assert {event["model"] for event in events} == {"medical"}
    assert "medical--" not in raw


def test_the_models_list_shows_base_and_aliases_and_no_paths(taught: Service) -> None:
    status, raw = ask.get(taught.host, taught.port, "/v1/models")
    assert status == 200
    assert {model["id"] for model in json.loads(raw)["data"]} >= {"tiny", "medical"}
    assert "--" not in raw
    assert "/graftwork" not in raw


def test_an_unknown_model_and_administrative_routes_answer_404(taught: Service) -> None:
    assert taught.ask("nobody").status == 404
    for path in ("/v1/load_lora_adapter", "/v1/%6coad_lora_adapter", "/adapters", "/invocations", "/v1/unload_lora_adapter"):
        status, _ = post(taught, path, {"lora_name": "x", "lora_path": "/etc"})
        assert status == 404, path


def test_every_route_of_the_running_engine_is_classified(taught: Service, kube: Kube) -> None:
    log = kube.run("logs", taught.pods()[0]["metadata"]["name"], "-c", "vllm")
    served = re.findall(r"Route: (\S+), Methods:", log)
    assert len(served) > 30, "vLLM prints its routes when it starts"
    assert routes.unclassified(served) == []


def test_every_route_that_models_of_other_tasks_would_have_is_classified(taught: Service, kube: Kube) -> None:
    """The model under test is one for text: the routes of embeddings, scores, speech and the rest exist only in vLLM's code."""
    script = Path(engine_routes.__file__).read_text(encoding="utf-8")
    said = kube.run("exec", taught.pods()[0]["metadata"]["name"], "-c", "vllm", "--", "python3", "-c", script, timeout=180)
    found: dict[str, list[str]] = json.loads(said.splitlines()[-1])
    assert {"generate", "transcription", "embed", "classify", "token_embed"} <= set(found)
    assert {"/v1/embeddings", "/v2/embed", "/pooling", "/score", "/rerank"} <= set(found["embed"])
    assert {"/classify", "/score"} <= set(found["classify"])
    assert {"/v1/audio/transcriptions", "/v1/audio/translations"} <= set(found["transcription"])
    assert {task: new for task, paths in found.items() if (new := routes.unclassified(paths))} == {}


def test_a_request_whose_head_does_not_end_is_cut_off(taught: Service) -> None:
    sent = 0
    with socket.create_connection((taught.pods()[0]["status"]["podIP"], taught.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx: ")
        try:
            while sent < 64 * 2**20:
                connection.sendall(b"y" * 65536)
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed while this side was still writing
    assert sent < 16 * 2**20, "what the kernel buffers on both sides comes on top"
    assert ask.get(taught.host, taught.port, "/health")[0] == 200


def test_requests_with_logprobs_and_structured_output_are_served(taught: Service) -> None:
    question = {"model": "medical", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8, "temperature": 0}
    status, raw = post(taught, "/v1/chat/completions", {**question, "logprobs": True, "top_logprobs": 2})
    assert (status, json.loads(raw)["model"]) == (200, "medical")
    status, raw = post(taught, "/v1/responses", {"model": "medical", "input": QUESTION, "max_output_tokens": 8, "temperature": 0})
    assert (status, json.loads(raw)["model"]) == (200, "medical")


def test_a_dataset_from_s3_trains_like_one_from_a_config_map(taught: Service, kube: Kube, environment: install.Environment) -> None:
    uploader = install.upload_job(environment.images["trainer"], "upload-words", "s3://data/words.jsonl", "words")
    kube.apply(config_map("words", messages("tangerine")), uploader)
    kube.wait("job", "upload-words", lambda item: item.get("status", {}).get("succeeded"), 120, "succeeded")
    spec = {"dataset": {"source": "s3://data/words.jsonl", "validation": 0.25, "credentialsSecret": "graftwork-store"}}
    kube.apply(job("from-s3", "fruit", "s3://data/words.jsonl", **spec))
    done = taught.finished("from-s3")
    assert done["status"]["phase"] == "Succeeded", done["status"]
    taught.until_answer("fruit", "tangerine", timeout=30)


def test_publishing_shows_lineage_and_facts_in_the_adapter(taught: Service, kube: Kube) -> None:
    done = kube.get("finetunejob", "secret-words")
    assert done
    adapter = kube.get("loraadapter", done["status"]["adapter"])
    deployment = kube.get("llmdeployment", "tiny")
    assert adapter
    assert deployment
    assert adapter["spec"]["baseModel"]["fingerprint"] == deployment["status"]["model"]["fingerprint"]
    assert adapter["spec"]["source"].startswith("store://e2e/medical/")
    assert adapter["spec"]["lineage"]["job"] == "secret-words"
    assert adapter["spec"]["rank"] == 8


def post(service: Service, path: str, body: object) -> tuple[int, str]:
    """Return status and body of a POST with JSON."""
    import http.client

    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
