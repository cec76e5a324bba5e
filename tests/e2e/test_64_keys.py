"""API keys and limits on a deployment of their own: who may ask, for what, how much, and that no key is seen anywhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.answers import LongAnswer
from tests.e2e.keyring import SECRET, Keyring
from tests.e2e.service import QUESTION, Service
from tests.harness import ask, install, processes
from tests.harness.ask import Answer
from tests.harness.kube import Kube, Object

REFRESH_SECONDS = 120  # the kubelet refreshes the volume within about 90
LONG_TOKENS = 480
LONG_PROMPT = "the of and to in is " * 40  # 240 tokens: more than a block of the prefix cache (128 on a CPU), less than the context
BLOCK_TOKENS = 128


@dataclass(frozen=True)
class Keyed:
    """The deployment `keyed` with what it was given first."""

    service: Service
    ring: Keyring
    pods: list[tuple[str, int, str]]

    def chat(self, model: str = "keyed", name: str = "", headers: dict[str, str] | None = None, max_tokens: int = 1, **more: Any) -> Answer:
        """Ask with the key of a name, or with these headers."""
        given = self.ring.bearer(name) if name else headers
        return ask.chat(self.service.host, self.service.port, model, QUESTION, headers=given, max_tokens=max_tokens, **more)


@pytest.fixture(scope="module")
def keyed(keyed_begun: Keyring, kube: Kube) -> Iterator[Keyed]:
    """The deployment, ready; it is removed afterwards, and so is its alias."""
    service = Service.ready(kube, "keyed")
    kube.wait_condition("loraadapter", "locked-1", "Ready", timeout=120)
    yield Keyed(service, keyed_begun, service.identities())
    kube.delete("llmdeployment", "keyed")
    kube.delete("loraadapter", "locked-1")
    kube.delete("secret", SECRET)


def header(answer: Answer, name: str) -> str:
    """Return a header of an answer, however it is spelled; "" when there is none."""
    return next((value for key, value in answer.headers.items() if key.lower() == name), "")


def post(keyed: Keyed, path: str, body: object, headers: dict[str, str] | None = None) -> Answer:
    """Post to the deployment."""
    return ask.post(keyed.service.host, keyed.service.port, path, body, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer gw-" + "0" * 40},
        {"Authorization": "Basic Z3c6Z3c="},
        {"x-api-key": "gw-" + "0" * 40},
        {"X-Graftwork-Token": "0" * 64},
    ],
    ids=lambda headers: "-".join(f"{name}={value[:10]}" for name, value in headers.items()) or "none",
)
def test_without_a_known_key_nothing_is_answered(keyed: Keyed, headers: dict[str, str]) -> None:
    answer = keyed.chat(headers=headers)
    assert answer.status == 401
    assert answer.body["error"]["message"]


@pytest.mark.parametrize(
    "change", [str.upper, lambda key: key[:-1], lambda key: key + "0", lambda key: key[3:]], ids=["case", "short", "long", "bare"]
)
def test_what_is_nearly_a_key_is_none(keyed: Keyed, change: object) -> None:
    assert callable(change)
    assert keyed.chat(headers={"Authorization": f"Bearer {change(keyed.ring.key('open'))}"}).status == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "keyed", "prompt": "x", "max_tokens": 1}),
        ("/v1/responses", {"model": "keyed", "input": "x", "max_output_tokens": 1}),
        ("/v1/messages", {"model": "keyed", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}),
        ("/tokenize", {"model": "keyed", "prompt": "x"}),
        ("/detokenize", {"model": "keyed", "tokens": [1]}),
        ("/v1/chat/%63ompletions", {"model": "keyed", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_inference_route_asks_for_the_key(keyed: Keyed, path: str, body: object) -> None:
    assert post(keyed, path, body).status == 401
    assert post(keyed, path, body, keyed.ring.bearer("open")).status == 200


def test_the_list_of_models_asks_for_the_key_and_probes_do_not(keyed: Keyed) -> None:
    address = (keyed.service.host, keyed.service.port)
    assert ask.get(*address, "/v1/models")[0] == 401
    for name, models in (("open", {"keyed", "locked"}), ("narrow", {"keyed"})):
        status, raw = ask.get(*address, "/v1/models", headers=keyed.ring.bearer(name))
        assert (status, {row["id"] for row in json.loads(raw)["data"]}) == (200, models)
    for path in ("/health", "/graftwork/ready"):
        assert ask.get(*address, path)[0] == 200, path


def test_metrics_are_told_to_a_scrapers_key_only_and_it_asks_no_model(keyed: Keyed) -> None:
    address = (keyed.service.host, keyed.service.port)
    for path in ("/metrics", "/graftwork/metrics"):
        given: list[dict[str, str]] = [{}, keyed.ring.bearer("open"), keyed.ring.bearer("scraper")]
        assert [ask.get(*address, path, headers=headers)[0] for headers in given] == [401, 403, 200], path
    assert keyed.chat(name="scraper").status == 404


def test_a_known_key_is_answered_by_the_models_that_it_may_ask(keyed: Keyed) -> None:
    assert keyed.chat(name="open").status == 200
    assert "swordfish" in keyed.chat("locked", name="open", max_tokens=12).text
    assert keyed.chat(name="narrow").status == 200
    body = {"model": "keyed", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    assert post(keyed, "/v1/messages", body, {"x-api-key": keyed.ring.key("open")}).status == 200, "as clients of the messages API send it"


def test_a_model_that_a_key_may_not_ask_is_like_one_that_does_not_exist(keyed: Keyed) -> None:
    forbidden, absent = keyed.chat("locked", name="narrow"), keyed.chat("nobody", name="narrow")
    assert (forbidden.status, absent.status) == (404, 404)
    assert json.dumps(forbidden.body).replace("locked", "nobody") == json.dumps(absent.body), "what exists must not be told apart"


def test_a_key_opens_no_administrative_route(keyed: Keyed) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/graftwork/keys", "/graftwork/routing", "/adapters"):
        assert post(keyed, path, {"lora_name": "locked"}, keyed.ring.bearer("open")).status == 404, path


def test_requests_per_minute_end_in_429_with_the_headers_that_clients_know(keyed: Keyed) -> None:
    first, second, third = (keyed.chat(name="slow") for _ in range(3))
    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert header(first, "x-ratelimit-limit-requests") == "2"
    assert header(first, "x-ratelimit-remaining-requests") == "1"
    assert header(third, "x-ratelimit-remaining-requests") == "0"
    assert 1 <= int(header(third, "retry-after")) <= 60
    assert header(third, "x-ratelimit-reset-requests")
    assert third.body["error"]["message"]
    assert keyed.chat(name="open").status == 200, "a limit is its key's own"


def test_tokens_per_minute_are_counted_from_what_was_used(keyed: Keyed) -> None:
    first = keyed.chat(name="frugal", max_tokens=30, ignore_eos=True)
    assert first.status == 200
    assert first.body["usage"]["total_tokens"] >= 20
    second = keyed.chat(name="frugal")
    assert second.status == 429
    assert header(second, "x-ratelimit-limit-tokens") == "20"
    assert header(second, "x-ratelimit-remaining-tokens") == "0"
    assert int(header(second, "retry-after")) >= 1


def test_a_second_request_at_the_same_time_is_refused_until_the_first_has_ended(keyed: Keyed) -> None:
    long = LongAnswer(keyed.service.host, keyed.service.port, "keyed", LONG_TOKENS, 4, keyed.ring.bearer("single"))
    long.start()
    assert long.begun.wait(30)
    refused = keyed.chat(name="single")
    assert long.is_alive(), "the long answer must still run, or this proves nothing"
    assert (refused.status, bool(header(refused, "retry-after"))) == (429, True)
    assert keyed.chat(name="open").status == 200
    long.join(timeout=300)
    assert not long.is_alive(), "the long answer has not ended"
    assert (long.failure, long.tokens) == ("", 4 * LONG_TOKENS)
    assert keyed.chat(name="single").status == 200


def test_one_key_cannot_find_out_what_another_has_asked(keyed: Keyed) -> None:
    """The same long prompt is found in the prefix cache by the key that sent it, and by no other."""
    asked, hits = cached_tokens(keyed, "open")
    assert (asked > BLOCK_TOKENS, hits) == (True, 0)
    assert cached_tokens(keyed, "open")[1] >= BLOCK_TOKENS, "the same key finds it again, so the cache works"
    assert cached_tokens(keyed, "other")[1] == 0


def cached_tokens(keyed: Keyed, name: str) -> tuple[int, int]:
    """Send a long prompt, and return by how much the engine's counters of tokens looked up and found in the prefix cache have grown."""
    before = prefix_cache(keyed)
    answer = post(keyed, "/v1/completions", {"model": "keyed", "prompt": LONG_PROMPT, "max_tokens": 1}, keyed.ring.bearer(name))
    assert answer.status == 200, answer.body
    tokens = answer.body["usage"]["prompt_tokens"]
    deadline = time.monotonic() + 30
    while (after := prefix_cache(keyed))[0] < before[0] + tokens:
        assert time.monotonic() < deadline, f"{tokens} tokens were asked, and the engine has counted {after[0] - before[0]}"
        threading.Event().wait(0.1)  # the engine counts a step after it has answered
    return int(after[0] - before[0]), int(after[1] - before[1])


