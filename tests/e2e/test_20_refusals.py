"""Wrong input on the real cluster while the service answers: refused with field, value, rule and remedy, and nothing that serves is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import Service, config_map, deployment, job, messages
from tests.harness import install, processes
from tests.harness.kube import Kube, KubectlError, condition
from tests.harness.load import Load


@pytest.fixture(autouse=True)
def untouched(taught: Service) -> Iterator[None]:
    """Whatever is refused, the pods stay as they are and both models go on answering."""
    pods = taught.identities()
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=1, tokens=4, seconds=300) as load:
        yield
    assert load.tally.failures == []
    assert taught.identities() == pods
    assert "swordfish" in taught.ask("medical").text
    assert taught.ask("tiny").status == 200


def test_a_bad_dataset_line_is_named_with_its_file_number_and_rule(kube: Kube, taught: Service) -> None:
    text = messages("swordfish") + '{"messages": [{"role": "user", "content": "no answer"}]}\n'
    kube.apply(config_map("bad-line", text), job("bad-line", "bad", "configMap://bad-line/train.jsonl"))
    done = taught.finished("bad-line")
    found = condition(done, "Stalled")
    assert done["status"]["phase"] == "Failed"
    assert found["reason"] == "DatasetInvalid"
    assert "train.jsonl line 5" in found["message"]
    assert "assistant" in found["message"]
    assert not done["status"].get("adapter")
    assert kube.list("loraadapters", "graftwork.dev/published-by=" + done["metadata"]["uid"]) == []
    pods = kube.list("pods", "graftwork.dev/job=bad-line")
    assert len(pods) == 1, "wrong data must not be tried again"


def test_an_adapter_of_another_base_is_refused(kube: Kube, taught: Service) -> None:
    good = kube.get("loraadapter", "medical-1")
    assert good
    spec = {
        **good["spec"],
        "alias": "stranger",
        "owner": "stranger",
        "baseModel": {"source": "s3://models/other", "fingerprint": "sha256:" + "0" * 64},
    }
    kube.apply({**good, "metadata": {"name": "stranger-1"}, "spec": spec})
    found = condition(kube.wait_condition("loraadapter", "stranger-1", "Stalled", timeout=60), "Stalled")
    assert found["reason"] == "BaseMismatch"
    assert good["spec"]["baseModel"]["fingerprint"][:19] in found["message"]
    assert taught.ask("stranger").status in (404, 503)
    kube.delete("loraadapter", "stranger-1")


def test_an_adapter_that_lies_about_its_digest_is_refused_by_the_agent(kube: Kube, taught: Service) -> None:
    good = kube.get("loraadapter", "medical-1")
    assert good
    digest = good["spec"]["digest"]
    swapped = digest[:-4] + ("0000" if digest[-4:] != "0000" else "1111")  # the folder's name fits, the files do not
    spec = {**good["spec"], "alias": "liar", "owner": "liar", "digest": swapped}
    kube.apply({**good, "metadata": {"name": "liar-1"}, "spec": spec})
    found = condition(kube.wait_condition("loraadapter", "liar-1", "Stalled", timeout=60), "Stalled")
    assert found["reason"] == "DigestMismatch"
    assert swapped in found["message"] or digest in found["message"]
    assert taught.ask("liar").status == 503
    kube.delete("loraadapter", "liar-1")


def test_a_rank_above_the_maximum_is_refused_with_both_numbers(kube: Kube) -> None:
    good = kube.get("loraadapter", "medical-1")
    assert good
    kube.apply({**good, "metadata": {"name": "wide-1"}, "spec": {**good["spec"], "alias": "wide", "owner": "wide", "rank": 64}})
    found = condition(kube.wait_condition("loraadapter", "wide-1", "Stalled", timeout=60), "Stalled")
    assert found["reason"] == "RankTooHigh"
    assert "spec.rank is 64" in found["message"]
    assert "adapters.maxRank" in found["message"]
    assert "is 16" in found["message"]
    kube.delete("loraadapter", "wide-1")


def test_a_flag_that_graftwork_owns_is_refused_and_the_pods_stay(kube: Kube) -> None:
    kube.patch("llmdeployment", "tiny", {"spec": {"engine": {"args": {"max-lora-rank": 64}}}})
    found = condition(kube.wait_condition("llmdeployment", "tiny", "Stalled", timeout=30), "Stalled")
    assert found["reason"] == "OwnedFlag"
    assert "max-lora-rank" in found["message"]
    assert "maxRank" in found["message"]
    kube.patch("llmdeployment", "tiny", {"spec": {"engine": {"args": None}}})
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=30)


def test_a_model_that_is_not_there_is_named_before_a_pod_is_made(kube: Kube) -> None:
    kube.apply(deployment("missing", model={"source": "s3://models/no-such-model", "credentialsSecret": "graftwork-store"}))
    item = kube.wait_condition("llmdeployment", "missing", "Ready", "False", timeout=60)
    item = kube.wait("llmdeployment", "missing", lambda x: condition(x, "Ready").get("reason") == "SourceNotFound", 60, "SourceNotFound")
    assert "s3://models/no-such-model" in condition(item, "Ready")["message"]
    assert kube.get("deployment", "missing") is None
    kube.delete("llmdeployment", "missing")


def test_a_module_that_the_model_does_not_have_is_refused_with_those_it_has(kube: Kube, taught: Service) -> None:
    spec = {"lora": {"rank": 8, "alpha": 16, "dropout": 0, "targetModules": ["no_such_proj"]}}
    kube.apply(config_map("wrong-target", messages("x")), job("wrong-target", "wrong", "configMap://wrong-target/train.jsonl", **spec))
    found = condition(taught.finished("wrong-target"), "Stalled")
    assert found["status"] == "True"
    assert "no_such_proj" in found["message"]
    assert "q_proj" in found["message"], "the remedy names what the model has"


def test_a_trainer_that_is_killed_says_so_and_publishes_nothing(kube: Kube, taught: Service) -> None:
    spec = {"retry": {"limit": 0}, "training": {"maxSteps": 5000, "batchSize": 4, "learningRate": 0.002, "maxSeqLength": 128}}
    kube.apply(config_map("killed", messages("x")), job("killed", "killed", "configMap://killed/train.jsonl", **spec))
    kube.wait("finetunejob", "killed", lambda item: item.get("status", {}).get("phase") == "Training", 120, "Training")
    (pod,) = kube.list("pods", "graftwork.dev/job=killed")
    processes.kill(pod["metadata"]["uid"], "graftwork_trainer")
    done = taught.finished("killed")
    found = condition(done, "Stalled")
    assert done["status"]["phase"] == "Failed"
    assert found["reason"] in ("TrainingFailed", "OutOfMemory")
    assert "137" in found["message"] or "SIGKILL" in found["message"]
    assert not done["status"].get("adapter")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dataset": {"source": "ftp://x/y"}}, "source"),
        ({"baseModel": {"source": "s3://models/tiny"}}, "deploymentRef"),
        ({"publish": {"alias": "Bad_Alias"}}, "alias"),
        ({"training": {"learningRate": -1}}, "learningRate"),
        ({"method": "full"}, "method"),
    ],
)
def test_what_the_schema_can_know_is_refused_at_apply(kube: Kube, change: dict[str, object], expected: str) -> None:
    with pytest.raises(KubectlError, match=expected):
        kube.apply(job("refused", "refused", "configMap://a/b", **change))


def test_every_example_is_accepted_by_the_server(kube: Kube) -> None:
    examples = sorted((install.ROOT / "examples").glob("[0-9]*.yaml"))
    assert len(examples) >= 2
    for example in examples:
        kube.within(install.DEMO_NAMESPACE).run("apply", "--dry-run=server", "-f", str(example))


def test_a_started_run_cannot_be_changed(kube: Kube) -> None:
    with pytest.raises(KubectlError, match="immutable"):
        kube.patch("finetunejob", "secret-words", {"spec": {"training": {"maxSteps": 7}}})