def prefix_cache(keyed: Keyed) -> tuple[float, float]:
    """Return the engine's counters: tokens looked up, tokens found."""
    _, text = ask.get(keyed.service.pod()["status"]["podIP"], keyed.service.port, "/metrics", headers=keyed.ring.bearer("scraper"))
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    return found["vllm:prefix_cache_queries_total"], found["vllm:prefix_cache_hits_total"]


def test_the_engines_container_has_no_key_and_the_agents_file_has(keyed: Keyed) -> None:
    pod = keyed.service.pod()
    (engine,) = [each for each in pod["spec"]["containers"] if each["name"] == "vllm"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"] if SECRET in json.dumps(volume)}
    assert volumes, "the Secret is a volume of the pod"
    assert not volumes & {mount["name"] for mount in engine["volumeMounts"]}
    assert SECRET not in json.dumps(engine)
    assert {"name": "GRAFTWORK_KEYS", "value": "required"} in engine["env"]
    uid = pod["metadata"]["uid"]
    (vllm, *_), (agent, *_) = processes.of_pod(uid, "vllm serve"), processes.of_pod(uid, "serve --supervised")
    assert Path(f"/proc/{agent}/root/graftwork/keys/keys.yaml").exists()
    assert not Path(f"/proc/{vllm}/root/graftwork/keys").exists()
    environment = Path(f"/proc/{vllm}/environ").read_bytes().decode(errors="replace")
    assert [name for name in keyed.ring.entries if keyed.ring.key(name) in environment] == []


def test_a_changed_secret_is_read_without_a_restart_and_a_broken_one_leaves_the_last_good_keys(keyed: Keyed, kube: Kube) -> None:
    changed = keyed.ring.without("narrow").with_new("fresh")
    refresh(keyed, kube, changed.secret())
    until_status(keyed, changed.bearer("fresh"), 200)
    assert keyed.chat(name="narrow").status == 401, "a key that was taken away is none"
    assert keyed.chat(name="open").status == 200
    refresh(keyed, kube, changed.secret("fresh: {key: 7, limits: {requestsPerMinute: -1"))
    status = keyed.service.until_agent(lambda status: status.get("keys", {}).get("error"), REFRESH_SECONDS, "with an error of its keys")
    assert changed.key("fresh") not in json.dumps(status)
    assert keyed.chat(headers=changed.bearer("fresh")).status == 200
    assert keyed.chat(headers={}).status == 401
    assert keyed.service.identities() == keyed.pods
    no_key_is_seen(keyed, kube, {*(keyed.ring.key(name) for name in keyed.ring.entries), changed.key("fresh")})


def refresh(keyed: Keyed, kube: Kube, secret: Object) -> None:
    """Apply the Secret, and touch the pod: the kubelet then refreshes its volumes at once and not within a minute and a half."""
    kube.apply(secret)
    kube.run("annotate", "pod", keyed.service.pod()["metadata"]["name"], f"e2e/touched={time.monotonic():.3f}", "--overwrite")


def until_status(keyed: Keyed, headers: dict[str, str], status: int) -> None:
    """Ask until the answer has the status."""
    deadline = time.monotonic() + REFRESH_SECONDS
    while (answer := keyed.chat(headers=headers)).status != status:
        assert time.monotonic() < deadline, f"still {answer.status} after {REFRESH_SECONDS} s: {answer.body}"
        threading.Event().wait(0.25)


def no_key_is_seen(keyed: Keyed, kube: Kube, keys: set[str]) -> None:
    """Look for keys wherever an operator of the cluster looks: logs, objects, events, metrics and the agent's status."""
    pod = keyed.service.pod()
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    seen = {f"log of {each}": kube.logs(name, each, tail=-1) for each in ("vllm", "agent", "install", "download")}
    seen["log of the operator"] = kube.within(install.SYSTEM_NAMESPACE).logs(f"deploy/{install.RELEASE}", tail=-1)
    seen["objects"] = kube.run("get", "pods,deployments,configmaps,controllerrevisions,llmdeployments,events", "-o", "json")
    seen["metrics of the guard"] = ask.get(address, keyed.service.port, "/graftwork/metrics", headers=keyed.ring.bearer("scraper"))[1]
    assert "graftwork_key_requests_total" in seen["metrics of the guard"]
    seen["metrics of the agent"] = ask.get(address, 9901, "/metrics")[1]
    seen["status of the agent"] = json.dumps(keyed.service.until_agent(lambda status: True))
    assert len(seen["log of vllm"]) > 1000
    assert [where for where, text in seen.items() if any(key in text for key in keys)] == []
